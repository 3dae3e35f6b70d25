"""Optimizers: their names, the Kalman filter, and L-BFGS in training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from amptorch.config import Config
from amptorch.dataset import AtomsDataset
from amptorch.model import BPNN, CustomLoss, SingleNN
from amptorch.model.jacobian import Direction, jacobian
from amptorch.optimizers import EKF
from amptorch.trainer import AtomsTrainer
from amptorch.training.kalman import observations
from tests.reference.kalman import corrections
from tests.small_frames import FP_PARAMS, config, draw_forces, mixed_frames
from tests.small_runs import assert_same, cut, settings_of
from tests.small_runs import train as trained

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(10)


@pytest.fixture(scope="module")
def dataset(frames):
    return AtomsDataset(frames, SETUP, verbose=False)


def network(kind, dataset, **options):
    torch.manual_seed(0)
    options = {"num_nodes": 5, "num_layers": 2, **options}
    model = kind(["Cu", "O"], dataset.input_dim, **options)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.ndim == 1:
            torch.nn.init.normal_(parameter)
    return model


# --- names ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adam", torch.optim.Adam),
        ("AdamW", torch.optim.AdamW),
        ("sgd", torch.optim.SGD),
        ("lbfgs", torch.optim.LBFGS),
        ("ekf", EKF),
        ("EKF", EKF),
        (EKF, EKF),
        (torch.optim.SGD, torch.optim.SGD),
    ],
)
def test_an_optimizer_is_a_name_or_a_class(name, expected):
    settings = Config.from_dict({"optim": {"optimizer": name}})
    assert settings.optim.optimizer is expected
    again = Config.from_dict(settings.to_dict())
    assert again.optim == settings.optim


@pytest.mark.parametrize(
    ("name", "meant"), [("adan", "adam"), ("l-bfgs", "lbfgs"), ("ekff", "ekf")]
)
def test_a_misspelt_name(name, meant):
    with pytest.raises(ValueError, match=f"optim.optimizer: no class .*did you mean '{meant}'"):
        Config.from_dict({"optim": {"optimizer": name}})


@pytest.mark.slow
def test_the_learning_rate_of_the_filter_is_1():
    assert Config.from_dict({"optim": {"optimizer": "ekf"}}).optim.lr == 1
    assert Config.from_dict({"optim": {"optimizer": "ekf", "lr": 0.5}}).optim.lr == 0.5
    assert Config.from_dict({"optim": {"optimizer": "lbfgs"}}).optim.lr == 0.1


# --- derivatives of single predictions ---


@pytest.mark.slow
@pytest.mark.parametrize("kind", [BPNN, SingleNN])
@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.SiLU, torch.nn.ReLU])
@pytest.mark.parametrize("stored", ["stored", "recompute"])
def test_jacobian_is_that_of_autograd_row_by_row(frames, dataset, kind, activation, stored):
    if stored == "recompute":
        dataset = AtomsDataset(frames, SETUP, derivatives=stored, verbose=False)
    model = network(kind, dataset, activation=activation)
    # With frames that have no oxygen.
    batch = dataset.batch([0, 1, 2, 7])
    rng = np.random.default_rng(1)
    parts = np.array_split(rng.permutation(len(batch.fingerprint)), 3)
    directions = [Direction(np.sort(part), rng.normal(size=(len(part), 3))) for part in parts]
    found = jacobian(model, batch, directions)
    energies, forces = model(batch)
    parameters = list(found)
    assert {p for p in model.parameters() if p.requires_grad} == set(parameters)
    for frame in range(len(batch)):
        observed = [energies[frame]]
        for rows, v, _ in directions:
            inside = (batch.image_idx[rows] == frame)[:, None]
            observed.append((forces[rows] * torch.from_numpy(v) * inside).sum())
        for place, value in enumerate(observed):
            expected = torch.autograd.grad(
                value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for parameter, row in zip(parameters, expected, strict=True):
                torch.testing.assert_close(
                    found[parameter][frame, place], row, rtol=1e-10, atol=1e-12
                )
    assert all(rows[:, 1:].abs().max() > 0 for rows in found.values() if rows.ndim == 4)


def test_networks_without_such_derivatives_are_named(dataset):
    batch = dataset.batch([0, 1])
    for options in ({"batchnorm": True}, {"dropout": True}):
        with pytest.raises(ValueError, match="linear layers and activations, not with"):
            jacobian(network(BPNN, dataset, **options), batch)
    mixed = network(BPNN, dataset)
    state = mixed.state_dict()
    state["element_mask.mask.weight"][29] = 0.5
    mixed.load_state_dict(state)
    with pytest.raises(ValueError, match="trained element mask"):
        jacobian(mixed, batch)


# --- what is observed ---


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_observations_are_errors_of_what_the_jacobian_is_of(dataset, fraction):
    batch = dataset.batch([0, 1, 5])
    if fraction < 1:
        batch = draw_forces(batch, fraction, np.random.default_rng(0))
    model = network(BPNN, dataset)
    with torch.no_grad():
        energy, forces = model(batch)
    torch.manual_seed(3)
    directions, errors, variances = observations(batch, (energy, forces), batch.targets, 20.0, 3)
    errors, variances = errors.view(3, 4), variances.view(3, 4)
    torch.testing.assert_close(errors[:, 0], batch.energy - energy)
    counts = torch.bincount(batch.image_idx)
    torch.testing.assert_close(variances[:, 0], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(variances[:, 1], 3 * counts / 20.0, check_dtype=False)
    observed = np.concatenate([direction.rows for direction in directions])
    everything = np.arange(len(batch.fingerprint))
    np.testing.assert_array_equal(
        np.sort(observed), everything if batch.force_rows is None else batch.force_rows
    )
    difference = torch.zeros(len(everything), 3, dtype=torch.float64)
    rows = everything if batch.force_rows is None else batch.force_rows
    difference[rows] = batch.forces - forces
    for k, (rows, v, _) in enumerate(directions):
        for frame in range(3):
            own = rows[(batch.image_idx[rows] == frame).numpy()]
            torch.testing.assert_close(errors[frame, 1 + k], difference[own].norm())
            square = np.square(v[(batch.image_idx[rows] == frame).numpy()]).sum()
            assert square == pytest.approx(float(len(own) > 0), rel=1e-12)
        assert v.shape == (len(rows), 3)


def test_without_forces_energies_alone_are_observed(dataset):
    batch = dataset.batch([0, 1, 5])
    energy, forces = network(BPNN, dataset)(batch)
    directions, errors, variances = observations(batch, (energy, forces), batch.targets, 0, 3)
    assert directions == []
    assert errors.shape == variances.shape == (3,)


# --- the filter ---

HYPERPARAMETERS = {
    "p0": 0.3,
    "forgetting": 0.9,
    "forgetting_rate": 0.95,
    "process_noise": 1e-3,
}


def random_steps(n, number=4, m=3):
    rng = np.random.default_rng(5)
    return [
        (rng.normal(size=(m, n)), rng.normal(size=m), rng.uniform(0.5, 2, size=m))
        for _ in range(number)
    ]


def take(filter_, parameters, steps):
    for h, errors, variances in steps:
        pieces = torch.from_numpy(h).split([p.numel() for p in parameters], dim=1)
        rows = {p: piece.reshape(-1, *p.shape) for p, piece in zip(parameters, pieces, strict=True)}
        filter_.step(lambda rows=rows, e=errors, r=variances: (rows, tensor(e), tensor(r)))


def tensor(array):
    return torch.tensor(array, dtype=torch.float64)


def parameters_of(*shapes, dtype=torch.float64):
    rng = np.random.default_rng(2)
    return [torch.nn.Parameter(torch.tensor(rng.normal(size=s), dtype=dtype)) for s in shapes]


def flat(parameters):
    return torch.cat([p.detach().flatten() for p in parameters]).numpy()


def test_steps_are_those_of_dense_matrices():
    parameters = parameters_of((3, 2), (3,), (1, 3))
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    steps = random_steps(12)
    weights, p, forgetting = corrections(flat(parameters), steps, **HYPERPARAMETERS)
    filter_ = EKF([frozen, *parameters], **HYPERPARAMETERS)
    take(filter_, parameters, steps)
    np.testing.assert_allclose(flat(parameters), weights, rtol=1e-10)
    covariance = filter_.state[parameters[0]]["covariance"].numpy()
    np.testing.assert_allclose(np.tril(covariance), np.tril(p), rtol=1e-9, atol=1e-13)
    assert filter_.param_groups[0]["lambda"] == pytest.approx(forgetting, rel=1e-12)
    assert frozen.tolist() == [1, 1]


def test_single_precision_of_the_covariance():
    """Half of the memory, and steps that are as near as that allows."""
    steps = random_steps(12)
    parameters = parameters_of((3, 3), (3,))
    weights, p, _ = corrections(flat(parameters), steps, **HYPERPARAMETERS)
    filter_ = EKF(parameters, precision="float32", **HYPERPARAMETERS)
    take(filter_, parameters, steps)
    np.testing.assert_allclose(flat(parameters), weights, rtol=1e-4)
    covariance = filter_.state[parameters[0]]["covariance"]
    assert covariance.dtype is torch.float32
    np.testing.assert_allclose(covariance.tril().numpy(), np.tril(p), atol=1e-5)
    EKF(parameters_of((200, 50)), precision="float32", memory=0.41)
    with pytest.raises(ValueError, match=r"0\.4 GB"):
        EKF(parameters_of((200, 50)), precision="float32", memory=0.39)


def test_decoupled_groups_share_the_observations():
    """As one filter whose covariance is zero between the groups."""
    parameters = parameters_of((2, 2), (3,))
    steps = random_steps(7, number=1)
    h, errors, variances = steps[0]
    p = 0.3 * np.eye(7)
    gain = p @ h.T @ np.linalg.inv(0.9 * np.diag(variances) + h @ p @ h.T)
    expected = flat(parameters) + gain @ errors
    p = (p - gain @ h @ p) / 0.9 + 1e-3 * np.eye(7)
    filter_ = EKF([{"params": [parameter]} for parameter in parameters], **HYPERPARAMETERS)
    take(filter_, parameters, steps)
    np.testing.assert_allclose(flat(parameters), expected, rtol=1e-10)
    for parameter, own in zip(parameters, (slice(0, 4), slice(4, 7)), strict=True):
        covariance = filter_.state[parameter]["covariance"].numpy()
        np.testing.assert_allclose(np.tril(covariance), np.tril(p[own, own]), rtol=1e-9, atol=1e-13)


def test_the_state_keeps_its_precision():
    steps = random_steps(9, number=6)
    whole = parameters_of((2, 3), (3,), dtype=torch.float32)
    take(EKF(whole, **HYPERPARAMETERS), whole, steps)
    parameters = parameters_of((2, 3), (3,), dtype=torch.float32)
    first = EKF(parameters, **HYPERPARAMETERS)
    take(first, parameters, steps[:3])
    second = EKF(parameters)
    second.load_state_dict(first.state_dict())
    take(second, parameters, steps[3:])
    assert second.state[parameters[0]]["covariance"].dtype is torch.float64
    np.testing.assert_array_equal(flat(parameters), flat(whole))


def test_the_memory_of_the_covariance_is_limited():
    parameters = parameters_of((200, 50), (2000,))
    with pytest.raises(ValueError, match=r"12000 parameters takes 1\.2 GB, more than its memory"):
        EKF(parameters)
    # Two groups of 800 and 32 MB fit.
    EKF([{"params": [parameter]} for parameter in parameters])
    with pytest.raises(ValueError, match=r"10000 \+ 2000.*at most 5000 parameters in each group"):
        EKF([{"params": [parameter]} for parameter in parameters], memory=0.4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"forgetting": 0},
        {"forgetting": 1.1},
        {"forgetting_rate": -1},
        {"p0": 0},
        {"lr": 0},
        {"memory": 0},
        {"process_noise": -1},
        {"force_observations": 0},
        {"precision": "float16"},
        {"force_observations": 1.5},
    ],
)
def test_values_out_of_range(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        EKF(parameters_of((2,)), **arguments)


def test_divergence_is_an_error_that_says_what_to_do():
    parameters = parameters_of((2, 3), (3,))
    h, errors, variances = random_steps(9)[0]
    with pytest.raises(ValueError, match=r"diverged.*lower its p0"):
        take(EKF(parameters), parameters, [(h, np.nan * errors, variances)])
    with pytest.raises(ValueError, match=r"variances .* must be above 0"):
        take(EKF(parameters), parameters, [(h, errors, -100 * variances)])


def narrow_steps(goal, parameters, number, scale, seed=0):
    """Observations of what is known to be `goal` already, far better in some directions."""
    rng, n = np.random.default_rng(seed), len(goal)
    basis = scale * rng.normal(size=(n, n)) * np.logspace(0, -3, n)[:, None]
    for _ in range(number):
        h = rng.normal(size=(8, n)) @ basis
        noise = 0.1 * rng.normal(size=8)
        yield h, h @ (goal - flat(parameters)) + noise, np.full(8, 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [10, 100, 1000])
def test_rounding_does_not_end_a_training(scale, caplog):
    """A covariance of single precision loses its sign where it is squeezed most."""
    caplog.set_level("DEBUG", "amptorch")
    goal = np.random.default_rng(1).normal(size=60)
    parameters = parameters_of((30,), (30,))
    filter_ = EKF(parameters, precision="float32")
    sizes = []
    for step in narrow_steps(goal, parameters, 200, scale):
        sizes.append(np.sqrt(np.mean(step[1] ** 2)))
        take(filter_, parameters, [step])
    assert caplog.text.count("has been repaired") == 1
    assert np.mean(sizes[-20:]) < 0.02 * sizes[0]
    for state in filter_.state.values():
        covariance = state["covariance"]
        assert covariance.diagonal().min() > 0
    # It goes on with the same numbers after a restart.
    again = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    resumed = EKF(again, precision="float32")
    resumed.load_state_dict(filter_.state_dict())
    for one, two in ((filter_, parameters), (resumed, again)):
        take(one, two, narrow_steps(goal, two, 5, scale, seed=3))
    np.testing.assert_array_equal(flat(parameters), flat(again))


@pytest.mark.slow
def test_single_precision_stays_as_good_as_double(caplog):
    """Before it was looked after, it became worse from some step on, and failed 100 steps later."""
    caplog.set_level("DEBUG", "amptorch")
    goal = np.random.default_rng(1).normal(size=60)
    errors = {}
    for precision in ("float32", "float64"):
        parameters = parameters_of((60,))
        filter_ = EKF(parameters, precision=precision)
        errors[precision] = []
        for step in narrow_steps(goal, parameters, 800, scale=5):
            seen = step[0] @ (goal - flat(parameters))
            errors[precision].append(np.sqrt(np.mean(seen**2)))
            take(filter_, parameters, [step])
    single, double = (np.array(errors[name]) for name in ("float32", "float64"))
    assert single[100:].max() < 1.5 * double[100:].max()
    assert single[-200:].mean() < 1.3 * double[-200:].mean()
    assert caplog.text.count("has been repaired") == 1


@pytest.mark.parametrize(("memory", "after"), [(1.0, torch.float64), (2e-5, torch.float32)])
def test_after_a_repair_the_covariance_is_in_double_precision(memory, after, caplog):
    """Where `memory` allows it, and where it does not, as it was."""
    goal = np.random.default_rng(1).normal(size=60)
    parameters = parameters_of((60,))
    filter_ = EKF(parameters, precision="float32", memory=memory)
    repairs = 0

    def counted(state, repair=filter_._repair):
        nonlocal repairs
        repairs += 1
        return repair(state)

    filter_._repair = counted
    kinds = []
    for step in narrow_steps(goal, parameters, 200, scale=100):
        take(filter_, parameters, [step])
        kinds.append(filter_.state[parameters[0]]["covariance"].dtype)
    assert (kinds[0], kinds[-1]) == (torch.float32, after)
    assert ("no longer positive" in caplog.text) == (after is torch.float32)
    assert repairs == 1 if after is torch.float64 else repairs > 1
    again = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    resumed = EKF(again, precision="float32", memory=memory)
    resumed.load_state_dict(filter_.state_dict())
    assert resumed.state[again[0]]["covariance"].dtype is after


def test_a_covariance_of_no_meaning_begins_anew():
    parameters = parameters_of((4,))
    filter_ = EKF(parameters, p0=0.3)
    steps = random_steps(4)
    take(filter_, parameters, steps[:1])
    covariance = filter_.state[parameters[0]]["covariance"]
    covariance.neg_()
    before = flat(parameters)
    take(filter_, parameters, steps[1:])
    assert np.isfinite(flat(parameters)).all()
    assert np.abs(flat(parameters) - before).max() < 10
    assert torch.linalg.eigvalsh(covariance).min() > 0
    assert covariance.max() < 0.4


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("model", {"batchnorm": True}),
        ("model", {"dropout": True}),
        ("optim", {"loss": "mae"}),
        ("optim", {"loss_fn": CustomLoss}),
    ],
)
def test_what_the_filter_cannot_train(section, values):
    (name,) = values
    settings = {"optim": {"optimizer": "ekf"}}
    settings.setdefault(section, {}).update(values)
    with pytest.raises(ValueError, match=f"{section}.{name} is .*another optim.optimizer"):
        Config.from_dict(settings)


# --- training ---


def errors(trainer):
    history = trainer.net.history
    return [history[0, "train_loss"], history[-1, "train_loss"]]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model__name": "singlenn", "optim__force_fraction": 0.5},
        {"optim__optimizer_args": {"decoupled": False, "force_observations": 2}},
        {"optim__force_coefficient": 0},
        {"cmd__dtype": "float32", "model__get_forces": False},
    ],
)
@pytest.mark.slow
def test_the_filter_fits(frames, tmp_path, changes):
    changes = {"optim__optimizer": "ekf", "optim__lr": 1, "optim__epochs": 8, **changes}
    trainer = AtomsTrainer(config(frames, tmp_path, **changes))
    trainer.train()
    first, last = errors(trainer)
    assert last < 0.1 * first
    groups = [g for g in trainer.net.optimizer_.param_groups if g["params"][0].requires_grad]
    global_filter = "optim__optimizer_args" in changes or trainer.model.name == "singlenn"
    assert len(groups) == (1 if global_filter else 2)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.slow
def test_the_filter_goes_on_with_the_same_numbers(frames, tmp_path, decoupled, dtype):
    changes = {
        "optim__optimizer": "ekf",
        "optim__lr": 1,
        "optim__optimizer_args": {"decoupled": decoupled},
        "cmd__dtype": dtype,
    }
    whole = trained(settings_of(frames, tmp_path / "whole", **changes))
    settings = settings_of(frames, tmp_path / "cut", **changes)
    cut(settings, 2, 1)
    assert_same(trained(settings, resume=True), whole)


def test_a_checkpoint_of_the_filter_is_trained_on(frames, tmp_path):
    settings = config(frames, tmp_path, optim__optimizer="ekf", optim__lr=1, optim__epochs=2)
    first = AtomsTrainer(settings)
    first.train()
    second = AtomsTrainer(settings)
    second.load_pretrained(first.cp_dir)
    for one, two in zip(first.net.module.parameters(), second.net.module.parameters(), strict=True):
        assert torch.equal(one, two)
    kept = torch.load(Path(first.cp_dir) / "optimizer.pt", weights_only=True)["state"]
    states = second.net.optimizer_.state.values()
    assert len(states) == len(kept) == 2
    for state, expected in zip(states, kept.values(), strict=True):
        assert torch.equal(state["covariance"], expected["covariance"])


@pytest.mark.slow
@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
@pytest.mark.parametrize("force_fraction", [1.0, 0.5])
def test_lbfgs_fits(frames, tmp_path, line_search, force_fraction):
    """Whole batches by the loader of torch, and by our own."""
    trainer = AtomsTrainer(
        config(
            frames,
            tmp_path,
            optim__optimizer="lbfgs",
            optim__optimizer_args={"line_search_fn": line_search, "max_iter": 10},
            optim__lr=1 if line_search else 0.1,
            optim__batch_size=len(frames),
            optim__force_fraction=force_fraction,
            optim__epochs=6,
        )
    )
    trainer.train()
    first, last = errors(trainer)
    assert last < 0.2 * first
    assert trainer.net.optimizer_.state_dict()["state"][0]["func_evals"] > 6


def test_weight_decay_of_adamw(frames, tmp_path):
    norms = []
    for decay in (0.0, 30.0):
        settings = config(
            frames,
            tmp_path,
            optim__optimizer="adamw",
            optim__optimizer_args={"weight_decay": decay},
            cmd__debug=True,
        )
        trainer = AtomsTrainer(settings)
        trainer.train()
        norms.append(sum(float(p.detach().square().sum()) for p in trainer.model.parameters()))
    assert norms[1] < 0.5 * norms[0]
