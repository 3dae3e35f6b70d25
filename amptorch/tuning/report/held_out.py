"""The part of a study's report about single predictions on frames that were held out."""

import numpy as np
from ase.data import atomic_numbers
from scipy.stats import spearmanr

from amptorch.tuning.final import BASELINE
from amptorch.tuning.report import plots
from amptorch.tuning.report.findings import Findings
from amptorch.tuning.report.parts import (
    Picture,
    Section,
    Table,
    Text,
    counted,
    number,
    percent,
    signed,
)

STATISTICS = ("rmse", "mae", "median")
# Frames, or groups of frames, from which on a statement is made.
FEW = 8
BINS = 5


def held_out(findings: Findings) -> list[Section]:
    """Parity, errors of elements and over the range of energies, uncertainty."""
    held = findings.predictions
    if held is None:
        return [Section("Parity", [Text(_no_predictions(findings))])] if findings.best else []
    sections = [Section("Parity", [Text(_origin(findings)), _parity_picture(held)])]
    elements = _elements(findings)
    sections += [elements] if elements else []
    sections.append(_energy_range(held, findings.about["outliers_above"]))
    uncertainty = _uncertainty(findings, held)
    return sections + ([uncertainty] if uncertainty else [])


def _no_predictions(findings):
    if findings.test is not None:
        return "This study has no `test.npz`: single predictions were not kept when it was tested."
    return (
        "There are no predictions on held-out frames to show: no test frames were opened, and "
        "there is no learning curve, whose last point would predict the validation frames."
    )


def _origin(findings):
    if findings.predictions.kind == "test":
        return "Predictions of the final models on the test frames."
    point = findings.curve[-1]
    return (
        "Predictions on the validation frames by the configuration of the best trial, trained anew "
        f"on {counted(point['frames'], 'frame')} that hold none of them (the last point of the "
        "learning curve). These frames had a say in the choice of the configuration."
    )


def _parity_picture(held):
    what = f"{counted(len(held.counts), f'{held.kind} frame')}"
    return Picture("parity", plots.parity(held), f"Prediction against reference, {what}.")


def _elements(findings):
    if findings.test is not None:
        models = {n: findings.test[n] for n in ("chosen", BASELINE) if n in findings.test}
    else:
        models = {findings.predictions.label("chosen"): findings.curve[-1]["errors"]}
    if not all("forces_by_element" in result for result in models.values()):
        return None
    held = findings.predictions
    lines = [
        [
            "forces on",
            "RMS of the reference",
            *(f"{n} {s}" for n in models for s in ("RMSE", "MAE", "median")),
        ]
    ]
    relative = {}
    for symbol in sorted(next(iter(models.values()))["forces_by_element"]):
        rows = held.arrays["numbers"] == atomic_numbers[symbol]
        reference = float(np.sqrt(np.mean(held.forces[rows].astype(np.float64) ** 2)))
        cells = [
            number(result["forces_by_element"][symbol][s])
            for result in models.values()
            for s in STATISTICS
        ]
        lines.append([symbol, number(reference), *cells])
        if reference > 0:
            own = next(iter(models.values()))["forces_by_element"][symbol]["rmse"]
            relative[symbol] = own / reference
    blocks = [Table(lines, "eV/Å, per component. (Energies belong to frames, not to elements.)")]
    if len(relative) > 1:
        worst, least = max(relative, key=relative.get), min(relative, key=relative.get)
        blocks.append(
            Text(
                f"In parts of the forces that act on them, {worst} is described worst "
                f"({percent(relative[worst])}) and {least} best ({percent(relative[least])})."
            )
        )
    return Section("Errors of each element", blocks)


