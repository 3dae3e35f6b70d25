"""Frames: what is kept, and an error with the frame's index for each that has no meaning."""

import gzip

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import Trajectory, write
from numpy.testing import assert_array_equal

from amptorch.frames import Frames, check_coincident, element_table, elements_of, read_images
from amptorch.neighbors import neighbor_list
from amptorch.store.sources import open_sources


def with_results(atoms, **results):
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def water(energy=1.5):
    return with_results(molecule("H2O"), energy=energy, forces=np.arange(9.0).reshape(3, 3))


class TestArrays:
    def test_moved_atoms_are_those_of_a_frame_read_anew(self):
        atoms = bulk("Cu", cubic=True)
        frames = Frames.from_atoms([atoms])
        atoms.positions += 0.1
        moved, before = frames.moved(atoms.positions), atoms.positions.copy()
        atoms.positions += 0.1
        assert_array_equal(moved.positions, before)
        for name in ("numbers", "cells", "pbc", "offsets", "indices"):
            assert_array_equal(getattr(moved, name), getattr(frames, name))
        atoms.positions[2, 1] = np.nan
        with pytest.raises(ValueError, match=r"frame 0, atom 2 \(Cu\): positions .* finite"):
            frames.moved(atoms.positions)
        atoms.positions[2, 1] = 1e9
        with pytest.raises(ValueError, match=r"frame 0, atom 2 \(Cu\): positions .* time step"):
            frames.moved(atoms.positions)

    def test_fields(self):
        slab = with_results(fcc111("Pd", (1, 1, 2), a=3.9), energy=-2.0, forces=np.ones((2, 3)))
        images = [water(), slab]
        frames = Frames.from_atoms(images, ["O", "H", "Pd"], energies=True, forces=True)
        assert len(frames) == 2
        assert frames.n_atoms == 5
        assert_array_equal(frames.numbers, [8, 1, 1, 46, 46])
        assert_array_equal(frames.positions, np.concatenate([a.positions for a in images]))
        assert_array_equal(frames.cells, [np.zeros((3, 3)), slab.cell.array])
        assert_array_equal(frames.pbc, [[False] * 3, [True, True, False]])
        assert_array_equal(frames.offsets, [0, 3, 5])
        assert_array_equal(frames.energies, [1.5, -2.0])
        assert_array_equal(frames.forces, [*np.arange(9.0).reshape(3, 3), *np.ones((2, 3))])
        assert frames.numbers.dtype == frames.offsets.dtype == np.int64

    def test_select_keeps_order_repeats_and_indices(self):
        images = [water(energy=float(n)) for n in range(3)]
        images[1] = with_results(bulk("Cu"), energy=7.0, forces=np.full((1, 3), 5.0))
        frames = Frames.from_atoms(images, energies=True, forces=True, first_index=10)
        picked = frames.select([2, 1, 2])
        assert_array_equal(picked.offsets, [0, 3, 4, 7])
        assert_array_equal(picked.energies, [2.0, 7.0, 2.0])
        assert_array_equal(picked.indices, [12, 11, 12])
        assert_array_equal(picked.numbers, [8, 1, 1, 29, 8, 1, 1])
        assert_array_equal(picked.forces[3], [5.0, 5.0, 5.0])
        assert_array_equal(frames[-1].energies, [2.0])
        assert_array_equal(frames[1:].offsets, [0, 1, 4])
        assert [len(frame) for frame in frames] == [1, 1, 1]
        with pytest.raises(IndexError, match="frame 3 of 3"):
            frames[3]

    def test_forces_are_those_without_constraints(self):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=1)
        atoms.calc = EMT()
        free = atoms.get_forces()
        atoms.set_constraint(FixAtoms([0]))
        frames = Frames.from_atoms([atoms], energies=True, forces=True)
        assert np.abs(frames.forces[0]).max() > 1e-3
        assert_array_equal(frames.forces, free)

    def test_images_are_not_changed(self):
        atoms = water()
        frames = Frames.from_atoms([atoms], forces=True)
        frames.positions[:] = 0
        frames.forces[:] = 0
        assert atoms.positions.any()
        assert atoms.get_forces().any()

    def test_molecule_atoms_outside_the_cell_and_single_atom_are_fine(self):
        outside = Atoms("CO", [[-5, 0, 0], [40, 1, 2]], cell=[3, 3, 3], pbc=(True, False, False))
        Frames.from_atoms([molecule("H2O"), outside, Atoms("He")])


