"""Contractions with derivatives: Jᵀg, forward, makes forces; J v, backward, trains on them."""

import pytest
import stages
from setups import iron_water_frames

N_FRAMES = 16
BACK_ENDS = ("stored", "recompute")
ROWS = [(kind, atoms, 36, "float64", 1) for kind in BACK_ENDS for atoms in (35, 80, 164)]
ROWS += [(kind, 164, functions, "float64", 1) for kind in BACK_ENDS for functions in (12, 96)]
ROWS += [(kind, 164, 36, "float64", 2) for kind in BACK_ENDS]
ROWS += [("stored", 164, 36, "float32", 1)]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("backend", "atoms", "functions", "dtype", "threads"), ROWS)
def test_contraction(measure, direction, backend, atoms, functions, dtype, threads):
    images = iron_water_frames(atoms, N_FRAMES)
    options = {"direction": direction, "backend": backend, "number": functions, "dtype": dtype}
    measure(stages.contraction, images, **options)
