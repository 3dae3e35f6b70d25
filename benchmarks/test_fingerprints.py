"""Neighbour lists, fingerprints and their derivatives."""

import own_stages
import public_stages
import pytest
from setups import iron_water_frames

N_FRAMES = 8
SIZES = (35, 80, 164)
STANDARD = [(atoms, 36, 1) for atoms in SIZES]
VARIED = [(164, 12, 1), (164, 96, 1), (164, 36, 2)]


@pytest.mark.parametrize(("atoms", "threads"), [(35, 1), (80, 1), (164, 1), (164, 2)])
def test_neighbors(measure, atoms, threads):
    measure(own_stages.neighbors, iron_water_frames(atoms, N_FRAMES))


@pytest.mark.parametrize(("atoms", "functions", "threads"), STANDARD + VARIED)
def test_values(measure, atoms, functions, threads):
    images = iron_water_frames(atoms, N_FRAMES)
    v1 = "values" if threads == 1 else None
    measure(own_stages.fingerprints, images, v1=v1, number=functions)


@pytest.mark.parametrize(
    ("atoms", "functions", "threads", "dtype"),
    [(*row, "float64") for row in STANDARD + VARIED] + [(164, 36, 1, "float32")],
)
def test_values_and_derivatives(measure, atoms, functions, threads, dtype):
    images = iron_water_frames(atoms, N_FRAMES)
    v1 = "values_and_derivatives" if (threads, dtype) == (1, "float64") else None
    measure(own_stages.derivatives, images, v1=v1, number=functions, dtype=dtype)


@pytest.mark.parametrize("atoms", SIZES)
@pytest.mark.parametrize("stage", ["values", "values_and_derivatives"])
def test_prepare_fingerprints(measure, atoms, stage):
    """The same call as v1.0's, with its results: dictionaries, and sparse matrices."""
    measure(getattr(public_stages, stage), iron_water_frames(atoms, N_FRAMES), v1=stage)