def bad_cell(vectors, pbc=True):
    return Atoms("Cu", cell=vectors, pbc=pbc)


def nan_position():
    atoms = molecule("H2O")
    atoms.positions[1, 2] = np.nan
    return atoms


BAD_STRUCTURES = {
    "no atoms": (Atoms(), "frame 8 has no atoms"),
    "NaN position": (nan_position(), r"frame 8, atom 1 \(H\): positions .*nan.* must be finite"),
    "exploded dynamics": (
        Atoms("CO", [[0, 0, 0], [1, -1e30, 0]], cell=[5, 5, 5], pbc=True),
        r"frame 8, atom 1 \(O\): positions .*1e\+30.* more than 1e\+08 Å",
    ),
    "infinite cell": (bad_cell([np.inf, 3, 3]), "frame 8: cell .*inf.* must be finite"),
    "no cell": (bad_cell([0, 0, 0]), r"frame 8 is periodic along cell vector 0, which is zero"),
    "no third vector": (bad_cell([3, 3, 0]), r"cell vector 2, which is zero.*pbc\[2\] to False"),
    "flat cell": (
        bad_cell([[3, 0, 0], [0, 3, 0], [3, 3, 0]]),
        "frame 8: the periodic cell vectors are linearly dependent",
    ),
    "parallel vectors": (
        bad_cell([[3, 0, 0], [-6, 0, 0], [0, 0, 4]], (True, True, False)),
        "frame 8: the periodic cell vectors are linearly dependent",
    ),
    "unknown element": (
        Atoms("Au"),
        r"frame 8, atom 0 \(Au\).* not in elements \['Cu', 'H', 'O'\]",
    ),
    "ghost atom": (Atoms("X"), r"frame 8, atom 0 \(X\)"),
}


@pytest.mark.parametrize(("atoms", "message"), BAD_STRUCTURES.values(), ids=BAD_STRUCTURES)
def test_a_structure_without_meaning_is_named(atoms, message):
    images = [water(), atoms, water()]
    with pytest.raises(ValueError, match=message):
        Frames.from_atoms(images, ["Cu", "H", "O"], first_index=7)


def test_a_ghost_atom_is_an_error_without_elements_too():
    with pytest.raises(ValueError, match=r"frame 1, atom 0 \(X\) is no chemical element"):
        Frames.from_atoms([water(), Atoms("X")])


def test_elements_and_their_places():
    frames = Frames.from_atoms([molecule("H2O"), molecule("CH4")])
    assert elements_of(frames) == ["C", "H", "O"]
    table = element_table(["O", "H"])
    assert table[frames.numbers].tolist() == [0, 1, 1, -1, 1, 1, 1, 1]
    assert np.flatnonzero(table >= 0).tolist() == [1, 8]
    with pytest.raises(ValueError, match="'Xx' is not a chemical symbol"):
        element_table(["O", "Xx"])


@pytest.mark.parametrize("shift", [[0, 0, 0], [3, 0, 0], [5e-5, 3, -3]])
def test_atoms_in_one_place_are_named(shift):
    twice = Atoms("CuO", [[0.1, 0.2, 0.3], np.add([0.1, 0.2, 0.3], shift)], cell=[3] * 3, pbc=True)
    frames = Frames.from_atoms([bulk("Cu"), twice], first_index=4)
    with pytest.raises(ValueError, match=r"frame 5: atoms 0 \(Cu\) and 1 \(O\)"):
        neighbor_list(frames, 4.0)


