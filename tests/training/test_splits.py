"""Blocks of consecutive frames for validation."""

import numpy as np
import pytest

from amptorch.trainer import AtomsTrainer
from amptorch.training.splits import BlockSplit
from tests.small_frames import config, mixed_frames


@pytest.mark.parametrize(
    ("n_frames", "fraction", "blocks"),
    [(100, 0.1, 5), (101, 0.13, 5), (37, 0.5, 4), (7, 0.3, 5), (3, 0.1, 5)],
)
def test_blocks(n_frames, fraction, blocks):
    train, kept = (part.indices for part in BlockSplit(fraction, blocks)(list(range(n_frames))))
    assert len(kept) == int(np.ceil(fraction * n_frames))
    np.testing.assert_array_equal(np.sort(np.concatenate([train, kept])), np.arange(n_frames))
    runs = np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)
    assert len(runs) == min(blocks, len(kept))
    lengths = [len(run) for run in runs]
    assert max(lengths) - min(lengths) <= 1
    # Spread evenly, with frames to train on before, between and after them.
    middles = [(run[0] + run[-1] + 1) / 2 / n_frames for run in runs]
    expected = (np.arange(len(runs)) + 0.5) / len(runs)
    np.testing.assert_allclose(middles, expected, atol=1.5 / n_frames)


def test_a_trainer_validates_on_blocks(tmp_path):
    frames = mixed_frames(12)
    settings = config(
        frames,
        tmp_path,
        dataset__val_split=0.3,
        dataset__val_split_mode="block",
        optim__epochs=1,
        cmd__debug=True,
    )
    trainer = AtomsTrainer(settings)
    trainer.train()
    assert trainer.net.history[0, "valid_batch_count"] == 1
    _, kept = trainer.split(trainer.train_dataset)
    assert len(kept) == 4
