"""Gaussian multipole features and derivatives that AMPTorch v1.0 computed."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from scipy.sparse import coo_matrix

from amptorch.descriptor.construct import construct_descriptor
from amptorch.frames import Frames
from tests.contracts.descriptor import close, dense

CASES = sorted((Path(__file__).parents[1] / "golden" / "descriptors").glob("gmp*__*.npz"))


def test_all_cases_are_there():
    assert len(CASES) == 20


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_fingerprints_and_derivatives(path):
    golden = np.load(path, allow_pickle=False)
    atoms = Atoms(golden["numbers"], golden["positions"], cell=golden["cell"], pbc=golden["pbc"])
    elements = golden["elements"].tolist()
    fp_params = json.loads(str(golden["fp_params"]))
    fp_params["atom_gaussians"] = {symbol: golden[f"gaussians_{symbol}"] for symbol in elements}
    descriptor = construct_descriptor((path.stem.split("__")[0], fp_params, None, elements))
    frames = Frames.from_atoms([atoms])
    values, blocks = descriptor.values_and_derivatives(frames)
    expected = golden["fingerprint"]
    # Each feature on its own scale: they differ by ten orders of magnitude.
    for s in range(expected.shape[1]):
        close(values[:, s], expected[:, s])
        close(descriptor.values(frames)[:, s], expected[:, s])
    row, col, val = (golden[f"fprime_{name}"] for name in ("row", "col", "val"))
    shape = tuple(golden["fprime_size"])
    expected = coo_matrix((val, (row, col)), shape).toarray()
    actual = dense(blocks)
    assert actual.shape == shape
    kept = expected != 0
    close(actual[kept], expected[kept])
    # v1.0 sets what is below 1e-5 to zero.
    assert np.abs(actual[~kept]).max(initial=0) < 1e-5 * (1 + 1e-9)
