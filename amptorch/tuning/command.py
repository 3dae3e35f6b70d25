"""The commands `amptorch tune`, `pick` and `report`. Heavy imports stand inside."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

if TYPE_CHECKING:
    from amptorch.tuning.run import Tuned

UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str) -> float:
    """Return the seconds of "90", "45s", "30min" or "2h"; raises ValueError for anything else, and
    for no time at all."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|m|h|d|)\s*", str(text))
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is no time such as 90s, 30min or 2h")
    return float(match[1]) * UNITS[match[2]]


def tune(
    train: Annotated[str, typer.Option(help="Frames to train on, as ase.io.read takes them.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; gone on with if it is there.")],
    test: Annotated[
        str | None, typer.Option(help="Frames that are looked at once, at the end.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all.")] = None,
    time: Annotated[
        str | None, typer.Option(help="Time in all, such as 2h: search, then training.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML or JSON: AtomsTrainer's sections, and `tuning`.")
    ] = None,
    trial_seconds: Annotated[
        float | None,
        typer.Option(help="Training time of a trial; default: 60, or less by --time."),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(help="µs/atom that a trial may take; default: 1.1 times the baseline's."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna's storage; default: SQLite in the folder.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; default: one a core; 0: none.")
    ] = None,
    energy_key: Annotated[
        str | None, typer.Option(help="Name of the energies, if no calculator has them.")
    ] = None,
    forces_key: Annotated[
        str | None, typer.Option(help="Name of the forces, if no calculator has them.")
    ] = None,
) -> None:
    """Search for symmetry functions, network and training together, then train the best.

    The same command goes on with a study that was stopped, and joins one that runs elsewhere.
    """
    from amptorch.files import read_config
    from amptorch.tuning.run import tune as run

    settings = {} if config is None else read_config(config)
    for section, key, value in (
        ("dataset", "energy_key", energy_key),
        ("dataset", "forces_key", forces_key),
        ("tuning", "trial_seconds", trial_seconds),
        ("tuning", "max_cost", max_cost),
    ):
        if value is not None:
            settings[section] = {**(settings.get(section) or {}), key: value}
    seconds = None if time is None else seconds_of(time)
    typer.echo(_outcome(run(train, out, test, trials, seconds, settings, storage, workers)))


def pick(
    out: Annotated[Path, typer.Argument(help="Folder of a study of `amptorch tune`.")],
    trial: Annotated[int | None, typer.Option(min=0, help="This trial.")] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="The most accurate that takes at most so many µs/atom.")
    ] = None,
    max_error: Annotated[
        float | None, typer.Option(help="The cheapest whose error is at most this.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Write its configuration here, for `amptorch train`.")
    ] = None,
) -> None:
    """Show which trials are the best for what they cost, and pick one of them."""
    from amptorch.tuning.picking import front_of, pick_trial, train_config

    front = front_of(out)
    if (trial, max_cost, max_error) == (None, None, None):
        typer.echo(front_table(front))
        return
    record = pick_trial(out, trial, max_cost, max_error)
    text = yaml.safe_dump(train_config(record), sort_keys=False)
    if config is None:
        typer.echo(text)
        return
    from amptorch.files import check_output

    check_output(config, overwrite=False)
    config.write_text(text, encoding="utf8")
    typer.echo(
        f"trial {record['number']}: error {record['error']:.4g}, {record['cost']:.3g} µs/atom\n"
        f"configuration: {config}"
    )


def report(
    out: Annotated[Path, typer.Argument(help="Folder of a study of `amptorch tune`.")],
) -> None:
    """Write report.html, report.md and results.zip of a study, finished or running.

    `amptorch tune` does so at its end.
    """
    from amptorch.tuning.report import write_report

    typer.echo("\n".join(str(path) for path in write_report(out)))


def front_table(front: list[dict[str, Any]]) -> str:
    """Return the text of a Pareto front: records of trials, the cheapest first."""
    from amptorch.reports import aligned

    lines = [["trial", "error", "µs/atom", "meV/atom", "eV/Å"]]
    for record in front:
        errors = record["errors"]
        cells = [str(record["number"]), f"{record['error']:.4g}", f"{record['cost']:.3g}"]
        cells.append(f"{errors['energy']['rmse']:.2f}")
        cells.append(f"{errors['forces']['rmse']:.3f}" if "forces" in errors else "")
        lines.append(cells)
    return aligned(lines)


def _outcome(tuned: "Tuned") -> str:
    from amptorch.tuning.picking import front_of

    best = tuned.best
    lines = [
        "\nbest for what they cost (errors on validation frames, RMSE):",
        front_table(front_of(tuned.out)),
        f"\nbest trial:  {best['number']}, error {best['error']:.4g}",
        f"parameters:  {json.dumps(best['params'])}",
    ]
    if tuned.chosen is not None:
        kind = "configuration of the baseline" if tuned.baseline else "of the best trial"
        lines.append(f"chosen:      {tuned.chosen} ({kind})")
    if tuned.test is not None:
        lines.append("\nerrors on the test frames, which nothing was decided by:")
        for name in (name for name in ("chosen", "baseline") if name in tuned.test):
            lines.append(f"{name:<12} {errors_line(tuned.test[name])}")
    return "\n".join([*lines, f"report:      {tuned.out / 'report.html'}"])


def errors_line(errors: dict[str, Any]) -> str:
    """Return one line of RMSE and MAE, with all frames and without the outliers."""
    parts = []
    for label, part in (("", errors), ("without outliers ", errors.get("without_outliers"))):
        if part is not None:
            energy = part["energy"]
            text = f"{label}RMSE {energy['rmse']:.2f}, MAE {energy['mae']:.2f} meV/atom"
            if "forces" in part:
                forces = part["forces"]
                text += f"; RMSE {forces['rmse']:.3f}, MAE {forces['mae']:.3f} eV/Å"
            parts.append(f"{text} ({part['frames']} frames)")
    return "; ".join(parts)