def _energy_range(held, above):
    usual = np.flatnonzero(held.energies <= above)
    order = usual[np.argsort(held.energies[usual])]
    groups = np.array_split(order, max(1, min(BINS, len(order) // 4))) if len(order) else []
    groups += [np.flatnonzero(held.energies > above)]
    forces = {name: held.frame_force_errors(name) for name in held.models}
    with_forces = held.forces is not None
    header = ["energy (eV/atom)", "frames"]
    header += [f"{held.label(name)}, energy RMSE (meV/atom)" for name in held.models]
    header += (
        [f"{held.label(name)}, force RMSE (eV/Å)" for name in held.models] if with_forces else []
    )
    lines, rmse = [header], []
    for k, group in enumerate(groups):
        if not len(group):
            continue
        low, high = held.energies[group].min(), held.energies[group].max()
        label = f"{low:.4f} to {high:.4f}" if low < high else f"{low:.4f}"
        if k == len(groups) - 1:
            label += " (outliers)"
        cells = [np.sqrt(np.mean(held.energy_errors(name)[group] ** 2)) for name in held.models]
        rmse.append(cells[0])
        if with_forces:
            weights = held.counts[group]
            cells += [
                np.sqrt(np.average(forces[name][group] ** 2, weights=weights))
                for name in held.models
            ]
        lines.append([label, str(len(group)), *map(number, cells)])
    blocks = [Table(lines, "About as many frames in each row, outliers in one of their own.")]
    text = _trend(held)
    blocks += [Text(text)] if text else []
    caption = "Error of each frame against its energy; triangles are outliers."
    blocks.append(Picture("energy-range", plots.energy_range(held, above), caption))
    return Section("Errors over the range of energies", blocks)


def _trend(held):
    name = held.models[0]
    errors = np.abs(held.energy_errors(name))
    if len(errors) < FEW or np.ptp(held.energies) == 0 or np.ptp(errors) == 0:
        return None
    rho, p = spearmanr(held.energies, errors)
    words = (
        "there is no trend of the energy error with the energy"
        if p > 0.05
        else f"the energy error {'grows' if rho > 0 else 'falls'} with the energy"
    )
    return (
        f"Over {len(errors)} frames {words} (rank correlation {signed(rho)}, p = {number(p, 1)})."
    )


def _uncertainty(findings, held):
    spreads = held.spreads("chosen")
    if spreads is None:
        if len(findings.members) < 2:
            return None
        text = (
            "The members of the ensemble were trained on all training frames. Without test frames "
            "there are none on which their spread could be held against their errors."
        )
        return Section("Uncertainty", [Text(text)])
    blocks = [
        Text(
            f"The spread of the {len(findings.members)} members (their standard deviation) against "
            f"the error of their mean on the {counted(len(held.counts), 'test frame')}."
        )
    ]
    quantities = [("energy", spreads[0], held.energy_errors("chosen"))]
    if spreads[1] is not None:
        quantities.append(
            ("force components", spreads[1].ravel(), held.force_errors("chosen").ravel())
        )
    lines = [
        [
            "",
            "RMS spread",
            "RMS error",
            "error / spread",
            "|error| < spread",
            "< 2 spreads",
            "rank correlation",
        ]
    ]
    words = []
    for what, spread, error in quantities:
        rms = [float(np.sqrt(np.mean(np.square(v, dtype=np.float64)))) for v in (spread, error)]
        inside = [float(np.mean(np.abs(error) < k * spread)) for k in (1, 2)]
        varied = len(spread) >= FEW and np.ptp(spread) > 0
        rho = float(spearmanr(spread, np.abs(error))[0]) if varied else None
        ratio = rms[1] / rms[0] if rms[0] > 0 else None
        lines.append(
            [
                what,
                *map(number, rms),
                number(ratio),
                *map(percent, inside),
                "–" if rho is None else f"{signed(rho)}",
            ]
        )
        words.append(_spread_words(what, ratio, rho))
    note = (
        "A spread that were the standard deviation of a normal error would have 68 and 95 % inside."
    )
    blocks += [Table(lines, note), *(Text(text) for text in words if text)]
    caption = "Error against spread; on the dashed line errors are as large as the spread says."
    blocks.append(Picture("uncertainty", plots.uncertainty(held), caption))
    return Section("Uncertainty of the ensemble", blocks)


def _spread_words(what, ratio, rho):
    if ratio is None or rho is None:
        return f"For the {what} there is too little to judge the spread by."
    size = (
        f"too small: errors are {number(ratio, 2)} times as large"
        if ratio > 1.25
        else f"too large: errors are {number(ratio, 2)} times as large"
        if ratio < 0.8
        else "of about the size of the errors"
    )
    use = "hardly tells" if rho < 0.25 else "tells in part" if rho < 0.5 else "tells well"
    which = "which frames are predicted worse" if what == "energy" else "which are predicted worse"
    return (
        f"For the {what} the spread is {size}; it {use} {which} (rank correlation {signed(rho)})."
    )
