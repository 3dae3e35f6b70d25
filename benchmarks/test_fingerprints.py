"""Neighbour lists, fingerprints and their derivatives."""

import pytest
import stages
from setups import iron_water_frames

N_FRAMES = 8
SIGMAS = [0.2 * k for k in range(1, 11)]  # Å
SIZES = (35, 80, 164)
STANDARD = [(atoms, 36, 1) for atoms in SIZES]
VARIED = [(164, 12, 1), (164, 96, 1), (164, 36, 2)]


@pytest.mark.parametrize(("atoms", "threads"), [(35, 1), (80, 1), (164, 1), (164, 2)])
def test_neighbors(measure, atoms, threads):
    measure(stages.neighbors, iron_water_frames(atoms, N_FRAMES))


@pytest.mark.parametrize(("atoms", "functions", "threads"), STANDARD + VARIED)
def test_values(measure, atoms, functions, threads):
    images = iron_water_frames(atoms, N_FRAMES)
    v1 = "values" if threads == 1 else None
    measure(stages.fingerprints, images, v1=v1, number=functions)


@pytest.mark.parametrize(
    ("atoms", "functions", "threads", "dtype"),
    [(*row, "float64") for row in STANDARD + VARIED] + [(164, 36, 1, "float32")],
)
def test_values_and_derivatives(measure, atoms, functions, threads, dtype):
    images = iron_water_frames(atoms, N_FRAMES)
    v1 = "values_and_derivatives" if (threads, dtype) == (1, "float64") else None
    measure(stages.derivatives, images, v1=v1, number=functions, dtype=dtype)


@pytest.mark.parametrize("atoms", SIZES)
@pytest.mark.parametrize("stage", ["values", "values_and_derivatives"])
def test_prepare_fingerprints(measure, atoms, stage):
    """Make the same call as v1.0, with its results: dictionaries, and sparse matrices."""
    measure(getattr(stages, stage), iron_water_frames(atoms, N_FRAMES), v1=stage)


@pytest.mark.parametrize(("cutoff", "orders"), [(None, 4), (8.0, 4), (None, 10)])
@pytest.mark.parametrize("what", ["values", "values_and_derivatives"])
def test_gmp(measure, what, cutoff, orders):
    """Compute GMP fingerprints with ten widths, at the default cutoff (None) or at 8 Å."""
    parameters = {"MCSHs": {"orders": list(range(orders)), "sigmas": SIGMAS}}
    parameters |= {"cutoff": cutoff} if cutoff else {}
    measure(stages.gmp, iron_water_frames(164, 2), what=what, **parameters)
