"""Say which parameters of a study mattered, and by how much: out of the records of its trials.

Two questions, two tools. Which parameters do the best trials share, against all others? PED-ANOVA
(S. Watanabe, A. Bansal, F. Hutter, IJCAI 2023, arXiv:2304.10255), as Optuna has it, next to what it
finds where the errors are shuffled. By how much? A random forest of the logarithm of the error says
what each value would give with everything else as in the trials.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from amptorch.tuning.space import MOST_VALUES, Choice, Range, Space, depends_on
from amptorch.tuning.study import quiet_optuna

Records = list[dict[str, Any]]
# Completed trials from which on there is something to say.
ENOUGH = 20
SHUFFLES = 100
# R² of the forest, on trials it has not seen, from which on its numbers are given.
TRUSTED = 0.2
# Parameters whose levels are shown: those that stand out, and the first of the others.
SHOWN = 6
# Ratio of the largest and the smallest error of a parameter's levels that is worth a sentence.
WORTH_SAYING = 1.1


@dataclass(frozen=True)
class Importance:
    """Hold a share of all importance, beyond what shuffled errors give on average; `chance` is what
    one of twenty shufflings exceeds."""

    name: str
    share: float
    chance: float

    @property
    def stands_out(self) -> bool:
        """Return True where the share is beyond chance."""
        return self.share > self.chance


@dataclass(frozen=True)
class Level:
    """Hold what one value, or group of values, of a parameter gave.

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
    """Hold what the parameters of a study did.

    importances : list of Importance, empty with too few trials; standing : those that stand out
    score : R² of the forest, on trials that it has not seen; trusted : True where it is good enough
    table : {name: list of Level} of the parameters that are shown, the first changes most
    effects : [(name, lowest level, highest level)] of expected errors that differ by a tenth
    """

    def __init__(self, complete: Records, records: Records, space: Space, seed: int):
        self.importances = importances(complete, space, seed)
        self.standing = [i for i in self.importances if i.stands_out]
        forest = Forest(complete, space, seed)
        self.score = forest.score
        self.trusted = forest.score is not None and forest.score >= TRUSTED
        used = forest if self.trusted else None
        table = {i.name: levels(i.name, records, space, used) for i in self.importances}
        ends: dict[str, tuple[Any, Any]] = {}
        for name in table:
            known = [level for level in table[name] if level.predicted is not None]
            known.sort(key=lambda level: level.predicted or 0.0)
            if known:
                ends[name] = known[0], known[-1]
        effect = {name: high.predicted / low.predicted for name, (low, high) in ends.items()}
        order = sorted(table, key=lambda name: -effect.get(name, 1.0))
        standing = {i.name for i in self.standing}
        shown_names = [name for k, name in enumerate(order) if k < SHOWN or name in standing]
        self.table = {name: table[name] for name in shown_names}
        self.effects = [(n, *ends[n]) for n in self.table if effect.get(n, 1.0) >= WORTH_SAYING]


def importances(complete: Records, space: Space, seed: int = 0) -> list[Importance]:
    """Return Importance of each, the largest first; empty with fewer than ENOUGH completed trials.

    complete: records of trials that gave an error; space: the Space that was searched.
    """
    names = [n for n in space.searched if len({str(r["params"].get(n)) for r in complete}) > 1]
    if len(complete) < ENOUGH or not names:
        return []
    errors = np.array([record["error"] for record in complete])
    with quiet_optuna(), warnings.catch_warnings():
        # That PED-ANOVA is new, and that less is better.
        warnings.simplefilter("ignore")
        study = optuna.create_study()
        known = {name: space.domains[name].distribution for name in names}
        for record in complete:
            params = {name: value for name, value in record["params"].items() if name in known}
            distributions = {name: known[name] for name in params}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=0.0)
            )
        found = _raw(study, errors)
        rng = np.random.default_rng(seed)
        shuffled = [_raw(study, rng.permutation(errors)) for _ in range(SHUFFLES)]
    mean = {name: np.mean([raw[name] for raw in shuffled]) for name in found}
    beyond = {name: max(0.0, found[name] - mean[name]) for name in found}
    total = sum(beyond.values()) or 1.0
    high = {name: np.percentile([raw[name] for raw in shuffled], 95) for name in found}
    chance = {name: float(high[name] - mean[name]) / total for name in found}
    result = [Importance(name, float(beyond[name]) / total, chance[name]) for name in found]
    return sorted(result, key=lambda importance: -importance.share)


