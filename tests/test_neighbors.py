"""Neighbour lists against every image tried one by one, and against ASE."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.neighborlist import neighbor_list as ase_neighbor_list
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from amptorch.frames import Frames
from amptorch.neighbors import VerletList, neighbor_list
from tests.contracts import systems
from tests.reference.neighbors import neighbors

CUTOFFS = [1.2, 3.5, 7.0]


def pairs_of(listed):
    """[(i, j, shift, vector)] of a NeighborList, sorted."""
    return sorted(
        zip(
            listed.centers.tolist(),
            listed.neighbors.tolist(),
            map(tuple, listed.shifts.tolist()),
            listed.vectors.tolist(),
            strict=True,
        )
    )


def assert_same_pairs(listed, expected):
    actual = pairs_of(listed)
    expected = sorted(expected, key=lambda pair: pair[:3])
    assert [pair[:3] for pair in actual] == [pair[:3] for pair in expected]
    if actual:
        assert_allclose([p[3] for p in actual], [p[3] for p in expected], atol=1e-12)


def by_ase(atoms, cutoff):
    i, j, shifts, vectors = ase_neighbor_list("ijSD", atoms, cutoff)
    return list(zip(i.tolist(), j.tolist(), map(tuple, shifts.tolist()), vectors, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("name", systems.NAMES)
def test_systems(name, cutoff):
    atoms = systems.make(name)
    listed = neighbor_list(Frames.from_atoms([atoms]), cutoff)
    assert_same_pairs(listed, neighbors(atoms, cutoff))
    assert_same_pairs(listed, by_ase(atoms, cutoff))


@pytest.mark.slow
@pytest.mark.nojit
@pytest.mark.parametrize("pbc", list(itertools.product([False, True], repeat=3)))
def test_every_periodicity_of_a_skewed_cell(pbc):
    rng = np.random.default_rng(0)
    cell = [[3.0, 0.4, 0], [1.9, 2.6, 0.1], [-1.1, 1.4, 3.2]]
    # Atoms up to two cells outside.
    atoms = Atoms("CuOHO", scaled_positions=rng.uniform(-2, 3, (4, 3)), cell=cell, pbc=pbc)
    listed = neighbor_list(Frames.from_atoms([atoms]), 4.2)
    assert_same_pairs(listed, by_ase(atoms, 4.2))
    assert_same_pairs(listed, neighbors(atoms, 4.2))


@given(
    st.lists(st.tuples(*[st.floats(-1, 1, allow_subnormal=False)] * 3), min_size=3, max_size=3),
    st.tuples(*[st.booleans()] * 3),
    st.floats(0.5, 6.0),
    st.integers(0, 1000),
)
def test_any_cell(skew, pbc, cutoff, seed):
    cell = np.diag([3.5, 2.5, 4.5]) + skew
    scaled = np.random.default_rng(seed).uniform(-1, 2, (3, 3))
    atoms = Atoms("H2O", scaled_positions=scaled, cell=cell, pbc=pbc)
    listed = neighbor_list(Frames.from_atoms([atoms]), cutoff)
    expected = neighbors(atoms, cutoff)
    distances = np.array([np.linalg.norm(pair[3]) for pair in expected])
    if len(distances) and distances.min() < 1e-4:
        return
    # A pair at the cutoff itself is in or out by rounding.
    if not (abs(distances - cutoff) < 1e-9).any():
        assert_same_pairs(listed, expected)


def test_a_large_box_of_many_atoms():
    rng = np.random.default_rng(1)
    grid = np.array(list(itertools.product(range(6), repeat=3))) * 3.0
    positions = grid + rng.uniform(-0.8, 0.8, grid.shape)
    atoms = Atoms(rng.choice([1, 8, 26], len(grid)), positions, cell=[18.0] * 3, pbc=(1, 1, 0))
    listed = neighbor_list(Frames.from_atoms([atoms]), 5.0)
    assert_same_pairs(listed, by_ase(atoms, 5.0))


def test_order_and_types():
    frames = Frames.from_atoms([systems.make("tiny_cell"), systems.make("molecule")])
    listed = neighbor_list(frames, 4.0)
    for atom in range(frames.n_atoms):
        own = listed.neighbors[listed.offsets[atom] : listed.offsets[atom + 1]]
        keys = list(zip(frames.numbers[own].tolist(), own.tolist(), strict=True))
        assert keys == sorted(keys)
        assert_array_equal(frames.frame_of_atom[own], frames.frame_of_atom[atom])
    assert listed.offsets.dtype == np.int64
    assert listed.neighbors.dtype == listed.shifts.dtype == np.int32
    assert listed.vectors.dtype == np.float64
    assert listed.offsets[-1] == listed.n_pairs == len(listed.vectors)


def test_a_batch_is_its_frames_and_select_picks_them():
    frames = Frames.from_atoms([systems.make(name) for name in systems.NAMES])
    listed = neighbor_list(frames, 3.5)
    picked = [4, 1, 4]
    expected = neighbor_list(frames.select(picked), 3.5)
    chosen = listed.select(frames, picked)
    for name in ("offsets", "neighbors", "shifts", "vectors"):
        assert_array_equal(getattr(chosen, name), getattr(expected, name))
    for f in range(len(frames)):
        one = neighbor_list(frames[f], 3.5)
        assert_array_equal(listed.select(frames, [f]).vectors, one.vectors)


def test_same_list_on_one_thread_and_two():
    frames = Frames.from_atoms([systems.make(name) for name in systems.NAMES * 3])
    one, two = neighbor_list(frames, 5.0, threads=1), neighbor_list(frames, 5.0, threads=2)
    for name in ("offsets", "neighbors", "shifts", "vectors"):
        assert_array_equal(getattr(one, name), getattr(two, name))


def test_no_pairs():
    frames = Frames.from_atoms([Atoms("He"), Atoms("H2", [[0, 0, 0], [0, 0, 30.0]])])
    listed = neighbor_list(frames, 5.0)
    assert_array_equal(listed.offsets, [0, 0, 0, 0])
    assert listed.vectors.shape == listed.shifts.shape == (0, 3)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_a_cutoff_that_is_no_length(cutoff):
    with pytest.raises(ValueError, match="cutoff must be a positive length"):
        neighbor_list(Frames.from_atoms([molecule("H2O")]), cutoff)


class TestVerletList:
    def moved(self, atoms, shift, atom=0):
        image = atoms.copy()
        image.positions[atom] += shift
        return Frames.from_atoms([image])

    def within(self, listed, cutoff):
        return [p for p in pairs_of(listed) if np.linalg.norm(p[3]) < cutoff]

    def test_rebuilt_only_past_half_the_skin(self):
        atoms = systems.make("skewed_cell")
        verlet = VerletList(4.0, skin=0.6)
        verlet.update(Frames.from_atoms([atoms]))
        for shift in ([0.29, 0, 0], [0, -0.29, 0], [0.17, 0.17, 0.17]):
            verlet.update(self.moved(atoms, shift))
            assert verlet.builds == 1
        verlet.update(self.moved(atoms, [0.2, 0.2, 0.2]))
        assert verlet.builds == 2
        # Half the skin counts from the last build, not from the first.
        verlet.update(self.moved(atoms, [0.2, 0.2, -0.05]))
        assert verlet.builds == 2
        verlet.update(Frames.from_atoms([atoms]))
        assert verlet.builds == 3

    @pytest.mark.parametrize("name", ["skewed_cell", "slab", "outside_the_cell"])
    def test_no_pair_is_missing_on_the_way(self, name):
        atoms = systems.make(name)
        rng = np.random.default_rng(2)
        verlet = VerletList(4.1, skin=1.0)
        for _ in range(30):
            atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
            frames = Frames.from_atoms([atoms])
            actual = self.within(verlet.update(frames), 4.1)
            expected = pairs_of(neighbor_list(frames, 4.1))
            assert [pair[:3] for pair in actual] == [pair[:3] for pair in expected]
            assert_allclose([p[3] for p in actual], [p[3] for p in expected], atol=1e-12)
        assert 1 < verlet.builds < 30

    def test_rebuilt_for_another_cell_periodicity_or_kind_of_atoms(self):
        atoms = systems.make("skewed_cell")
        verlet = VerletList(4.0)
        others = [atoms.copy() for _ in range(4)]
        others[0].set_cell(atoms.cell * 1.001)
        others[1].pbc = (True, True, False)
        others[2].symbols[0] = "K"
        others[3] = atoms.repeat((2, 1, 1))
        for builds, image in enumerate([atoms, *others], 1):
            verlet.update(Frames.from_atoms([image]))
            assert verlet.builds == builds

    @pytest.mark.parametrize("cell", [None, [9.0, 9.0, 9.0]])
    def test_two_atoms_that_meet_between_searches(self, cell):
        atoms = Atoms("Cu2", [[0.1, 0, 0], [1.1, 0, 0]], cell=cell, pbc=cell is not None)
        verlet = VerletList(4.0, skin=3.0)
        verlet.update(Frames.from_atoms([atoms]))
        atoms.positions[1] = atoms.positions[0]
        with pytest.raises(ValueError, match=r"frame 0: atoms 0 \(Cu\) and 1 \(Cu\)"):
            verlet.update(Frames.from_atoms([atoms]))
        assert verlet.builds == 1

    def test_an_atom_alone(self):
        verlet = VerletList(4.0)
        for x in (0.0, 0.1):
            assert verlet.update(Frames.from_atoms([Atoms("Cu", [[x, 0, 0]])])).n_pairs == 0

    def test_a_negative_skin(self):
        with pytest.raises(ValueError, match="skin must not be negative"):
            VerletList(4.0, skin=-0.1)
