"""Contractions with derivatives: Jᵀg, forward, makes forces; J v, backward, trains on them."""

import pytest
import stages
from setups import iron_water_frames

N_FRAMES = 16


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("backend", "atoms", "functions", "dtype", "threads"),
    [
        *(
            (backend, atoms, 36, "float64", 1)
            for backend in ("stored", "recompute")
            for atoms in (35, 80, 164)
        ),
        *(
            (backend, 164, functions, "float64", 1)
            for backend in ("stored", "recompute")
            for functions in (12, 96)
        ),
        ("stored", 164, 36, "float64", 2),
        ("recompute", 164, 36, "float64", 2),
        ("stored", 164, 36, "float32", 1),
    ],
)
def test_contraction(measure, direction, backend, atoms, functions, dtype, threads):
    measure(
        stages.contraction,
        iron_water_frames(atoms, N_FRAMES),
        direction=direction,
        backend=backend,
        number=functions,
        dtype=dtype,
    )