def _raw(study: optuna.Study, errors: np.ndarray) -> dict[str, float]:
    return get_param_importances(
        study,
        evaluator=PedAnovaImportanceEvaluator(),
        target=lambda trial: errors[trial.number],
        normalize=False,
    )


class Forest:
    """Hold a random forest of log(error) on the parameters of completed trials.

    score: R² on trials that a tree has not seen; None with fewer than ENOUGH trials.
    """

    def __init__(self, complete: Records, space: Space, seed: int = 0):
        self.seed, self.score = seed, None
        names = space.searched
        self.rows = [{n: v for n, v in r["params"].items() if n in names} for r in complete]
        if len(complete) < ENOUGH or not any(self.rows):
            return
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.pipeline import make_pipeline

        targets = np.log([max(record["error"], 1e-12) for record in complete])
        trees = RandomForestRegressor(
            300, min_samples_leaf=2, max_features=0.5, oob_score=True, random_state=seed
        )
        # A parameter that does not matter in a trial is 0, which no number in its range is.
        self.model = make_pipeline(DictVectorizer(sparse=False), trees).fit(self.rows, targets)
        self.score = float(trees.oob_score_)

    def predicted(self, name: str, value: Any) -> float:
        """Return the error that trials would have with this value, the geometric mean over those in
        which the parameter matters."""
        rows = [row for row in self.rows if name in row]
        donors = [row for row in rows if row[name] == value]
        rng = np.random.default_rng(self.seed)
        changed = []
        for row in rows:
            # Parameters that depend on this one come from a trial that had the value.
            donor = donors[rng.integers(len(donors))] if donors else {}
            new = {n: v for n, v in row.items() if name not in depends_on(n)}
            new |= {n: v for n, v in donor.items() if name in depends_on(n)}
            changed.append({**new, name: value})
        return float(np.exp(self.model.predict(changed).mean()))


def levels(name: str, records: Records, space: Space, forest: Forest | None = None) -> list[Level]:
    """Return a Level for each value of a parameter, or for three groups of many numbers."""
    had = [r for r in records if r["state"] != "interrupted" and name in r.get("params", {})]
    result = []
    for group in _groups([record["params"][name] for record in had], space.domains[name]):
        inside = [record for record in had if record["params"][name] in group]
        errors = [record["error"] for record in inside if record["state"] == "complete"]
        label = " to ".join(dict.fromkeys(map(shown, (group[0], group[-1]))))
        predicted = None
        if forest is not None and forest.score is not None and errors:
            value = group[0] if len(group) == 1 else float(np.median(group))
            predicted = forest.predicted(name, value)
        median = float(np.median(errors)) if errors else None
        best = min(errors, default=None)
        result.append(Level(label, len(inside), len(errors), median, best, predicted))
    return result


def _groups(values: list[Any], domain: Range | Choice) -> list[list[Any]]:
    if isinstance(domain, Choice):
        return [[value] for value in domain.values if value in values]
    distinct = sorted(set(values))
    if len(distinct) <= (MOST_VALUES if domain.step is not None or domain.integer else 3):
        return [[value] for value in distinct]
    return [part.tolist() for part in np.array_split(distinct, 3)]


def shown(value: Any) -> str:
    """Return a parameter's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{float(f'{value:.3g}'):g}" if isinstance(value, float) else str(value)