def test_check_coincident_takes_near_atoms_for_what_they_are():
    frames = Frames.from_atoms([molecule("H2O")])
    check_coincident(frames, [0, 1, 2, 2], [1, 0], [2e-4, 2e-4])
    with pytest.raises(ValueError, match=r"atoms 1 \(H\) and 0 \(O\)"):
        check_coincident(frames, [0, 1, 2, 2], [1, 0], [2e-4, 0.5e-4])


WRONG_RESULTS = {
    "no calculator": (molecule("H2O"), "frame 2 has no energy.*SinglePointCalculator"),
    "no energy": (
        with_results(molecule("H2O"), forces=np.zeros((3, 3))),
        "frame 2 has no energy",
    ),
    "no forces": (with_results(molecule("H2O"), energy=0.0), "frame 2 has no forces"),
    "NaN energy": (water(np.nan), "frame 2: energy nan must be finite"),
    "NaN forces": (
        with_results(molecule("H2O"), energy=0.0, forces=np.full((3, 3), np.nan)),
        r"frame 2, atom 0 \(O\): forces .*nan.* must be finite",
    ),
    "forces of others": (
        with_results(molecule("H2O"), energy=0.0, forces=np.zeros((2, 3))),
        r"frame 2: forces of shape \(2, 3\), expected \(3, 3\)",
    ),
}


@pytest.mark.parametrize(("atoms", "message"), WRONG_RESULTS.values(), ids=WRONG_RESULTS)
def test_missing_energy_or_forces_are_named(atoms, message):
    Frames.from_atoms([water(), water(), atoms])
    with pytest.raises(ValueError, match=message):
        Frames.from_atoms([water(), water(), atoms], energies=True, forces=True)


def test_empty_list_and_other_things():
    with pytest.raises(ValueError, match="list of frames is empty"):
        Frames.from_atoms([])
    with pytest.raises(TypeError, match="frame 1 is str"):
        Frames.from_atoms([water(), "H2O"])
    with pytest.raises(ValueError, match="'Oo' is not a chemical symbol"):
        Frames.from_atoms([water()], ["H", "Oo"])
    with pytest.raises(ValueError, match="'H' is there twice"):
        Frames.from_atoms([water()], ["H", "H"])


