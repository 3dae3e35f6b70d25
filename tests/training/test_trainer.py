"""AtomsTrainer: set-up, training, and what it leaves alone."""

import copy
import json
import os
import pickle
import random
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import write
from skorch.callbacks import Callback

from amptorch.dataset import AtomsDataset
from amptorch.model import CustomLoss
from amptorch.trainer import AtomsTrainer
from amptorch.training.random_state import RandomState
from amptorch.training.run_folder import new_run_folder
from amptorch.training.splits import InOrderSplit, make_split
from tests.small_frames import config, labelled, mixed_frames


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


def trained(*args, **changes):
    trainer = AtomsTrainer(config(*args, **changes))
    trainer.train()
    return trainer


def parameters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.net.module.parameters()])


# --- results ---


def test_attributes_and_history(frames, tmp_path):
    trainer = trained(frames, tmp_path, dataset__val_split=0.3, optim__epochs=3)
    assert trainer.elements == ["Cu", "O"]
    assert trainer.forcetraining is True
    assert len(trainer.train_dataset) == 10
    assert trainer.net.module is trainer.model
    assert trainer.descriptor is trainer.train_dataset.descriptor
    assert str(trainer.device) == "cpu"
    assert len(trainer.net.history) == 3
    row = trainer.net.history[-1]
    for name in ("train_loss", "valid_loss", "dur", "event_cp"):
        assert name in row
    for part in ("train", "val"):
        for quantity in ("energy", "forces"):
            assert row[f"{part}_{quantity}_mae"] > 0


def test_table_on_the_console_has_the_columns(frames, tmp_path, capsys):
    trained(frames, tmp_path, cmd__verbose=True, optim__epochs=1)
    printed = capsys.readouterr().out
    errors = ("train meV/atom MAE", "train eV/Å MAE")
    for name in ("epoch", "train_loss", *errors, "cp", "dur"):
        assert name in printed
    assert "energy_mae" not in printed


