"""The plan of what derivatives take, against what they take."""

import numpy as np
import pytest

from amptorch.data.plan import GB, SAMPLE_ATOMS, SAMPLE_FRAMES, make_plan, sample_of
from amptorch.dataset import AtomsDataset
from amptorch.datasets import iron_water
from amptorch.descriptor.construct import construct_descriptor
from amptorch.frames import Frames
from amptorch.prediction import predict
from amptorch.trainer import AtomsTrainer
from tests.small_frames import FP_PARAMS, config, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Fe", "H", "O"])


@pytest.fixture(scope="module")
def frames():
    return Frames.from_atoms(iron_water(80, seed=3))


@pytest.fixture(scope="module")
def plan(frames):
    sample = frames.select(sample_of(frames.counts))
    assert len(sample) < len(frames) / 2
    return make_plan(construct_descriptor(SETUP), sample, len(frames), "float32", 2 * GB)


@pytest.mark.slow
def test_the_size_of_stored_derivatives_is_right_within_a_few_percent(frames, plan):
    _, blocks = construct_descriptor(SETUP).values_and_derivatives(frames, dtype=np.float32)
    assert plan.stored_bytes == pytest.approx(blocks.nbytes, rel=0.05)
    assert plan.n_frames == 80
    assert plan.atoms == pytest.approx(frames.counts.mean(), rel=0.05)


@pytest.mark.slow
def test_recomputing_is_timed_where_storing_might_not_fit(frames, plan):
    assert min(plan.making, plan.reading) > 0
    assert plan.recomputing is None
    assert "not timed" in plan.table()
    sample = frames.select(sample_of(frames.counts))
    budget = 1.5 * plan.stored_bytes
    close = make_plan(construct_descriptor(SETUP), sample, len(frames), "float32", budget)
    assert close.derivatives == "stored"
    # What is kept is only read; the factor is about fifty.
    assert close.reading < close.recomputing
    assert "not timed" not in close.table()


def test_the_table_says_it_all(plan):
    table = plan.table()
    assert "80 frames" in table
    assert (
        f"{plan.stored_bytes / GB:.2f} GB" in table or f"{plan.stored_bytes / 1e6:.2f} MB" in table
    )
    assert "stored, float32" in table
    assert "chosen: stored (within dataset.memory_budget of 2 GB)" in table
    assert max(map(len, table.splitlines())) <= 100


def test_sample_is_spread_over_sizes():
    rng = np.random.default_rng(0)
    counts = rng.integers(35, 165, 16000)
    chosen = sample_of(counts)
    assert len(chosen) == SAMPLE_FRAMES
    assert counts[chosen].mean() == pytest.approx(counts.mean(), rel=0.02)
    assert counts[chosen].std() == pytest.approx(counts.std(), rel=0.05)


@pytest.mark.parametrize(
    ("counts", "expected"), [([7], 1), ([1, 1, 1], 3), ([SAMPLE_ATOMS] * 9, 2), ([164] * 99, 24)]
)
def test_sample_is_small_for_large_frames_and_all_of_a_few(counts, expected):
    chosen = sample_of(counts)
    assert len(chosen) == len(set(chosen.tolist())) == expected


@pytest.mark.slow
def test_what_is_chosen(frames):
    descriptor, sample = construct_descriptor(SETUP), frames[:2]

    def chosen(**options):
        plan = make_plan(descriptor, sample, 1000, **options)
        return plan.derivatives, plan.reason

    assert chosen(budget=GB) == ("stored", "within dataset.memory_budget of 1 GB")
    assert chosen(budget=1e6) == ("recompute", "more than dataset.memory_budget of 0.001 GB")
    assert chosen(budget=1e6, there=True) == ("stored", "they are in the store already")
    assert chosen(budget=1e6, wanted="stored")[0] == "stored"
    assert chosen(there=True, wanted="recompute")[0] == "recompute"


@pytest.mark.slow
def test_a_trainer_keeps_derivatives_within_its_budget(tmp_path, caplog):
    images = mixed_frames(8)
    kinds = {}
    with caplog.at_level("INFO", logger="amptorch"):
        for budget in (2.0, 1e-6):
            settings = config(images, tmp_path, dataset__memory_budget=budget, optim__epochs=2)
            trainer = AtomsTrainer(settings)
            trainer.train()
            kinds[budget] = trainer.train_dataset.derivative_kind, trainer.net.history[-1]
    assert [kind for kind, _ in kinds.values()] == ["stored", "recompute"]
    assert "memory plan for 8 frames" in caplog.text
    one, two = (epoch["train_loss"] for _, epoch in kinds.values())
    assert one == pytest.approx(two, rel=1e-9)


def test_what_the_configuration_says_is_done_without_a_plan(tmp_path):
    settings = config(mixed_frames(4), tmp_path, dataset__derivatives="recompute")
    trainer = AtomsTrainer(settings)
    trainer.load()
    assert trainer.plan is None
    assert isinstance(trainer.train_dataset, AtomsDataset)
    assert trainer.train_dataset.derivative_kind == "recompute"


def test_training_and_predicting_take_one_kernel_of_the_functions(tmp_path, monkeypatch):
    """The others take half a minute to compile, which nobody should wait for."""
    images = mixed_frames(8)
    trainer = AtomsTrainer(config(images, tmp_path, cmd__debug=True, optim__epochs=1))
    kernels = "amptorch.kernels.symmetry_functions"
    with monkeypatch.context() as patch:
        for name in ("values", "pair_gradients", "directional"):
            patch.delattr(f"{kernels}.{name}")
        trainer.train()
        found = predict(trainer.potential, images, keep=True)
    expected = trainer.potential.predict(images)
    assert found["energy"] == pytest.approx(expected["energy"], rel=1e-12)
    for one, two in zip(found["forces"], expected["forces"], strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-12)
