"""Other programs, where they are installed: the same frames, and the same results."""

import numpy as np
import own_stages
import pytest
from ase.neighborlist import neighbor_list as ase_list
from setups import CUTOFF, iron_water_frames

from amptorch.frames import Frames
from amptorch.neighbors import neighbor_list

N_FRAMES = 2


def searched_by_ase(atoms):
    return ase_list("ijDS", atoms, CUTOFF)


def searched_by_matscipy(atoms):
    from matscipy.neighbours import neighbour_list

    return neighbour_list("ijDS", atoms, CUTOFF)


def searched_by_vesin(atoms):
    from vesin import NeighborList

    search = NeighborList(cutoff=CUTOFF, full_list=True)
    return search.compute(atoms.positions, atoms.cell.array, True, "ijDS")


SEARCHES = {"ase": searched_by_ase, "matscipy": searched_by_matscipy, "vesin": searched_by_vesin}


@pytest.mark.parametrize("atoms", [35, 80, 164])
@pytest.mark.parametrize("peer", SEARCHES)
def test_neighbors_of_peers(measure, peer, atoms):
    pytest.importorskip(peer)
    search = SEARCHES[peer]

    def stage(images):
        for image in images:
            assert_same_pairs(search(image), image)
        return lambda: [search(image) for image in images], len(images)

    measure(stage, iron_water_frames(atoms, N_FRAMES), ours=own_stages.neighbors)


def assert_same_pairs(found, image):
    centers, neighbors, vectors, shifts = found
    listed = neighbor_list(Frames.from_atoms([image]), CUTOFF)
    theirs = np.column_stack((centers, neighbors, shifts))
    ours = np.column_stack((listed.centers, listed.neighbors, listed.shifts))
    first, second = np.lexsort(theirs.T), np.lexsort(ours.T)
    np.testing.assert_array_equal(theirs[first], ours[second])
    np.testing.assert_allclose(np.asarray(vectors)[first], listed.vectors[second], atol=1e-10)


@pytest.mark.parametrize("atoms", [35, 164])
def test_values_of_dscribe(measure, atoms):
    descriptors = pytest.importorskip("dscribe.descriptors")

    def stage(images):
        described = own_stages.structures(images)[0]
        rows = next(iter(described.descriptor_setup.values()))
        g2_params = np.unique(rows[rows[:, 0] == 2][:, 4:6], axis=0)
        acsf = descriptors.ACSF(
            r_cut=CUTOFF,
            species=described.elements,
            periodic=True,
            g2_params=g2_params,
            g4_params=np.unique(rows[rows[:, 0] == 4][:, 4:7], axis=0),
        )
        # DScribe puts G1 of each element before its G2, and orders the functions in its own way.
        g1 = np.arange(len(described.elements)) * (len(g2_params) + 1)
        theirs = np.delete(acsf.create(images[0]), g1, axis=1)
        ours = described.values(Frames.from_atoms(images[:1]))
        np.testing.assert_allclose(np.sort(theirs), np.sort(ours), rtol=1e-9, atol=1e-12)
        return lambda: [acsf.create(image) for image in images], len(images)

    measure(stage, iron_water_frames(atoms, N_FRAMES), ours=own_stages.fingerprints)
