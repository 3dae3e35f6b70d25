"""Scaling, batches, epochs of training, prediction and dynamics."""

import pytest
import stages
from setups import iron_water_frames

SIZES = (35, 80, 164)
N_FRAMES = 32
N_PREDICTED = 4
# Parts of the configuration: what an epoch is trained with.
EPOCHS = {
    "stored": {},
    "stored float32": {"dataset__derivative_dtype": "float32"},
    "recompute": {"dataset__derivatives": "recompute"},
    "single precision": {"cmd__dtype": "FloatTensor"},
}


@pytest.mark.parametrize("atoms", SIZES)
def test_fit_scaler(measure, atoms):
    measure(stages.scale, iron_water_frames(atoms, N_FRAMES), fit=True)


@pytest.mark.parametrize("atoms", SIZES)
def test_scale(measure, atoms):
    measure(stages.scale, iron_water_frames(atoms, N_FRAMES))


@pytest.mark.parametrize("source", ["memory", "store"])
@pytest.mark.parametrize("atoms", SIZES)
def test_batch(measure, atoms, source):
    measure(stages.batch, iron_water_frames(atoms, 16), source=source)


@pytest.mark.parametrize(
    ("atoms", "kind", "threads"),
    [
        *((atoms, "stored", 1) for atoms in SIZES),
        *((164, kind, 1) for kind in EPOCHS if kind != "stored"),
        (164, "recompute", 2),
    ],
)
def test_epoch(measure, atoms, kind, threads):
    v1 = "epoch" if kind == "stored" else None
    measure(stages.epoch, iron_water_frames(atoms, N_FRAMES), v1=v1, **EPOCHS[kind])


@pytest.mark.parametrize(("atoms", "threads"), [(35, 1), (80, 1), (164, 1), (164, 2)])
def test_prediction(measure, atoms, threads):
    images = iron_water_frames(atoms, N_PREDICTED)
    measure(stages.prediction, images, v1="prediction" if threads == 1 else None)


@pytest.mark.parametrize(("atoms", "threads"), [(35, 1), (80, 1), (164, 1), (164, 2)])
def test_dynamics_step(measure, atoms, threads):
    images = iron_water_frames(atoms, N_PREDICTED)
    measure(stages.calculator_step, images, v1="calculator_step" if threads == 1 else None)


def test_large_structure(measure):
    """Compute energy and forces of 16,072 atoms, all neighbours searched in each step."""
    images = iron_water_frames(164, N_PREDICTED)
    measure(stages.calculator_step, images, repeat=(7, 7, 2), skin=0.0)