class TestReadImages:
    def images(self):
        return [water(energy=float(n)) for n in range(5)]

    def check(self, images, energies=range(5)):
        assert isinstance(images, list)
        assert [atoms.get_potential_energy() for atoms in images] == list(energies)

    @pytest.mark.parametrize("name", ["a.traj", "a.xyz", "a.db", "a.json"])
    @pytest.mark.parametrize("kind", [str, lambda path: path])
    def test_files(self, tmp_path, name, kind):
        write(tmp_path / name, self.images())
        self.check(read_images(kind(tmp_path / name)))

    def test_slice_after_the_name(self, tmp_path):
        write(tmp_path / "a.traj", self.images())
        self.check(read_images(f"{tmp_path}/a.traj@1:4:2"), [1, 3])
        self.check(read_images(f"{tmp_path}/a.traj@-1"), [4])

    @pytest.mark.parametrize("name", ["a@300K.traj", "a@2.xyz"])
    def test_a_name_with_an_at_sign(self, tmp_path, name):
        # ASE would take it for a slice when writing too.
        plain = (tmp_path / name).with_stem("a")
        write(plain, self.images())
        plain.rename(tmp_path / name)
        self.check(read_images(tmp_path / name))
        self.check(read_images(f"{tmp_path}/{name}@1:3"), [1, 2])

    @pytest.mark.parametrize("name", ["a.traj", "a.xyz", "a.db"])
    def test_a_number_beyond_the_end(self, tmp_path, name):
        write(tmp_path / name, self.images())
        self.check(read_images(f"{tmp_path}/{name}@4"), [4])
        self.check(read_images(f"{tmp_path}/{name}@-5"), [0])
        with pytest.raises(ValueError, match=f"{name}@5 holds no frames"):
            read_images(f"{tmp_path}/{name}@5")

    def test_an_empty_name(self):
        with pytest.raises(ValueError, match="name of a file of frames is empty"):
            read_images("")

    def test_several_files(self, tmp_path):
        write(tmp_path / "a.traj", self.images()[:2])
        write(tmp_path / "b.xyz", self.images()[1:])
        self.check(read_images([tmp_path / "a.traj", f"{tmp_path}/b.xyz@1:"]))
        with pytest.raises(FileNotFoundError, match=r"c\.traj"):
            read_images([str(tmp_path / "a.traj"), str(tmp_path / "c.traj")])

    def test_objects(self, tmp_path):
        write(tmp_path / "a.traj", self.images())
        write(tmp_path / "a.db", self.images())
        self.check(read_images(self.images()))
        self.check(read_images(tuple(self.images())))
        self.check(read_images(self.images()[3]), [3])
        self.check(read_images(Trajectory(tmp_path / "a.traj")))
        with connect(tmp_path / "a.db") as database:
            self.check(read_images(database))
        with pytest.raises(TypeError, match="raw_data is int"):
            read_images(5)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file '.*b\.traj'"):
            read_images(tmp_path / "b.traj")
        with pytest.raises(FileNotFoundError, match=r"no file '.*b\.traj'"):
            read_images(f"{tmp_path}/b.traj@:3")

    @pytest.mark.parametrize("between", ["", "\n", "\n  \n\n"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("name", ["joined.xyz", "joined.extxyz", "joined.xyz.gz"])
    def test_blank_lines_between_frames_are_passed_over(self, tmp_path, between, end, name):
        """For ASE's reader the first of them ends the file."""
        write(tmp_path / "a.xyz", self.images(), format="extxyz")
        text = (tmp_path / "a.xyz").read_text()
        joined = (between + text + between + text + between).replace("\n", end).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(joined) if name.endswith("gz") else joined)
        n = len(self.images())
        self.check(read_images(path)[:n])
        self.check(read_images(path)[n:])
        assert len(read_images(f"{path}@{n - 1}:")) == n + 1
        assert sum(map(len, open_sources(path))) == 2 * n
        (source,) = open_sources(path)
        self.check([get() for _, get in source.part(n, 2 * n).read()])

    def test_the_line_that_should_begin_a_frame_is_named(self, tmp_path):
        write(tmp_path / "a.xyz", self.images(), format="extxyz")
        text = (tmp_path / "a.xyz").read_text()
        (tmp_path / "b.xyz").write_text(text + "\nend of file\n")
        line = text.count("\n") + 2
        with pytest.raises(ValueError, match=rf"b\.xyz.*line {line}, .*'end of file"):
            read_images(tmp_path / "b.xyz")

    @pytest.mark.parametrize("name", ["a.traj", "a.xyz"])
    @pytest.mark.parametrize("fraction", [0, 0.02, 0.3, 0.5, 0.77, 0.97])
    def test_truncated(self, tmp_path, name, fraction):
        path = tmp_path / name
        write(path, self.images())
        content = path.read_bytes()
        # Within a line or record; text cut at the end of a frame is a shorter file.
        path.write_bytes(content[: int(fraction * len(content))])
        with pytest.raises(ValueError, match=rf"{name}"):
            read_images(path)

    def test_not_a_structure(self, tmp_path):
        path = tmp_path / "notes.qqq"
        path.write_text("hello")
        with pytest.raises(ValueError, match=r"notes\.qqq: ASE does not know this kind of file"):
            read_images(path)

    def test_trajectory_without_frames(self, tmp_path):
        Trajectory(tmp_path / "a.traj", "w").close()
        with pytest.raises(ValueError, match=r"a\.traj"):
            read_images(tmp_path / "a.traj")
