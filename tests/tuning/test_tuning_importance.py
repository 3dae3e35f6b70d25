"""Which parameters of a study mattered, as its report says."""

import numpy as np
import pytest

from amptorch.tuning.report import plots
from amptorch.tuning.report.importance import Forest, importances, levels
from amptorch.tuning.space import Space
from tests.tuning.test_tuning_report import record, study, texts
from tests.tuning.test_tuning_study import SPACE


def many(n, depends, seed=0):
    """Records of n trials with random parameters; depends(params, rng): the error."""
    rng = np.random.default_rng(seed)
    records = []
    for k in range(n):
        params = {"lr": float(rng.choice([4e-3, 6e-3])), "width": int(rng.choice([4, 6]))}
        records.append(record(k, depends(params, rng), float(10 + rng.random()), **params))
    return records


@pytest.mark.slow
def test_what_matters_is_found():
    def depends(params, rng):
        return (10.0 if params["lr"] == 4e-3 else 30.0) * np.exp(0.05 * rng.normal())

    space, records = Space(SPACE), many(80, depends)
    found = importances(records, space)
    assert found[0].name == "lr"
    assert found[0].stands_out
    forest = Forest(records, space)
    assert forest.score > 0.9
    low, high = levels("lr", records, space, forest)
    assert (low.label, high.label) == ("0.004", "0.006")
    assert low.predicted == pytest.approx(10, rel=0.1)
    assert high.predicted == pytest.approx(30, rel=0.1)
    assert low.trials + high.trials == 80


@pytest.mark.slow
def test_figures_of_many_trials(tmp_path):
    def depends(params, rng):
        return (10.0 if params["lr"] == 4e-3 else 30.0) * np.exp(0.05 * rng.normal())

    findings = study(tmp_path, many(80, depends))
    bars = plots.importance_bars(findings).axes[0]
    assert bars.get_yticklabels()[0].get_text() == "lr"
    panels = plots.slices(findings).axes
    assert [panel.get_xlabel() for panel in panels] == list(findings.mattered.table)
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["0.004", "0.006"]


@pytest.mark.slow
def test_what_does_not_matter_is_not_made_up(tmp_path):
    records = many(80, lambda params, rng: 10 * np.exp(0.3 * rng.normal()), seed=5)
    space = Space(SPACE)
    assert sum(importance.stands_out for importance in importances(records, space)) <= 1
    assert Forest(records, space).score < 0.2
    text = texts(study(tmp_path, records))["What mattered, and by how much"]
    assert "too little to say what one parameter does" in text
    assert importances(records[:19], space) == []


def test_numbers_are_put_into_groups():
    space = Space({**SPACE, "lr": {"low": 1e-3, "high": 1e-2}})
    records = [record(k, lr=1e-3 * (1 + k / 10)) for k in range(30)]
    groups = levels("lr", records, space)
    assert sum(group.trials for group in groups) == 30
    assert min(group.trials for group in groups) >= 9
    assert groups[0].label == "0.001 to 0.0019"
    assert groups[-1].label.endswith(" to 0.0039")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rates", "space", "said"),
    [
        ([1e-2, 9.9e-3], {}, "In the 5 best trials `lr` (0.01) is at an end of what was searched"),
        ([1e-3], {"log": True}, "`lr` (0.001) is at an end"),
        ([1e-3, 1e-2], {}, None),
        ([5e-3], {}, None),
        ([1e-2], {"low": 1e-2}, None),
    ],
    ids=["high", "low", "at both", "within", "fixed"],
)
def test_the_best_at_an_end_of_the_range(tmp_path, rates, space, said):
    lr = {"low": 1e-3, "high": 1e-2, **space}
    best = [record(k, 5.0 + k, lr=rates[k % len(rates)]) for k in range(5)]
    others = [record(k, 10.0 + k, lr=4e-3) for k in range(5, 25)]
    findings = study(tmp_path, best + others, {"tuning": {"space": {**SPACE, "lr": lr}}})
    text = texts(findings)["Course of the search"]
    assert said in text if said else "at an end" not in text
