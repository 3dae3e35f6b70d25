"""The search space, the section `tuning` of a configuration, and the splits."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from amptorch.config import Config
from amptorch.descriptor.Gaussian.auto import functions_of
from amptorch.frames import Frames
from amptorch.optimizers import EKF
from amptorch.recommended import NODES, RECOMMENDED, SIZES, completed
from amptorch.tuning.functions import recipe_of
from amptorch.tuning.settings import configuration, split_config, tuning_config
from amptorch.tuning.space import BY_NAME, Choice, Range, SeenSpace, Space
from amptorch.tuning.splits import Validation, correlation
from tests.small_frames import mixed_frames

FRAMES = Frames.from_atoms(mixed_frames(8))


def test_every_default_contains_its_start_and_is_within_its_limits():
    for parameter in BY_NAME.values():
        domain = parameter.default
        assert domain.nearest(parameter.start) == parameter.start, parameter.name
        bounds = [domain.low, domain.high] if isinstance(domain, Range) else domain.values
        parameter.parse(list(bounds))


@pytest.mark.parametrize("size", SIZES)
def test_the_baseline_is_the_recommended_defaults(size):
    params = Space(size=size).baseline()
    base = {"size": size, "optim": {}}
    config = configuration(params, base, recipe_of(params), {"seconds": 3.0}, seed=1)
    expected = completed({"defaults": RECOMMENDED, "size": size, "optim": {"max_seconds": 3.0}})
    found, wanted = Config.from_dict(config), Config.from_dict(expected)
    assert found.cmd.seed == 1
    nodes = [found.model.num_nodes] * found.model.num_layers
    assert nodes == wanted.model.hidden_layers == [NODES[size]] * 2
    assert (found.optim.epochs, found.dataset.missing_forces) == (1_000_000, "error")
    for one in (found, wanted):
        one.model.hidden_layers, one.model.num_nodes, one.model.num_layers = None, 20, 5
        one.optim.epochs, one.dataset.missing_forces = 1, "error"
        # Several networks, and stresses, are for the training at the end alone.
        one.model.members = 1
        one.optim.stress_per_mev, one.optim.stress_coefficient = None, 0.0
    assert found.model == wanted.model
    assert found.optim == wanted.optim
    assert found.dataset == wanted.dataset


def test_functions_by_numbers_of_their_own():
    space = Space({"size": "own", "cutoff": 5.0, "angular_cutoff": 6.0})
    params = space.baseline()
    recipe = recipe_of(params)
    assert (recipe["cutoff"], recipe["angular_cutoff"], recipe["n_radial"]) == (5.0, 5.0, 8)
    assert (recipe["zetas"], recipe["angular"]) == ([1.0, 2.0, 4.0], ["G5", "G4"])
    functions = functions_of(recipe, FRAMES, ["Cu", "O"])
    # G2 of two elements; G5 and G4 of three pairs, 2 widths, 3 powers and 2 signs.
    assert len(functions["Cu"]) == 2 * 8 + 2 * 3 * 2 * 3 * 2


def test_a_search_with_adam_where_it_is_asked_for():
    space = Space({"optimizer": ["adam", "ekf"], "batchnorm": [False, True]})
    params = {**space.baseline(), "optimizer": "adam", "lr": 3e-3, "averaging": "ema"}
    config = configuration(params, {}, recipe_of(params), {"epochs": 2}, seed=0)
    assert config["optim"]["lr"] == 3e-3
    assert config["optim"]["averaging"] == "ema"
    assert "lr" not in space.baseline()


def test_the_parameters_of_a_study_of_before():
    first = {"radial": 8, "lr": 4e-3, "optimizer": "adam", "batchnorm": False}
    rates = [1e-3 * k for k in range(1, 9)]
    others = [{"radial": 6, "lr": rate, "optimizer": "ekf", "ekf_width": 20} for rate in rates]
    space = SeenSpace([first, *others])
    assert space.baseline() == first
    assert space.domains["radial"] == Choice((6, 8))
    assert space.domains["lr"] == Range(1e-3, 8e-3)
    assert space.domains["batchnorm"] == Choice((False,))
    assert space.reachable == [*first, "ekf_width"]
    assert "batchnorm" not in space.searched


def test_ranges_are_fixed_and_narrowed():
    given = {"cutoff": 6, "lr": {"low": 2e-3}, "activation": ["silu", "Tanh"], "width": [8]}
    space = Space({**given, "optimizer": "adam"})
    assert space.domains["cutoff"] == Choice((6.0,))
    assert (space.domains["lr"].low, space.domains["lr"].high) == (2e-3, 2e-2)
    assert space.domains["activation"].values == ("SiLU", "Tanh")
    assert "cutoff" not in space.searched
    assert space.baseline()["width"] == 8
    drawn = space.suggest(FixedTrial({**space.baseline(), "lr": 3e-3}))
    assert drawn["lr"] == 3e-3


def test_a_key_of_the_configuration_fixes_what_stands_for_it():
    optim = {"lr": 1e-3, "optimizer": "adam"}
    _, base, space = split_config({"optim": optim, "model": {"hidden_layers": [30, 10]}})
    assert not {"lr", "layers", "width"} & set(space.domains)
    assert "activation" in space.domains
    config = configuration(space.baseline(), base, None, {"epochs": 2}, seed=0)
    assert config["optim"]["lr"] == 1e-3
    assert config["model"]["hidden_layers"] == [30, 10]
    assert config["optim"]["scheduler"]["params"] == {"T_max": 2}


def test_functions_of_the_configuration_leave_no_descriptor_to_search():
    base = {"dataset": {"fp_params": {"default": {"cutoff": 4.0, "G1": {}}}}}
    space = Space({}, base)
    assert space.largest_cutoff() is None
    assert not {"selection", "size", "n_radial", "functions"} & set(space.baseline())


def test_without_forces_nothing_of_them_is_searched():
    space = Space({}, {"model": {"get_forces": False}})
    assert not {"force_per_mev", "force_fraction"} & set(space.domains)


def test_parameters_that_do_not_matter_are_not_drawn():
    space = Space({"selection": "cur", "optimizer": "adam"})
    values = space.baseline()
    assert values["functions"] == 48
    assert values["cutoff"] == 6.0
    assert not {"size", "n_radial", "weight_decay"} & set(values)
    assert not {"size", "n_radial"} & set(Space({"selection": "cur"}).reachable)
    assert not {"functions", "cutoff", "lr"} & set(Space({"size": "small"}).reachable)
    # A fixed optimiser is no condition for the rest.
    assert "lr" in Space({}, {"optim": {"optimizer": "sgd"}}).baseline()


def test_the_widest_network_on_the_functions_of_the_baseline_fits_the_kalman_filter():
    # Medium functions of three elements: 8 G2 of each; 6 pairs, 2 widths, 3 powers, 2 signs, twice.
    width = int(Space().domains["width"].highest())
    weights = sum((a + 1) * b for a, b in pairwise([24 + 144, width, width, 1]))
    # Raises where the covariance is too large; it is made in the first step.
    EKF([{"params": [torch.nn.Parameter(torch.empty(weights))]} for _ in range(3)])


def test_an_optimizer_of_the_configuration_decides_what_matters_with_it():
    space = Space({}, {"optim": {"optimizer": "EKF"}})
    found = space.baseline()
    assert not {"lr", "batchnorm", "schedule", "weight_decay"} & set(found)
    own = {"cutoff", "n_radial", "n_angular", "zetas", "angular", "angular_cutoff"}
    assert set(space.reachable) == set(found) | own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cutof": 5}, "did you mean 'cutoff'"),
        ({"activation": []}, "excludes everything"),
        ({"lr": {"low": 1e-2, "high": 1e-3}}, "excludes everything"),
        ({"activation": "Tan"}, "did you mean 'tanh'"),
        ({"cutoff": 100}, "at most 30"),
        ({"lr": {"low": 0, "high": 1}}, "at least"),
        ({"weight_decay": {"low": 0, "high": 1}}, "above 0"),
        ({"lr": {"lowest": 1}}, "'low'"),
        ({"layers": [1, 1]}, "twice"),
        ({"lr": {"low": 1e-3, "step": 1e-3, "log": True}}, "not both"),
    ],
)
def test_spaces_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        Space(given)


def test_types_that_make_no_sense():
    with pytest.raises(TypeError, match="give a list"):
        Space({"activation": {"low": 1}})
    with pytest.raises(TypeError, match=r"tuning\.space\.lr"):
        Space({"lr": "much"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tuning": {"sampeler": 3}}, "tuning.sampeler, did you mean 'sampler'"),
        ({"tuning": {"sampler": "tp"}}, "sampler must be 'tpe'"),
        ({"tuning": {"objectives": ["cost"]}}, "objectives"),
        ({"tuning": {"validation": {"metod": "random"}}}, "did you mean 'method'"),
        ({"optm": {}}, "did you mean 'optim'"),
        ({"optim": {"epochs": 3}}, "optim.epochs is set by the study"),
        ({"optim": {"total_seconds": 3}}, "optim.total_seconds is set by the study"),
        ({"defaults": "v1.0"}, "begins with the recommended ones"),
        ({"tuning": {"max_cost": 0}}, "max_cost must be"),
        ({"dataset": {"fp_scheme": "gmp"}}, "gaussian"),
        ({"optim": {"lr": 1e-3}, "tuning": {"space": {"lr": 1e-3}}}, "both given"),
        (
            {"tuning": {"space": {n: BY_NAME[n].start for n in BY_NAME}}},
            "excludes everything: each",
        ),
        (
            # Of Adam alone, which is never drawn.
            {"tuning": {"space": {n: BY_NAME[n].start for n in BY_NAME if n != "lr"}}},
            "excludes everything: each",
        ),
    ],
)
def test_configurations_that_make_no_sense(config, message):
    with pytest.raises(ValueError, match=message):
        split_config(config)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 300),
    st.sampled_from(["blocked", "random"]),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_splits_are_apart(n, method, folds, blocks, gap):
    validation = Validation(method, 0.2, folds, blocks, gap if blocks < 3 else 0)
    seen = []
    for train, validate in validation.split(n, seed=1):
        assert not set(train) & set(validate)
        assert (np.diff(train) > 0).all()
        assert (np.diff(validate) > 0).all()
        if method == "blocked":
            near = np.abs(train[:, None] - validate).min()
            assert near > validation.gap
            assert (np.diff(validate) > 1).sum() < blocks
        else:
            assert len(train) + len(validate) == n
        seen.append(validate)
    assert len(np.unique(np.concatenate(seen))) == sum(map(len, seen))
    if folds == 5:
        assert len(np.concatenate(seen)) == n


def test_blocks_do_not_share_neighbours_in_time_as_random_frames_do():
    def pairs(method):
        train, validate = Validation(method, 0.2).split(200, seed=0)[0]
        return len(set(validate + 1) & set(train))

    assert pairs("blocked") <= 5 < pairs("random")


@pytest.mark.parametrize(("fraction", "said"), [(0.15, "14%"), (0.4, "50%"), (0.9, "50%")])
def test_the_share_that_is_said_is_the_share_that_is_kept(fraction, said):
    validation = Validation("random", fraction)
    ((_, validate),) = validation.split(1400)
    assert f"{len(validate) / 1400:.0%}" == said
    assert validation.in_words().startswith(f"validation on {said} of")


def test_too_few_frames():
    with pytest.raises(ValueError, match="4 frames cannot be split into 5 parts"):
        Validation(folds=5, fraction=0.2).split(4)
    with pytest.raises(ValueError, match="gap of 9"):
        Validation(gap=9, fraction=0.5).split(20)


def test_settings_of_before_are_read():
    before = {"members": 4, "ensemble": "seeds", "curve": [0.5, 1.0], "curve_share": 0.1}
    assert tuning_config({"tuning": before}).ensemble == 4
    assert tuning_config({"tuning": {"members": 0}}).ensemble == 0
    assert tuning_config({}).ensemble == 1


def test_correlation_of_a_trajectory_and_of_noise():
    assert correlation(np.sin(np.linspace(0, 6, 100))) > 0.9
    assert abs(correlation(np.random.default_rng(0).normal(size=1000))) < 0.15
    assert correlation([1.0, 1.0, 1.0]) == 0.0


def test_outliers_are_trained_on_and_validate_only_where_they_are_asked_to():
    for method in ("blocked", "random"):
        whole = Validation(method, 0.2, folds=3, outliers=True).split(60, outliers=[3, 30, 31])
        split = Validation(method, 0.2, folds=3).split(60, outliers=[3, 30, 31])
        for (train, validate), (all_train, all_validate) in zip(split, whole, strict=True):
            assert {3, 30, 31} <= set(train)
            assert set(validate) == set(all_validate) - {3, 30, 31}
            assert sorted([*train, *validate]) == sorted([*all_train, *all_validate])
        assert any({3, 30, 31} & set(validate) for _, validate in whole)
    # A part of outliers alone has nothing else to validate on.
    train, validate = Validation("random", 0.5).split(2, outliers=[0, 1])[0]
    assert len(train) == len(validate) == 1
