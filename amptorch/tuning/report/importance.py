"""Which parameters of a study mattered, and by how much: out of the records of its trials.

Two questions, two tools. Which parameters do the best trials share, against all others? PED-ANOVA
(S. Watanabe, A. Bansal, F. Hutter, IJCAI 2023, arXiv:2304.10255), as Optuna has it, next to what it
finds where the errors are shuffled. By how much? A random forest of the logarithm of the error says
what each value would give with everything else as in the trials.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from operator import eq
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from amptorch.tuning.space import BY_NAME, Choice, Space
from amptorch.tuning.study import quiet_optuna

Records = list[dict[str, Any]]
Test = Callable[[Any], bool]

# Completed trials from which on there is something to say.
ENOUGH = 20
SHUFFLES = 100
# R² of the forest, on trials it has not seen, from which on its numbers are given.
TRUSTED = 0.2
# Parameters whose levels are shown: those that stand out, and the first of the others.
SHOWN = 6
# Ratio of the largest and the smallest error of a parameter's levels that is worth a sentence.
WORTH_SAYING = 1.1
# Values of an integer, or of steps, that are shown one by one; more are put into three groups.
VALUES = 6


@dataclass(frozen=True)
class Importance:
    """share: of all importance, beyond what shuffled errors give on average; chance: what one of
    twenty shufflings exceeds."""

    name: str
    share: float
    chance: float

    @property
    def stands_out(self) -> bool:
        """Whether its share is beyond chance."""
        return self.share > self.chance


@dataclass(frozen=True)
class Level:
    """One value, or group of values, of a parameter.

    trials: all that had it and were not interrupted; complete: those that gave an error; median,
    best: of their errors, None without any; predicted: the forest's error with everything else as
    in the trials, or None.
    """

    label: str
    trials: int
    complete: int
    median: float | None
    best: float | None
    predicted: float | None


class Mattered:
    """What the parameters of a study did: importance of each, and what its values gave.

    importances : list of Importance, empty with too few trials
    standing : those that stand out
    score : R² of the forest, on trials that it has not seen; trusted : whether it is good enough
    table : {name: list of Level}; names : of those that are shown, the first changes most
    """

    def __init__(self, complete: Records, records: Records, space: Space, seed: int):
        self.importances = importances(complete, space, seed)
        self.standing = [i for i in self.importances if i.stands_out]
        forest = Forest(complete, space, seed)
        self.score = forest.score
        self.trusted = forest.score is not None and forest.score >= TRUSTED
        used = forest if self.trusted else None
        self.table = {i.name: levels(i.name, records, space, used) for i in self.importances}

    @cached_property
    def names(self) -> list[str]:
        """Those that stand out, and the first of the others."""
        order = list(self.table)
        if self.trusted:
            order.sort(key=lambda name: -self.effect(name))
        standing = [i.name for i in self.standing]
        return [name for k, name in enumerate(order) if k < SHOWN or name in standing]

    @property
    def worth_saying(self) -> list[str]:
        """Names of parameters that change the expected error by more than a tenth."""
        return [name for name in self.names if self.effect(name) >= WORTH_SAYING]

    def extremes(self, name: str) -> tuple[Level, Level]:
        """Return the levels of a parameter with the lowest and the highest expected error."""
        known = [level for level in self.table[name] if level.predicted is not None]
        return min(known, key=_expected), max(known, key=_expected)

    def effect(self, name: str) -> float:
        """Return the largest over the smallest expected error, 1 where none is expected."""
        expected = [level.predicted for level in self.table[name] if level.predicted is not None]
        return max(expected) / min(expected) if expected else 1.0


def _expected(level: Level) -> float:
    return np.inf if level.predicted is None else level.predicted


def importances(complete: Records, space: Space, seed: int = 0) -> list[Importance]:
    """Return Importance of each, the largest first; empty with fewer than ENOUGH completed trials.

    complete: records of trials that gave an error; space: the Space that was searched.
    """
    names = [
        name
        for name in space.searched
        if len({str(record["params"].get(name)) for record in complete}) > 1
    ]
    if len(complete) < ENOUGH or not names:
        return []
    errors = np.array([record["error"] for record in complete])
    with quiet_optuna(), warnings.catch_warnings():
        # That PED-ANOVA is new, and that less is better.
        warnings.simplefilter("ignore")
        study = _in_memory(complete, {name: _distribution(space.domains[name]) for name in names})
        found = _raw(study, errors)
        rng = np.random.default_rng(seed)
        shuffled = [_raw(study, rng.permutation(errors)) for _ in range(SHUFFLES)]
    mean = {name: np.mean([raw[name] for raw in shuffled]) for name in found}
    beyond = {name: max(0.0, found[name] - mean[name]) for name in found}
    total = sum(beyond.values()) or 1.0
    result = []
    for name in found:
        chance = float(np.percentile([raw[name] for raw in shuffled], 95) - mean[name])
        result.append(Importance(name, float(beyond[name] / total), chance / total))
    return sorted(result, key=lambda importance: -importance.share)


def _raw(study: optuna.Study, errors: np.ndarray) -> dict[str, float]:
    return get_param_importances(
        study,
        evaluator=PedAnovaImportanceEvaluator(),
        target=lambda trial: errors[trial.number],
        normalize=False,
    )


def _in_memory(complete: Records, known: dict[str, BaseDistribution]) -> optuna.Study:
    study = optuna.create_study()
    for record in complete:
        params = {name: value for name, value in record["params"].items() if name in known}
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={name: known[name] for name in params},
                value=record["error"],
            )
        )
    return study


def _distribution(domain: Any) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if domain.integer:
        step = 1 if domain.step is None else int(domain.step)
        return IntDistribution(int(domain.low), int(domain.high), domain.log, step)
    return FloatDistribution(domain.low, domain.high, domain.log, domain.step)


class Forest:
    """A random forest of log(error) on the parameters of completed trials.

    score: R² on trials that a tree has not seen; None with fewer than ENOUGH trials.
    """

    def __init__(self, complete: Records, space: Space, seed: int = 0):
        self.space = space
        self.seed = seed
        self.rows = [record["params"] for record in complete]
        self.names = [name for name in space.searched if any(name in row for row in self.rows)]
        self.score = None
        if len(complete) < ENOUGH or not self.names:
            return
        from sklearn.ensemble import RandomForestRegressor

        targets = np.log([max(record["error"], 1e-12) for record in complete])
        self.model = RandomForestRegressor(
            300, min_samples_leaf=2, max_features=0.5, oob_score=True, random_state=seed
        ).fit(self._encoded(self.rows), targets)
        self.score = float(self.model.oob_score_)

    def predicted(self, name: str, value: Any) -> float:
        """Return the error that trials would have with this value, the geometric mean over those in
        which the parameter matters."""
        rows = [row for row in self.rows if name in row]
        children = [n for n in self.names if any(other == name for other, _ in BY_NAME[n].when)]
        donors = [row for row in rows if row[name] == value]
        rng = np.random.default_rng(self.seed)
        changed = []
        for row in rows:
            new = {n: v for n, v in row.items() if n not in children}
            new[name] = value
            if donors:
                # Parameters that depend on this one come from a trial that had the value.
                donor = donors[rng.integers(len(donors))]
                new |= {n: donor[n] for n in children if n in donor}
            changed.append(new)
        return float(np.exp(self.model.predict(self._encoded(changed)).mean()))

    def _encoded(self, rows: Records) -> np.ndarray:
        columns = []
        for name in self.names:
            values = [row.get(name) for row in rows]
            domain = self.space.domains[name]
            if isinstance(domain, Choice):
                columns += [[value == choice for value in values] for choice in domain.values]
                continue
            low, high = domain.low, domain.high
            if domain.log:
                values = [None if value is None else np.log(value) for value in values]
                low, high = np.log(low), np.log(high)
            # Where it does not matter, as far below as the range is wide.
            columns.append([2 * low - high if value is None else value for value in values])
        return np.array(columns, dtype=np.float64).T


def levels(name: str, records: Records, space: Space, forest: Forest | None = None) -> list[Level]:
    """Return a Level for each value of a parameter, or for three groups of many numbers."""
    had = [r for r in records if r["state"] != "interrupted" and name in r.get("params", {})]
    complete = [record for record in had if record["state"] == "complete"]
    result = []
    for label, value, inside in _groups(name, had, space):
        errors = [r["error"] for r in complete if inside(r["params"][name])]
        trials = sum(bool(inside(record["params"][name])) for record in had)
        predicted = None
        if forest is not None and forest.score is not None and errors:
            predicted = forest.predicted(name, value)
        result.append(
            Level(
                label,
                trials,
                len(errors),
                float(np.median(errors)) if errors else None,
                min(errors) if errors else None,
                predicted,
            )
        )
    return result


def _groups(name: str, records: Records, space: Space) -> list[tuple[str, Any, Test]]:
    """Return [(label, value that stands for the group, test of a value)]."""
    values = [record["params"][name] for record in records]
    domain = space.domains[name]
    most = VALUES
    if not isinstance(domain, Choice) and domain.step is None and not domain.integer:
        most = 3
    if isinstance(domain, Choice) or len(set(values)) <= most:
        known = [v for v in domain.values if v in values] if isinstance(domain, Choice) else None
        distinct = sorted(set(values)) if known is None else known
        return [(shown(value), value, partial(eq, value)) for value in distinct]
    edges = np.quantile(values, [0, 1 / 3, 2 / 3, 1], method="nearest")
    groups = []
    for k, (low, high) in enumerate(pairwise(edges)):
        inside = _between(low, high, closed=k == 2)
        members = [value for value in values if inside(value)]
        if members:
            label = f"{shown(min(members))} to {shown(max(members))}"
            groups.append((label, float(np.median(members)), inside))
    return groups


def _between(low: float, high: float, closed: bool) -> Test:
    return lambda value: low <= value < high or (closed and value == high)


def shown(value: Any) -> str:
    """Return a parameter's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{float(f'{value:.3g}'):g}"
    return str(value)