def test_quiet(frames, tmp_path, capsys):
    trained(frames, tmp_path, optim__epochs=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stored", "recompute"])
def test_same_seed_same_parameters(frames, tmp_path, kind):
    one = trained(frames, tmp_path, dataset__derivatives=kind, model__dropout=True)
    torch.rand(3)
    two = trained(frames, tmp_path, dataset__derivatives=kind, model__dropout=True)
    other = trained(frames, tmp_path, dataset__derivatives=kind, model__dropout=True, cmd__seed=4)
    assert torch.equal(parameters(one), parameters(two))
    assert not torch.equal(parameters(one), parameters(other))


def test_back_ends_train_alike(frames, tmp_path):
    stored = trained(frames, tmp_path, optim__epochs=2)
    again = trained(frames, tmp_path, optim__epochs=2, dataset__derivatives="recompute")
    torch.testing.assert_close(parameters(stored), parameters(again), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LBFGS", "SGD", "AdamW"])
def test_optimizers(frames, tmp_path, name):
    trainer = trained(
        frames,
        tmp_path,
        optim__optimizer=getattr(torch.optim, name),
        optim__batch_size=10,
        optim__epochs=4,
        model__name="SingleNN",
    )
    losses = trainer.net.history[:, "train_loss"]
    assert losses[-1] < losses[0]


def test_optimizer_arguments_scheduler_and_custom_loss(frames, tmp_path):
    class Loss(torch.nn.Module):
        def forward(self, prediction, target):
            return (prediction[0] - target[0]).abs().mean()

    trainer = trained(
        frames,
        tmp_path,
        optim__optimizer_args={"optimizer__betas": (0.5, 0.9), "weight_decay": 0.25},
        optim__scheduler={"policy": "StepLR", "params": {"step_size": 1, "gamma": 0.5}},
        optim__loss_fn=Loss,
        optim__epochs=3,
        cmd__debug=True,
    )
    group = trainer.net.optimizer_.param_groups[0]
    assert group["betas"] == (0.5, 0.9)
    assert group["weight_decay"] == 0.25
    assert group["lr"] == pytest.approx(1e-2 / 8)
    assert trainer.net.history[:, "event_lr"] == pytest.approx([1e-2, 5e-3, 2.5e-3])


def test_single_precision(frames, tmp_path):
    trainer = trained(
        frames, tmp_path, cmd__dtype=torch.FloatTensor, dataset__derivative_dtype="float32"
    )
    assert parameters(trainer).dtype == torch.float32
    losses = trainer.net.history[:, "train_loss"]
    assert losses[-1] < losses[0]
    assert np.isfinite(trainer.predict(frames)["energy"]).all()


# --- the best checkpoint ---


@pytest.mark.parametrize("quantity", ["energy", "forces"])
def test_best_parameters_are_loaded_back(frames, tmp_path, quantity):
    """With a learning rate that overshoots the best epoch is hardly ever the last."""
    seen = []

    class Keep(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(copy.deepcopy(net.module_.state_dict()))

    trainer = AtomsTrainer(
        config(
            frames,
            tmp_path,
            optim__lr=0.3,
            optim__epochs=8,
            optim__cp_metric=quantity,
            cmd__seed=1,
            dataset__val_split=0.3,
        )
    )
    trainer.load()
    trainer.net.callbacks.append(("keep", Keep()))
    trainer.train()
    column = trainer.net.history[:, f"val_{quantity}_mae"]
    best = int(np.argmin(column))
    assert best != len(column) - 1
    for name, value in trainer.net.module.state_dict().items():
        assert torch.equal(value, seen[best][name])
    saved = torch.load(Path(trainer.cp_dir) / "params.pt", weights_only=True)
    assert all(torch.equal(saved[name], value) for name, value in seen[best].items())
    events = trainer.net.history[:, "event_cp"]
    assert events[best]
    assert not any(events[best + 1 :])


def test_debug_writes_nothing(frames, tmp_path):
    trainer = trained(frames, tmp_path, cmd__debug=True, optim__epochs=1)
    assert trainer.cp_dir is None
    assert list(tmp_path.iterdir()) == []


def test_no_run_writes_over_another(tmp_path):
    folders = [new_run_folder(tmp_path, "name") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() and "-name" in folder.name for folder in folders)


def test_no_epochs(frames, tmp_path):
    trainer = trained(frames, tmp_path, optim__epochs=0)
    assert len(trainer.net.history) == 0
    assert np.isfinite(trainer.predict(frames)["energy"]).all()


def test_identifier(frames, tmp_path):
    trainer = trained(frames, tmp_path, cmd__identifier="copper", optim__epochs=1)
    assert trainer.identifier == Path(trainer.cp_dir).name
    assert trainer.identifier.endswith("-copper")
    assert Path(trainer.cp_dir).parent == tmp_path / "checkpoints"


def test_unwritable_run_dir_is_found_before_any_work(frames, tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    trainer = AtomsTrainer(config(frames, tmp_path))
    trainer.load_dataset = lambda: pytest.fail("the data set was made first")
    with pytest.raises(ValueError, match=r"cmd\.run_dir"):
        trainer.train()
    assert (tmp_path / "checkpoints").read_text() == "a file"


def test_a_run_that_fails_leaves_no_folder(frames, tmp_path):
    bare = [frames[0], labelled(frames[1], energy=1.0)]
    with pytest.raises(ValueError, match=r"frame 1 .*forces"):
        trained(bare, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_early_stopping(frames, tmp_path):
    trainer = trained(
        frames,
        tmp_path,
        optim__lr=1e-9,
        optim__epochs=30,
        cmd__early_stopping=True,
        cmd__early_stoppping_patience=3,
    )
    assert len(trainer.net.history) < 10


def test_interruption_keeps_the_best(frames, tmp_path):
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    trainer = AtomsTrainer(config(frames, tmp_path, optim__epochs=9))
    trainer.load()
    trainer.net.callbacks.append(("interrupt", Interrupt()))
    trainer.train()
    saved = torch.load(Path(trainer.cp_dir) / "params.pt", weights_only=True)
    for name, value in trainer.net.module.state_dict().items():
        assert torch.equal(value, saved[name])


def nan_after(batches):
    """A loss that is NaN from so many batches of training on."""
    seen = []

    class Loss(CustomLoss):
        def forward(self, prediction, target):
            loss = super().forward(prediction, target)
            seen.append(loss)
            return loss * (np.nan if len(seen) > batches else 1.0)

    return Loss


def test_a_training_that_diverges_stops_and_keeps_its_best_epoch(frames, tmp_path):
    # Three batches an epoch: in the third epoch.
    trainer = AtomsTrainer(config(frames, tmp_path, optim__loss_fn=nan_after(7), optim__epochs=9))
    with pytest.raises(ValueError, match=r"epoch 3 is nan; lower optim\.lr .*are kept, in"):
        trainer.train()
    assert len(trainer.net.history) == 3
    kept = AtomsTrainer()
    kept.load_pretrained(trainer.cp_dir)
    found = kept.predict(frames)["energy"]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(trainer.predict(frames)["energy"], found)


def test_a_training_that_diverges_at_once_leaves_nothing(frames, tmp_path):
    trainer = AtomsTrainer(config(frames, tmp_path, optim__loss_fn=nan_after(0)))
    with pytest.raises(ValueError, match=r"epoch 1 is nan.*no checkpoint is kept"):
        trainer.train()
    assert trainer.cp_dir is None
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("epochs", [1, 20])
def test_parameters_beyond_all_bounds_are_not_kept(frames, tmp_path, epochs):
    """The scores of an epoch are those before its last step, which may have led anywhere."""
    trainer = AtomsTrainer(
        config(
            frames,
            tmp_path,
            model__activation="ReLU",
            optim__optimizer="SGD",
            optim__lr=1e3,
            optim__epochs=epochs,
            optim__force_coefficient=10.0,
        )
    )
    with pytest.raises(ValueError, match=r"diverged.*lower optim\.lr.*no checkpoint is kept"):
        trainer.train()
    assert not list((tmp_path / "checkpoints").iterdir())


# --- data ---


@pytest.mark.slow
def test_raw_data_can_be_a_file_or_given_later(frames, tmp_path):
    path = tmp_path / "frames.traj"
    write(path, frames)
    from_list = trained(frames, tmp_path)
    from_file = trained(str(path), tmp_path)
    later = AtomsTrainer(config(None, tmp_path))
    later.train(raw_data=frames)
    assert torch.equal(parameters(from_list), parameters(from_file))
    assert torch.equal(parameters(from_list), parameters(later))


@pytest.mark.slow
def test_train_again_starts_afresh(frames, tmp_path):
    trainer = trained(frames, tmp_path)
    first, folder = parameters(trainer), trainer.cp_dir
    trainer.train()
    assert torch.equal(parameters(trainer), first)
    assert trainer.cp_dir != folder
    assert Path(folder).is_dir()


def test_in_order_split():
    train, valid = InOrderSplit(0.25)(list(range(10)))
    assert list(train) == [0, 1, 2, 3, 4, 5, 6]
    assert list(valid) == [7, 8, 9]


def test_shuffled_split_is_that_of_the_seed():
    indices = [make_split(0.3, "cv", seed)(list(range(20)))[1].indices for seed in (1, 1, 2)]
    assert indices[0].tolist() == indices[1].tolist() != indices[2].tolist()
    assert make_split(0, "cv", 1) is None


def test_split_that_leaves_nothing(frames, tmp_path):
    with pytest.raises(ValueError, match="val_split"):
        trained(frames[:1], tmp_path, dataset__val_split=0.5)


def test_elements_as_given(frames, tmp_path):
    trainer = trained(frames, tmp_path, dataset__elements=["O", "Cu"], optim__epochs=1)
    assert trainer.elements == trainer.descriptor.elements == ["O", "Cu"]


def test_an_element_that_no_frame_has(frames, tmp_path):
    """Its network is there and idle; predicting it is refused, as there is no scale for it."""
    trainer = trained(frames, tmp_path, dataset__elements=["Ag", "Cu", "O"], optim__epochs=1)
    assert np.isfinite(trainer.predict(frames[:2])["energy"]).all()
    silver = frames[0].copy()
    silver.symbols[1] = "Ag"
    with pytest.raises(ValueError, match=r"frame 1, atom 1 \(Ag\)"):
        trainer.predict([frames[0], silver])


def test_energies_only_needs_no_forces(frames, tmp_path):
    bare = [labelled(atoms, energy=atoms.get_potential_energy()) for atoms in frames]
    trainer = trained(bare, tmp_path, model__get_forces=False)
    assert "train_forces_mae" not in trainer.net.history[-1]
    losses = trainer.net.history[:, "train_loss"]
    assert losses[-1] < losses[0]


def test_fingerprints_are_kept_in_the_run_folder(frames, tmp_path):
    trained(frames, tmp_path, model__get_forces=False, dataset__save_fps=True, optim__epochs=1)
    assert (tmp_path / "processed" / "fingerprints.sqlite").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim__lr": -0.1}, "optim.lr"),
        ({"dataset__raw_data": None}, "raw_data"),
        ({"dataset__raw_data": []}, "empty"),
        ({"dataset__fp_scheme": "gmp"}, "fp_params has no key"),
        ({"optim__gpus": 1}, "optim.gpus"),
        ({"cmd__logger": True}, "wandb"),
    ],
)
def test_bad_configuration(frames, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(AtomsDataset, "process", lambda *args: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=message):
        trained(frames, tmp_path, **changes)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.traj"):
        trained(str(tmp_path / "nothing.traj"), tmp_path)


def test_predict_before_training(frames, tmp_path):
    trainer = AtomsTrainer(config(frames, tmp_path))
    with pytest.raises(ValueError, match="train"):
        trainer.predict(frames)


# --- what is left alone ---


def test_nothing_of_the_program_changes(frames, tmp_path):
    settings = config(frames, tmp_path, optim__epochs=2, model__dropout=True)
    before = {section: dict(values) for section, values in settings.items()}
    params = copy.deepcopy(settings["dataset"]["fp_params"])
    calculators = [atoms.calc for atoms in frames]
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002, the global state is what is tested
    random.seed(5)
    state = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    world = os.getcwd(), torch.get_default_dtype(), torch.get_num_threads()
    trainer = AtomsTrainer(settings)
    trainer.train()
    trainer.predict(frames)
    assert settings == before
    assert settings["dataset"]["fp_params"] == params
    assert settings["dataset"]["raw_data"] is frames
    assert [atoms.calc for atoms in frames] == calculators
    assert (os.getcwd(), torch.get_default_dtype(), torch.get_num_threads()) == world
    assert torch.equal(torch.get_rng_state(), state[0])
    assert str(np.random.get_state()) == state[1]  # noqa: NPY002
    assert random.getstate() == state[2]


def test_skorch_is_not_patched(frames, tmp_path):
    import skorch.net
    import skorch.utils

    trained(frames, tmp_path, optim__epochs=1)
    assert skorch.net.to_tensor is skorch.utils.to_tensor


def test_the_criterion_keeps_its_force_coefficient(frames, tmp_path):
    trainer = trained(frames, tmp_path)
    assert trainer.net.criterion_.force_coefficient == 0.1


def test_weights_and_biases(frames, tmp_path, monkeypatch):
    class Run:
        def __init__(self):
            self.logged = []
            self.config = {}

        def log(self, values, **kwargs):
            self.logged.append(values)

        def watch(self, *args):
            pass

    run, started = Run(), []
    fake = types.SimpleNamespace(init=lambda **options: started.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    trainer = trained(frames, tmp_path, cmd__logger=True, optim__epochs=2)
    assert [options["name"] for options in started] == [trainer.identifier]
    assert len(run.logged) == 2
    assert "train_energy_mae" in run.logged[0]


def test_history_is_readable(frames, tmp_path):
    trainer = trained(frames, tmp_path)
    history = json.loads((Path(trainer.cp_dir) / "history.json").read_text())
    assert history[0]["train_energy_mae"] == trainer.net.history[0]["train_energy_mae"]


# --- several trainers in one program ---


@pytest.mark.parametrize(
    "changes",
    [
        {"model__dropout": True, "optim__epochs": 20},
        {"optim__optimizer": "ekf", "optim__epochs": 5},
        {"optim__force_fraction": 0.5, "optim__epochs": 10},
    ],
)
@pytest.mark.slow
def test_trainers_in_threads_have_the_numbers_of_their_seeds(frames, tmp_path, changes):
    """As if each had been alone; nothing of the others, or of the program, comes in between."""

    def train(seed):
        return parameters(trained(frames, tmp_path / str(seed), cmd__seed=seed, **changes))

    alone = [train(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(train, range(3)))
    for one, two in zip(alone, together, strict=True):
        assert torch.equal(one, two)


def test_a_copy_draws_the_same_numbers():
    state = RandomState(3)
    torch.rand(4, generator=state.generator())
    copies = copy.deepcopy(state), pickle.loads(pickle.dumps(state))
    expected = torch.rand(4, generator=state.generator())
    for other in copies:
        assert torch.equal(torch.rand(4, generator=other.generator()), expected)


def test_the_largest_seed(frames, tmp_path):
    trained(frames, tmp_path, cmd__seed=2**63, dataset__val_split=0.2, optim__epochs=1)
    with pytest.raises(ValueError, match=r"cmd\.seed must be .* at most"):
        trained(frames, tmp_path, cmd__seed=2**64)


def test_a_configuration_for_gpus_where_there_is_none(frames, tmp_path, monkeypatch):
    """The constructor takes it, so that `load_pretrained` can be asked for the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = trained(frames, tmp_path, optim__epochs=1).cp_dir
    trainer = AtomsTrainer(config(frames, tmp_path, optim__gpus=1))
    with pytest.raises(ValueError, match=r"optim\.gpus"):
        trainer.load_pretrained(folder)
    trainer.load_pretrained(folder, gpu2cpu=True)
    assert len(trainer.predict(frames[:1])["energy"]) == 1


def test_the_steps_of_load_one_by_one(frames, tmp_path):
    trainer = AtomsTrainer(config(frames, tmp_path))
    steps = "config rng_seed dataset model criterion optimizer logger extras skorch"
    for step in steps.split():
        getattr(trainer, f"load_{step}")()
    trainer.net.fit(trainer.train_dataset, None)
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    found = [one.predict(frames)["energy"] for one in (trainer, again)]
    np.testing.assert_allclose(*found)


def test_no_epochs_leave_a_checkpoint(frames, tmp_path):
    trainer = trained(frames, tmp_path, optim__epochs=0)
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    found = [one.predict(frames)["energy"] for one in (trainer, again)]
    np.testing.assert_allclose(*found)
