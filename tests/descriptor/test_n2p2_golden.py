"""Symmetry functions that n2p2 computed: weighted ones, angular shifts and cutoff functions."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_numbers

from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from tests.contracts.descriptor import STENCIL, STEP

CASES = sorted((Path(__file__).parents[1] / "golden" / "n2p2").iterdir())
CUTOFFS = ["hard", "cosine", "tanh", "tanh_scaled", "exp", "poly1", "poly2", "poly3", "poly4"]
# n2p2's number of each type, and the names of the values that follow it.
TYPES = {
    "2": ("G2", "element eta Rs cutoff"),
    "3": ("G4", "first second eta gamma zeta cutoff Rs"),
    "9": ("G5", "first second eta gamma zeta cutoff Rs"),
    "12": ("G2W", "eta Rs cutoff"),
    "13": ("G4W", "eta Rs gamma zeta cutoff"),
}
NUMBERS = {2: 2, 4: 3, 5: 9, 12: 12, 14: 13}


def n2p2_descriptor(path):
    """The descriptor of an input.nn."""
    fp_params, cutoff_params = {}, {}
    for line in path.read_text().splitlines():
        keyword, *values = line.split("#")[0].split() or [""]
        if keyword == "cutoff_type":
            cutoff_params = {"cutoff_func": CUTOFFS[int(values[0])], "alpha": float(values[1])}
        elif keyword == "symfunction_short":
            symbol, number, *values = values
            kind, names = TYPES[number]
            entry = {"type": kind, **dict(zip(names.split(), values, strict=False))}
            entry["eta"] = float(entry["eta"]) * float(entry["cutoff"]) ** 2
            if "first" in entry:
                entry["elements"] = [entry.pop("first"), entry.pop("second")]
            fp_params.setdefault(symbol, []).append(entry)
    elements = sorted(fp_params, key=atomic_numbers.get)
    return Gaussian(fp_params, elements, cutoff_params)


def place_in_n2p2(row):
    """What n2p2 sorts the functions of an element by."""
    kind, first, second, rc, eta, *rest = row.tolist()
    zeta, lam, shift = (*rest, 0.0)[:3]
    values = (rest[0],) if kind in (2, 12) else (shift, zeta, lam)
    return NUMBERS[kind], rc, eta, *values, *sorted((first, second))


@pytest.mark.parametrize("structure", ["crystal", "cluster"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_raw_values_and_derivatives(path, structure):
    golden = json.loads((path / f"{structure}.json").read_text())
    cell = golden["cell"] if golden["pbc"] else None
    atoms = Atoms(golden["symbols"], golden["positions"], cell=cell, pbc=golden["pbc"])
    descriptor = n2p2_descriptor(path / "input.nn")
    values, blocks = descriptor.values_and_derivatives(Frames.from_atoms([atoms]))
    for row, symbol, expected in zip(
        values, golden["symbols"], golden["symmetry_functions"], strict=True
    ):
        rows = descriptor.descriptor_setup[symbol]
        order = sorted(range(len(rows)), key=lambda k: place_in_n2p2(rows[k]))
        np.testing.assert_allclose(row[order], expected, rtol=1e-12, atol=1e-12)

    rng = np.random.default_rng(1)
    g, v = rng.normal(size=values.shape), rng.normal(size=(len(atoms), 3))
    step = STEP / 10
    energies = []
    for multiple in STENCIL:
        moved = atoms.copy()
        moved.positions += multiple * step * v
        energies.append(np.vdot(g, descriptor.values(Frames.from_atoms([moved]))))
    numeric = np.dot(energies, list(STENCIL.values())) / step
    frames = Frames.from_atoms([atoms])
    for gradient in (blocks.vjp([0], g), descriptor.vjp(frames, g)):
        np.testing.assert_allclose(np.vdot(gradient, v), numeric, rtol=1e-8)
    np.testing.assert_allclose(np.vdot(descriptor.jvp(frames, v), g), numeric, rtol=1e-8)


def test_all_cases_are_there():
    assert len(CASES) >= 10
