"""The search space, the section `tuning` of a configuration, and the splits."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from amptorch.config import Config
from amptorch.optimizers import EKF
from amptorch.tuning.settings import configuration, split_config
from amptorch.tuning.space import BY_NAME, Choice, Range, Space
from amptorch.tuning.splits import Validation, correlation


def test_every_default_contains_its_start_and_is_within_its_limits():
    for parameter in BY_NAME.values():
        domain = parameter.default
        assert domain.nearest(parameter.start) == parameter.start, parameter.name
        bounds = [domain.low, domain.high] if isinstance(domain, Range) else domain.values
        parameter.parse(list(bounds))


def test_the_baseline_is_a_configuration_that_trains():
    space = Space()
    config = configuration(
        space.baseline(),
        {"model": {}, "optim": {}, "dataset": {}, "cmd": {}},
        {"cutoff": 6.0, "default": [{"type": "G1", "element": "O"}]},
        {"seconds": 3.0},
        seed=1,
    )
    checked = Config.from_dict(config)
    assert checked.optim.lr == 4e-3
    assert checked.optim.max_seconds == 3.0
    assert checked.optim.scheduler["policy"] == "cosine_time"
    assert (checked.model.num_layers, checked.model.num_nodes) == (2, 50)


def test_the_other_start_is_the_kalman_filter_where_the_space_has_it():
    baseline, other = Space().starts()
    assert baseline == Space().baseline()
    assert (other["optimizer"], other["ekf_width"], other["batch_size"]) == ("ekf", 20, 16)
    assert not {"lr", "schedule", "batchnorm", "weight_decay", "width"} & set(other)
    config = configuration(
        other,
        {"model": {}, "optim": {}, "dataset": {}, "cmd": {}},
        {"cutoff": 6.0, "default": [{"type": "G1", "element": "O"}]},
        {"seconds": 3.0},
        seed=1,
    )
    assert Config.from_dict(config).optim.lr == 1.0
    assert Config.from_dict(config).model.num_nodes == 20
    del other["ekf_width"]
    assert len(Space({**other, "optimizer": "adam", "width": 20}).starts()) == 1


def test_ranges_are_fixed_and_narrowed():
    space = Space({"cutoff": 6, "lr": {"low": 2e-3}, "activation": ["silu", "Tanh"], "width": [8]})
    assert space.domains["cutoff"] == Choice((6.0,))
    assert (space.domains["lr"].low, space.domains["lr"].high) == (2e-3, 2e-2)
    assert space.domains["activation"].values == ("SiLU", "Tanh")
    assert "cutoff" not in space.searched
    assert space.baseline()["width"] == 8
    drawn = space.suggest(FixedTrial({**space.baseline(), "lr": 3e-3}))
    assert drawn["lr"] == 3e-3


def test_a_key_of_the_configuration_fixes_what_stands_for_it():
    _, base, space = split_config({"optim": {"lr": 1e-3}, "model": {"hidden_layers": [30, 10]}})
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
    assert not {"selection", "radial", "functions"} & set(space.baseline())


def test_without_forces_nothing_of_them_is_searched():
    space = Space({}, {"model": {"get_forces": False}})
    assert not {"force_coefficient", "force_fraction"} & set(space.domains)


def test_parameters_that_do_not_matter_are_not_drawn():
    space = Space({"selection": "cur", "optimizer": "adam"})
    values = space.baseline()
    assert values["functions"] == 48
    assert not {"radial", "angular_kind", "weight_decay"} & set(values)
    # A fixed optimiser is no condition for the rest.
    assert "lr" in Space({}, {"optim": {"optimizer": "sgd"}}).baseline()


@pytest.mark.parametrize(("model", "networks"), [("bpnn", 3), ("singlenn", 1)])
def test_every_network_of_the_default_space_fits_the_kalman_filter(model, networks):
    # The most functions that three elements get: 12 G2 each; 6 pairs, 2 etas, 3 zetas, 2 signs.
    domains = Space().domains
    width, layers = int(domains["ekf_width"].highest()), int(domains["layers"].highest())
    nodes = [3 * int(domains["radial"].highest()) + 72] + layers * [width] + [1]
    weights = sum((a + 1) * b for a, b in pairwise(nodes))
    # Raises where the covariance is too large; it is made in the first step.
    EKF([{"params": [torch.nn.Parameter(torch.empty(weights))]} for _ in range(networks)])


def test_a_width_that_is_given_holds_for_the_kalman_filter_too():
    space = Space({"width": [40, 60], "optimizer": ["adam", "ekf"]})
    assert "ekf_width" not in space.domains
    assert [start["width"] for start in space.starts()] == [40, 40]
    both = Space({"width": 40, "ekf_width": 25}).starts()
    assert [start.get("ekf_width") for start in both] == [None, 25]


def test_an_optimizer_of_the_configuration_decides_what_matters_with_it():
    space = Space({}, {"optim": {"optimizer": "EKF"}})
    found = space.baseline()
    assert not {"lr", "batchnorm", "schedule", "weight_decay", "width"} & set(found)
    assert found["ekf_width"] == 20
    assert set(space.reachable) == set(found) | {"functions"}
    assert "ekf_width" not in Space({}, {"optim": {"optimizer": "sgd"}}).baseline()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cutof": 5}, "did you mean 'cutoff'"),
        ({"activation": []}, "excludes everything"),
        ({"lr": {"low": 1e-2, "high": 1e-3}}, "excludes everything"),
        ({"activation": "Tan"}, "did you mean 'tanh'"),
        ({"cutoff": 100}, "at most 30"),
        ({"lr": {"low": 0, "high": 1}}, "at least"),
        ({"force_coefficient": {"low": 0, "high": 1}}, "above 0"),
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
        ({"dataset": {"fp_scheme": "gmp"}}, "gaussian"),
        ({"optim": {"lr": 1e-3}, "tuning": {"space": {"lr": 1e-3}}}, "both given"),
        (
            {"tuning": {"space": {n: BY_NAME[n].start for n in BY_NAME}}},
            "excludes everything: each",
        ),
        (
            # Of AdamW alone, which is never drawn.
            {"tuning": {"space": {n: BY_NAME[n].start for n in BY_NAME if n != "weight_decay"}}},
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
    assert validation.describe().startswith(f"validation on {said} of")


def test_too_few_frames():
    with pytest.raises(ValueError, match="4 frames cannot be split into 5 parts"):
        Validation(folds=5, fraction=0.2).split(4)
    with pytest.raises(ValueError, match="gap of 9"):
        Validation(gap=9, fraction=0.5).split(20)


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
