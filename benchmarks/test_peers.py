"""Other programs, where they are installed: the same frames, and the same results."""

import numpy as np
import pytest
import stages
from setups import iron_water_frames

N_FRAMES = 2


@pytest.mark.parametrize("atoms", [35, 80, 164])
@pytest.mark.parametrize("peer", ["ase", "matscipy", "vesin"])
def test_neighbors_of_peers(measure, peer, atoms):
    pytest.importorskip(peer)
    images = iron_water_frames(atoms, N_FRAMES)
    for found, image in zip(stages.neighbors_by(images, peer)[0](), images, strict=True):
        assert_same_pairs(found, image)
    measure(stages.neighbors_by, images, ours=stages.neighbors, program=peer)


def assert_same_pairs(found, image):
    centers, neighbors, vectors, shifts = found
    listed = stages.structures([image])[2]
    theirs = np.column_stack((centers, neighbors, shifts))
    ours = np.column_stack((listed.centers, listed.neighbors, listed.shifts))
    first, second = np.lexsort(theirs.T), np.lexsort(ours.T)
    np.testing.assert_array_equal(theirs[first], ours[second])
    np.testing.assert_allclose(np.asarray(vectors)[first], listed.vectors[second], atol=1e-10)


@pytest.mark.parametrize("atoms", [35, 164])
def test_values_of_dscribe(measure, atoms):
    pytest.importorskip("dscribe")
    images = iron_water_frames(atoms, N_FRAMES)
    descriptor, frames, _ = stages.structures(images)
    # DScribe puts G1 of each element before its four G2, and orders the functions in its own way.
    theirs = np.vstack(stages.values_by_dscribe(images)[0]())
    theirs = np.delete(theirs, 5 * np.arange(len(descriptor.elements)), axis=1)
    ours = descriptor.values(frames)
    np.testing.assert_allclose(np.sort(theirs), np.sort(ours), rtol=1e-9, atol=1e-12)
    measure(stages.values_by_dscribe, images, ours=stages.fingerprints)
