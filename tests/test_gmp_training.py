"""Training on Gaussian multipoles: every back end, and a checkpoint that needs no other file."""

import numpy as np
import pytest

from amptorch import AmpTorch, AtomsTrainer
from tests.small_frames import config, mixed_frames

ORDER_NORM = {"MCSHs": {"orders": [0, 1, 2], "sigmas": [0.4, 0.8]}, "cutoff": 5.0}
GROUPS = {
    "MCSHs": {"1": {"groups": [1], "sigmas": [0.6]}, "2": {"groups": [1, 2], "sigmas": [0.6]}},
    "cutoff": 5.0,
}


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(12)


def trained(frames, folder, scheme, fp_params, **changes):
    trainer = AtomsTrainer(
        config(
            frames,
            folder,
            dataset__fp_scheme=scheme,
            dataset__fp_params=fp_params,
            optim__epochs=4,
            **changes,
        )
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("scheme", "fp_params"),
    [("gmpordernorm", {**ORDER_NORM, "square": False}), ("GMP", GROUPS)],
    ids=["gmpordernorm", "gmp"],
)
def test_back_ends_train_alike(frames, tmp_path, scheme, fp_params):
    losses = {}
    for name, changes in {
        "stored": {"dataset__derivatives": "stored"},
        "recompute": {"dataset__derivatives": "recompute"},
        "store": {"dataset__derivatives": "stored", "dataset__store": str(tmp_path / "store")},
        "store, recompute": {
            "dataset__derivatives": "recompute",
            "dataset__store": str(tmp_path / "store"),
        },
    }.items():
        trainer = trained(frames, tmp_path, scheme, fp_params, **changes)
        losses[name] = trainer.net.history[:, "train_loss"]
        assert losses[name][-1] < losses[name][0]
    # A store draws its batches in another order.
    np.testing.assert_allclose(losses["recompute"], losses["stored"], rtol=1e-8)
    np.testing.assert_allclose(losses["store, recompute"], losses["store"], rtol=1e-8)


def test_forces_are_the_gradient_of_the_energy(frames, tmp_path):
    atoms = frames[1].copy()
    atoms.calc = AmpTorch(trained(frames, tmp_path, "gmpordernorm", ORDER_NORM))
    forces = atoms.get_forces()
    direction = np.random.default_rng(0).normal(size=forces.shape)
    energies = []
    for multiple in (-1, 1):
        moved = atoms.copy()
        moved.positions += multiple * 1e-4 * direction
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    assert np.vdot(forces, direction) == pytest.approx(-np.diff(energies)[0] / 2e-4, rel=1e-5)


@pytest.mark.parametrize("given", ["files", "package"])
def test_a_checkpoint_needs_no_file_and_no_table(frames, tmp_path, monkeypatch, given):
    """v1.0's hold absolute paths of the machine that wrote them."""
    fp_params = dict(ORDER_NORM)
    files = {symbol: tmp_path / f"{symbol}.g" for symbol in ("Cu", "O")}
    if given == "files":
        for symbol, path in files.items():
            path.write_text(f"0.8 {2.0 + len(symbol)}\n-0.1 4.0\n")
        fp_params["atom_gaussians"] = {symbol: str(path) for symbol, path in files.items()}
    trainer = trained(frames, tmp_path, "gmpordernorm", fp_params)
    before = trainer.predict(frames[:3])
    for path in files.values():
        path.unlink(missing_ok=True)
    monkeypatch.setattr("amptorch.descriptor.densities._table", dict)
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    after = again.predict(frames[:3])
    np.testing.assert_array_equal(after["energy"], before["energy"])
    for mine, theirs in zip(after["forces"], before["forces"], strict=True):
        np.testing.assert_array_equal(mine, theirs)
