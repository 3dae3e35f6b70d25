"""The part of a study's report about its parameters: which mattered, and by how much."""

from amptorch.tuning.report import plots
from amptorch.tuning.report.findings import Findings
from amptorch.tuning.report.importance import (
    ENOUGH,
    SHUFFLES,
    Forest,
    importances,
    levels,
    shown,
)
from amptorch.tuning.report.parts import (
    Picture,
    Section,
    Table,
    Text,
    compared,
    counted,
    listed,
    number,
    percent,
)
from amptorch.tuning.space import BY_NAME

TITLE = "What mattered, and by how much"
# R² of the forest, on trials it has not seen, from which on its numbers are given.
TRUSTED = 0.2
# Parameters whose levels are shown: those that stand out, and the first of the others.
SHOWN = 6
# Ratio of the largest and the smallest error of a parameter's levels that is worth a sentence.
WORTH_SAYING = 1.1


def mattered(findings: Findings) -> Section | None:
    """Importance of the parameters, and what each of their values gave."""
    complete, space, seed = findings.complete, findings.space, findings.tuning.seed
    if not complete:
        return None
    blocks: list[Text | Table | Picture] = [Text(_way_to_the_best(findings))]
    found = importances(complete, space, seed)
    if not found:
        text = (
            f"{counted(len(complete), 'completed trial')}, fewer than {ENOUGH}, say nothing about "
            "how important each parameter is; `trials.csv` has what each of them gave."
        )
        return Section(TITLE, [*blocks, Text(text)])
    forest = Forest(complete, space, seed)
    trusted = forest.score is not None and forest.score >= TRUSTED
    used = forest if trusted else None
    table = {i.name: levels(i.name, findings.records, space, used) for i in found}
    standing = [importance.name for importance in found if importance.stands_out]
    order = sorted(table, key=lambda name: -_effect(table[name])) if trusted else list(table)
    names = [name for k, name in enumerate(order) if k < SHOWN or name in standing]
    blocks += [*_importance_blocks(found, standing), Text(_forest_words(forest, trusted))]
    worth = [name for name in names if _effect(table[name]) >= WORTH_SAYING] if trusted else []
    blocks += [Text(_level_words(name, table[name])) for name in worth]
    if trusted and not worth:
        blocks.append(Text("No parameter changes what it expects by a tenth."))
    blocks.append(_level_table({name: table[name] for name in names}, trusted))
    caption = "Errors of the completed trials over the values of parameters."
    blocks.append(Picture("parameters", plots.slices(findings, names), caption))
    return Section(TITLE, blocks)


def _way_to_the_best(findings):
    best, base = findings.best, findings.baseline
    if base is None:
        return (
            "The trial of the baseline gave no error, so that there is no way from it to the best."
        )
    if best["number"] == base["number"]:
        n = counted(len(findings.complete), "completed trial")
        return f"None of {n} is better than the baseline."
    old, new = base["params"], best["params"]
    changed = []
    for name in findings.space.domains:
        if old.get(name) != new.get(name):
            pair = [_value(params, name) for params in (old, new)]
            if pair[0] == pair[1]:
                pair = [f"{params[name]:.5g}" for params in (old, new)]
            changed.append(f"`{name}` {pair[0]} → {pair[1]}")
    text = (
        f"From the baseline (trial {base['number']}) to the best trial ({best['number']}) the "
        f"error went from {number(base['error'])} to {number(best['error'])} meV/atom"
    )
    if not changed:
        return text + ", with the same parameters: the difference is chance."
    return text + ". What differs: " + "; ".join(changed) + "."


def _value(params, name):
    return shown(params[name]) if name in params else "–"


def _importance_blocks(found, standing):
    tail = (
        f" Of {counted(len(found), 'parameter')}, one in twenty would pass this test by chance. By "
        "PED-ANOVA, from completed trials; those that were ended early are not in it."
    )
    if not standing:
        text = (
            "No parameter sets the best tenth of the trials apart from the others more than "
            f"shuffled errors would in 5 of {SHUFFLES} cases: these trials do not tell what it "
            "takes to be among the best."
        )
        return [Text(text + tail)]
    shares = [f"`{i.name}` ({percent(i.share)})" for i in found if i.stands_out]
    others = len(found) - len(standing)
    text = (
        f"What sets the best tenth of the trials apart from the others: {listed(shares)} of all "
        f"importance. {'This exceeds' if len(shares) == 1 else 'These exceed'} what shuffled "
        f"errors give in 95 of {SHUFFLES} cases"
    )
    if others:
        text += f"; the other {'one does' if others == 1 else f'{others} do'} not"
    picture = Picture("importance", plots.importance_bars(found), "Importance (PED-ANOVA).")
    return [Text(f"{text}.{tail}"), picture]


def _forest_words(forest, trusted):
    text = (
        "A random forest of the completed trials, good and bad, explains "
        f"{percent(max(forest.score, 0.0))} of the variance of log(error) in trials that it has "
        "not seen. "
    )
    if trusted:
        return text + (
            "What it expects with one value of a parameter, and everything else as in the trials, "
            "is the last column of the table, where parameters stand in the order of what they "
            "change; the median is over trials that differ in other parameters too."
        )
    return text + (
        "That is too little to say what one parameter does with everything else the same; the "
        "medians are over trials that differ in other parameters too."
    )


def _effect(rows):
    """Largest over smallest error that the forest expects, 1 where it expects none."""
    expected = [level.predicted for level in rows if level.predicted is not None]
    return max(expected) / min(expected) if expected else 1.0


def _level_words(name, rows):
    known = [level for level in rows if level.predicted is not None]
    best, worst = min(known, key=_expected), max(known, key=_expected)
    return (
        f"`{name}` ({BY_NAME[name].meaning}): best with {best.label} "
        f"({counted(best.complete, 'trial')}), {number(best.predicted)} meV/atom expected; with "
        f"{worst.label} ({counted(worst.complete, 'trial')}) it is {number(worst.predicted)}, "
        f"{compared(worst.predicted, best.predicted)} that."
    )


def _expected(level):
    return level.predicted


def _level_table(table, trusted):
    header = ["parameter", "value", "trials", "completed", "median error", "best error"]
    lines = [[*header, "all else the same"] if trusted else header]
    for name, rows in table.items():
        for k, level in enumerate(rows):
            cells = [f"`{name}`" if k == 0 else "", level.label]
            cells += [str(level.trials), str(level.complete)]
            cells += [number(level.median), number(level.best)]
            lines.append([*cells, number(level.predicted)] if trusted else cells)
    return Table(lines, "Errors in meV/atom, as they were minimised.")
