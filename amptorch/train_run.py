"""Compile, train and report, for `amptorch train` and `demo`. Heavy imports stand inside."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ase import Atoms

    from amptorch.checkpoints.folder import Checkpoint
    from amptorch.config import Config, DatasetConfig
    from amptorch.descriptor.ahead import Ahead
    from amptorch.frames import Frames
    from amptorch.potential import Potential
    from amptorch.reports import Stages
    from amptorch.training.prepare import TrainingData
    from amptorch.training.ranks import Ranks

logger = logging.getLogger("amptorch")
# Of a store, spread over it, whose errors are shown after training.
REPORTED_FRAMES = 500


def compile_ahead(config: "Config", elements: list[str] | None = None) -> "Ahead | None":
    """Begin to compile the kernels of a training, where these are of symmetry functions: all of
    them, where the elements are known."""
    from amptorch.descriptor.ahead import Ahead

    # The processes of one training would all do so.
    if config.dataset.fp_scheme != "gaussian" or "RANK" in os.environ:
        return None
    ahead = Ahead(["neighbors"])
    if elements is not None:
        ahead.add(["derivatives"], _has_moments(replace(config.dataset, elements=elements)))
    return ahead


def with_labels(
    name: str,
    images: "list[Atoms]",
    elements: list[str] | None,
    forces: bool,
    missing_forces: str = "error",
    stress: bool = False,
) -> "Frames":
    """Return the Frames of `images` with energies (and forces, and the stresses that are there); a
    ValueError says whose."""
    from amptorch.frames import Frames

    try:
        return Frames.from_atoms(images, elements, True, forces, 0, missing_forces, stress)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _seconds_since_start() -> float:
    """Return how long this process has been running."""
    import time

    import psutil

    return time.time() - psutil.Process().create_time()


def command_stages() -> "Stages":
    """Return the stages of a command, of which the first, its start, is over."""
    from amptorch.reports import Stages

    stages = Stages()
    stages.seconds["starting"] = _seconds_since_start()
    return stages


def settings_of_run(run: Path) -> dict[str, Any]:
    """Return the configuration of a run that was begun."""
    from amptorch.training.restart import newest_state, run_in

    state = newest_state(run_in(run))
    return {"defaults": "recommended"} if state is None else state.checkpoint.config


@contextmanager
def interruptions() -> Iterator[list[int]]:
    """Collect the interruptions from the keyboard, which end a training as its last epoch would."""
    seen: list[int] = []

    def interrupted(number: int, frame: Any) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _seconds_left(wanted: float, stages: "Stages", sets: "dict[str, list[Atoms]]") -> float:
    """Return the seconds of `wanted` that are left for fingerprints and training; warn where these
    are few because kernels had to be compiled."""
    left = max(1.0, wanted - _seconds_since_start() - _seconds_to_report(sets))
    compiling = stages.seconds.get("compiling", 0.0)
    if left < compiling:
        logger.warning(
            "warning: of %.0f s, %.0f are left to train, since kernels were compiled, once: train "
            "again, or for longer",
            wanted,
            left,
        )
    return left


def _seconds_to_report(sets: "dict[str, list[Atoms]]") -> float:
    """Return about how long predictions of these frames, and what is written at the end, take."""
    atoms = sum(len(image) for images in sets.values() for image in images)
    return 3.0 + 1.5e-4 * atoms


def train_and_report(
    settings: dict[str, Any],
    sets: "dict[str, list[Atoms]]",
    stages: "Stages",
    ahead: "Ahead | None",
    start: Path | None = None,
    resume: Path | None = None,
    limited: bool = True,
) -> Path | None:
    """Train, then print the errors on `sets` (name: images), and on the frames that were kept to
    validate or some that were trained on, the stages and the files written; return the folder.

    limited : what comes before and after the training is part of `optim.total_seconds`
    """
    from amptorch.config import Config
    from amptorch.data.from_store import StoreDataset
    from amptorch.data.inspection import inspect_frames
    from amptorch.files import images_of
    from amptorch.training.ranks import Ranks

    config = Config.from_dict(settings)
    options = config.dataset
    trained_on = options.raw_data if isinstance(options.raw_data, list) else None
    elements = options.elements
    if elements is None and trained_on is not None and options.store is None:
        # Of an atom that is none, what reads the frames names the place.
        elements = sorted({s for atoms in trained_on for s in set(atoms.symbols)} - {"X"})
    stress = config.optim.stress_coefficient > 0
    labels = elements, config.model.get_forces, options.missing_forces, stress
    frames = {name: with_labels(name, images, *labels) for name, images in sets.items()}
    if ahead is not None:
        with stages("compiling"):
            has_stress = any(labelled.has_stress for labelled in frames.values())
            _compile(ahead, replace(options, elements=elements), has_stress)
    if trained_on is not None and options.store is None:
        with stages("looking at the frames"):
            # Stresses that are trained on where they are right are looked at by `prepare`.
            order = config.optim.stress_per_mev is None
            _warn_of(inspect_frames(trained_on, order), trained_on, sets)
    if config.optim.total_seconds is not None and limited:
        left = _seconds_left(config.optim.total_seconds, stages, sets)
        settings = {**settings, "optim": {**settings["optim"], "total_seconds": left}}
    ranks = Ranks()
    with _run_of(config, resume, ranks) as (folder, state):
        data, potential = _train(settings, sets, stages, ranks, folder, start, state)
    if not ranks.first:
        return None
    # LMDB files, and stores that were made from them, hold no structures to predict.
    if isinstance(data.dataset, StoreDataset) and data.dataset.store.has_structures:
        sample = data.dataset.sample(REPORTED_FRAMES)
        name = f"{len(sample)} of {len(data.dataset)} frames"
        frames, sets = {name: sample, **frames}, {name: images_of(sample), **sets}
    # Where derivatives are stored, the kernels that make them are compiled.
    keep = getattr(data.dataset, "derivative_kind", None) == "stored"
    _report(potential, sets, frames, stages, keep, folder)
    return folder


def _compile(ahead: "Ahead", options: "DatasetConfig", stress: bool) -> None:
    """Compile the kernels of a training, and of the stresses that are predicted at its end: within
    the time that it may take."""
    from amptorch.descriptor.ahead import compile_now

    names, moments = ["derivatives"], _has_moments(options)
    if stress:
        names += ["directional", "gradients", "values"]
    ahead.add(names, moments)
    ahead.wait()
    compile_now(names, moments)


def _has_moments(options: "DatasetConfig") -> bool:
    """Tell which kernels the symmetry functions will take, see `descriptor/ahead.py`; where the
    elements are not known, as of a store, a guess."""
    from amptorch.descriptor.construct import construct_descriptor
    from amptorch.descriptor.Gaussian.auto import angular_kinds, is_recipe

    if is_recipe(options.fp_params):
        return "G5" in angular_kinds(options.fp_params, len(options.elements or ("H", "O", "Fe")))
    if options.elements is None or options.fp_params is None:
        return False
    return bool(construct_descriptor(options.descriptor_setup).has_moments)


def _warn_of(
    messages: list[str], trained_on: "list[Atoms]", sets: "dict[str, list[Atoms]]"
) -> None:
    """Warn of what messages say, and of frames of the training that are kept out as well."""
    from amptorch.data.copies import duplicate_warning

    for name in ("validation", "test", "held out"):
        if name in sets:
            messages.append(duplicate_warning(trained_on, sets[name], name) or "")
    for message in filter(None, messages):
        logger.warning("warning: %s", message)


def _train(
    settings: dict[str, Any],
    sets: "dict[str, list[Atoms]]",
    stages: "Stages",
    ranks: "Ranks",
    folder: Path | None,
    start: Path | None,
    state: "Checkpoint | None",
) -> "tuple[TrainingData, Potential]":
    """Return what was trained on, and the potential.

    start : checkpoint whose parameters it begins with; state : of the run to go on with
    """
    from amptorch.checkpoints.folder import load_checkpoint
    from amptorch.config import Config
    from amptorch.loading import checkpoint_in
    from amptorch.potential import Potential
    from amptorch.training.fit import fit
    from amptorch.training.prepare import prepare
    from amptorch.training.pretrained import settings_for
    from amptorch.training.summary import summary
    from amptorch.v1.lmdb_training import prepare_lmdb

    trained = state if start is None else load_checkpoint(checkpoint_in(start))
    config = Config.from_dict(settings) if trained is None else settings_for(settings, trained)
    read = prepare if config.dataset.lmdb_path is None else prepare_lmdb
    with stages("fingerprints"):
        data = read(config, trained=trained, ranks=ranks)
        # Of the elements configured, or in the store, those that were trained on.
        known = data.feature_scaler.known(data.elements)
        for name, images in sets.items():
            with_labels(name, images, known, forces=False)
        if ranks.first and state is None:
            typer.echo(summary(data))
    first = None if start is None else Potential.load(checkpoint_in(start))
    with stages("training"):
        return data, fit(data, first, folder, ranks=ranks, resume=True)


def _report(
    potential: "Potential",
    sets: "dict[str, list[Atoms]]",
    frames: "dict[str, Frames]",
    stages: "Stages",
    keep: bool,
    folder: Path | None,
) -> None:
    """Predict, print the errors and the stages, and draw the parity plot into `folder`."""
    from amptorch.prediction import predict
    from amptorch.reports import (
        error_table,
        group_table,
        parity_plot,
        prediction_errors,
        unfair_groups,
        useless,
        worst_frames,
    )

    results = {}
    for name, images in sets.items():
        with stages("predicting"):
            prediction = (
                potential.predict(images, disable_tqdm=False, stress="optional")
                if frames[name].has_stress
                else predict(potential, images, potential.has_forces, quiet=False, keep=keep)
            )
            results[name] = frames[name], prediction
    errors = {name: prediction_errors(*result) for name, result in results.items()}
    if errors:
        typer.echo(f"\n{error_table(errors)}")
    scaler = potential.target_scaler
    for name, (reference, prediction) in results.items():
        table = group_table(sets[name], reference, prediction)
        if table:
            typer.echo(f"\n{name}, by group\n{table}")
        typer.echo(f"\n{name}, worst frames\n{worst_frames(reference, prediction)}")
        references = scaler.references(reference.numbers, reference.counts)
        warnings = useless(reference, prediction, references + float(scaler.target_mean))
        for message in warnings + unfair_groups(sets[name], reference, prediction):
            logger.warning("warning: %s: %s", name, message)
    typer.echo(f"\n{stages.table()}")
    if folder is None:
        return
    typer.echo(f"\ncheckpoint:   {folder}")
    if results:
        parity_plot(folder / "parity.png", results)
        typer.echo(f"parity plot:  {folder / 'parity.png'}")


@contextmanager
def _run_of(
    config: "Config", resume: Path | None, ranks: "Ranks"
) -> "Iterator[tuple[Path | None, Checkpoint | None]]":
    """Make the folder of a run, or take that of the one to go on with; give it, and what the one to
    go on with has come to. Nobody else writes to it meanwhile."""
    from amptorch.training.restart import newest_state, run_to_resume
    from amptorch.training.run_folder import lock_run, new_run

    if resume is None:
        with new_run(config.cmd, ranks) as folder:
            yield folder, None
        return
    run = Path(ranks.from_first(lambda: str(run_to_resume(resume, config.cmd))))
    with lock_run(run if ranks.first else None):
        state = newest_state(run)
        yield run, None if state is None else state.checkpoint
