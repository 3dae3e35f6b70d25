"""Which parameters of a study mattered, and by how much: out of the records of its trials.

Two questions, two tools. Which parameters do the best trials share, against all others? PED-ANOVA
(S. Watanabe, A. Bansal, F. Hutter, IJCAI 2023, arXiv:2304.10255), as Optuna has it, next to what it
finds where the errors are shuffled. By how much? A random forest of the logarithm of the error says
what each value would give with everything else as in the trials.
"""

import warnings
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import eq

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from amptorch.tuning.space import BY_NAME, Choice
from amptorch.tuning.study import quiet_optuna

# Completed trials from which on there is something to say.
ENOUGH = 20
SHUFFLES = 100
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
    def stands_out(self):
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


def importances(complete, space, seed=0):
    """List of Importance, the largest first; empty with fewer than ENOUGH completed trials.

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


def _raw(study, errors):
    return get_param_importances(
        study,
        evaluator=PedAnovaImportanceEvaluator(),
        target=lambda trial: errors[trial.number],
        normalize=False,
    )


def _in_memory(complete, known):
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


def _distribution(domain):
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

    def __init__(self, complete, space, seed=0):
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

    def predicted(self, name, value):
        """The error that trials would have with this value: the geometric mean over those in which
        the parameter matters."""
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

    def _encoded(self, rows):
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


def levels(name, records, space, forest=None):
    """List of Level of a parameter: its values, or for numbers with many values three groups."""
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


def _groups(name, records, space):
    """[(label, value that stands for the group, test of a value)]."""
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


def _between(low, high, closed):
    return lambda value: low <= value < high or (closed and value == high)


def shown(value):
    """A parameter's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{float(f'{value:.3g}'):g}"
    return str(value)
