"""Values that AMPTorch v1.0 computed: tables, hashes, fingerprints and derivatives."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from scipy.sparse import coo_matrix

from amptorch.descriptor.Gaussian import GDS, Gaussian
from amptorch.frames import Frames
from tests.contracts.descriptor import close

CASES = sorted((Path(__file__).parents[1] / "golden" / "descriptors").glob("gaussian__*.npz"))
every_case = pytest.mark.parametrize("path", CASES, ids=[path.stem[10:] for path in CASES])


def load(path):
    """The case's arrays, its structure, and the arguments of its descriptor."""
    golden = np.load(path, allow_pickle=False)
    atoms = Atoms(golden["numbers"], golden["positions"], cell=golden["cell"], pbc=golden["pbc"])
    fp_params = json.loads(str(golden["fp_params"]))
    cutoff_params = json.loads(str(golden["cutoff_params"]))
    return golden, atoms, (fp_params, golden["elements"].tolist(), cutoff_params)


def test_all_cases_are_there():
    assert len(CASES) == 18


@every_case
def test_table_and_hash(path):
    golden, _, arguments = load(path)
    descriptor = Gaussian(*arguments)
    assert descriptor.descriptor_setup_hash == str(golden["setup_hash"])
    for symbol in arguments[1]:
        expected = golden[f"descriptor_setup_{symbol}"]
        np.testing.assert_array_equal(descriptor.descriptor_setup[symbol], expected)


@every_case
def test_descriptor_set_has_the_same_hash(path):
    golden, _, (fp_params, elements, cutoff_params) = load(path)
    functions = GDS(elements, cutoff_params=cutoff_params)
    functions.process_combinatorial_Gs(fp_params)
    assert functions.descriptor_setup_hash == str(golden["setup_hash"])
    assert Gaussian(functions, elements, cutoff_params).descriptor_setup_hash == str(
        golden["setup_hash"]
    )


@every_case
def test_fingerprints_and_derivatives(path):
    golden, atoms, arguments = load(path)
    descriptor = Gaussian(*arguments)
    values, blocks = descriptor.values_and_derivatives(Frames.from_atoms([atoms]))
    close(values, golden["fingerprint"])
    close(descriptor.values(Frames.from_atoms([atoms])), golden["fingerprint"])
    (row, col), val, size = blocks.sparse(0)
    shape = tuple(golden["fprime_size"])
    assert tuple(size) == shape
    # v1.0 leaves exact zeros out, so the matrices are compared, not the triples.
    expected = coo_matrix(
        (golden["fprime_val"], (golden["fprime_row"], golden["fprime_col"])), shape
    )
    close(coo_matrix((val, (row, col)), shape).toarray(), expected.toarray())
