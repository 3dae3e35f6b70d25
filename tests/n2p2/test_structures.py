"""Structures in n2p2's files, read and written."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from amptorch.n2p2 import read_data, write_data
from tests.small_frames import labelled

FRAME = """begin
comment a water molecule
atom 0.0 0.0 0.1 O -0.4 0.0 0.1 0.2 0.3
atom 0.0 0.8 -0.5 H 0.2 0.0 -0.1 -0.2 0.3
atom 0.0 -0.8 -0.5 H 0.2 0.0 0.0 0.0 -0.6
energy -14.5
charge 0.0
end
"""


def frames():
    crystal = bulk("CuO", "rocksalt", a=4.3, cubic=True)
    crystal.rattle(0.05, seed=1)
    crystal.info["comment"] = "two\nlines"
    charged = molecule("O2")
    charged.set_initial_charges([0.25, -0.5])
    charged.info["charge"] = 1.0
    return [labelled(crystal), labelled(charged)]


def test_a_file(tmp_path):
    path = tmp_path / "input.data"
    path.write_text(FRAME)
    (atoms,) = read_data(path)
    assert atoms.get_chemical_formula() == "H2O"
    assert not atoms.pbc.any()
    assert atoms.info == {"comment": "a water molecule"}
    assert atoms.get_potential_energy() == -14.5
    np.testing.assert_array_equal(atoms.get_forces()[1], [-0.1, -0.2, 0.3])
    np.testing.assert_array_equal(atoms.get_initial_charges(), [-0.4, 0.2, 0.2])
    (bohr,) = read_data(path, "bohr")
    np.testing.assert_allclose(bohr.positions[1], [0.0, 0.42334177, -0.26458861], rtol=1e-7)
    np.testing.assert_allclose(bohr.get_potential_energy(), -14.5 * 27.211386, rtol=1e-7)
    np.testing.assert_allclose(bohr.get_forces()[1, 2], 0.3 * 51.4220670, rtol=1e-7)


@pytest.mark.parametrize(("units", "tolerance"), [("angstrom", 0), ("bohr", 1e-15)])
def test_round_trip(tmp_path, units, tolerance):
    given = frames()
    assert write_data(tmp_path / "input.data", iter(given), units) == 2
    for atoms, expected in zip(read_data(tmp_path / "input.data", units), given, strict=True):
        assert atoms.get_chemical_symbols() == expected.get_chemical_symbols()
        assert (atoms.pbc == expected.pbc).all()
        assert atoms.info == expected.info
        for value, other in [
            (atoms.positions, expected.positions),
            (atoms.cell[:], expected.cell[:] if expected.pbc.all() else np.zeros((3, 3))),
            (atoms.get_potential_energy(), expected.get_potential_energy()),
            (atoms.get_forces(), expected.get_forces()),
            (atoms.get_initial_charges(), expected.get_initial_charges()),
        ]:
            np.testing.assert_allclose(value, other, rtol=tolerance, atol=tolerance)


def test_frames_come_one_by_one(tmp_path):
    """The second frame is damaged: the first is there before that is seen."""
    path = tmp_path / "input.data"
    path.write_text(FRAME + FRAME.replace("0.8", "x"))
    reader = read_data(path)
    assert len(next(reader)) == 3
    with pytest.raises(ValueError, match="line 12: expected a number, got 'x'"):
        next(reader)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("begin\n", "", "line 1: expected 'begin', got 'comment a water"),
        ("end\n", "", "line 1: the frame that begins here has no 'end'"),
        ("end\n", "begin\n", "line 1: the frame has no 'end' before line 8"),
        ("H 0.2 0.0 0.0 0.0 -0.6", "H 0.2 0.0 0.0", "line 5: 'atom' needs x y z element charge"),
        (" -0.6", " nan", "line 5: expected a number, got 'nan'"),
        ("0.1 O", "0.1 Q", "line 3: 'Q' is no chemical element"),
        ("energy -14.5", "energy", "line 6: a frame has one line 'energy' with one number"),
        ("energy -14.5", "energy E", "line 6: expected a number, got 'E'"),
        ("charge 0.0", "energy 0.0", "line 7: a frame has one line 'energy'"),
        ("charge 0.0", "spin 0.0", "line 7: 'spin' is not known; expected comment, lattice"),
        ("comment a", "lattice 1 0 0\n#", "line 3: '#' is not known"),
        ("comment a water molecule", "lattice 1 0 0", "line 1: the frame has 1 of 3 lines"),
        ("comment a water molecule", "lattice 1 0", "line 2: a frame has three lines 'lattice'"),
    ],
)
def test_damage_is_named(tmp_path, old, new, message):
    path = tmp_path / "input.data"
    assert FRAME.count(old) == 1
    path.write_text(FRAME.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        list(read_data(path))
    assert str(path) in str(error.value)


def test_no_frames(tmp_path):
    path = tmp_path / "input.data"
    for text, message in [("\n", "holds no frames"), ("begin\nenergy 0\nend\n", "no atoms")]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            list(read_data(path))


def test_frames_that_cannot_be_written(tmp_path):
    path = tmp_path / "input.data"
    good = frames()
    half = labelled(
        Atoms("Cu", [[0, 0, 0]], cell=[3, 3, 9], pbc=[True, True, False]), 0.0, [[0] * 3]
    )
    with pytest.raises(ValueError, match="frame 2 has no energy or no forces"):
        write_data(path, [*good, molecule("O2")])
    with pytest.raises(ValueError, match="frame 1 is periodic along 2 of its 3 directions"):
        write_data(path, [good[0], half])
    assert not [*tmp_path.iterdir()]
