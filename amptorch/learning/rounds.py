"""Learn on the fly: rounds of dynamics with a guard, selection, labels and training.

| file in `round-NNN/` | what it holds |
|---|---|
| `candidates.traj` | frames where trust was lost; missing where there were none |
| `dynamics.json` | picoseconds, runs, and how many of them lost trust |
| `chosen.traj` | those that are worth labelling |
| `labelled.traj`, `failed.json` | with labels; why the others have none |
| `model/` | the potential that was trained on the first frames and on all labelled so far |

Each is there as a whole or not at all, so that a call that was killed goes on with what is missing.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from amptorch.checkpoints.config import config_from_json, config_to_json
from amptorch.config import Config
from amptorch.files import read_json, write_json
from amptorch.frames import read_images
from amptorch.learning.labelling import Labeller
from amptorch.learning.settings import LearningConfig
from amptorch.loading import load
from amptorch.locks import locked
from amptorch.md import Guard, draw_momenta
from amptorch.novelty import check_elements, select
from amptorch.potential import Potential
from amptorch.training.fit import fit
from amptorch.training.prepare import prepare
from amptorch.writing import replacing

logger = logging.getLogger(__name__)

# ps, that a run goes on at most after trust is lost.
AFTER = 1.0
# Epochs, of trainings that end by their time.
MANY = 100_000
# Of `dynamics.json`.
KEYS = ("picoseconds", "runs", "lost")


@dataclass(frozen=True)
class Learned:
    """Hold what learning gave: the `potential`, its folder, the number of labelled frames beside
    the first ones, the rounds, and whether the guard was silent at the end."""

    potential: Potential
    folder: Path
    labelled: int
    rounds: int
    silent: bool


def learn(
    start: Any,
    labeller: Labeller,
    folder: str | os.PathLike[str],
    settings: LearningConfig | None = None,
    rounds: int = 10,
    model: str | os.PathLike[str] | None = None,
) -> Learned:
    """Return a potential that has learned from the frames where its dynamics lost trust.

    start : frames with energies and forces, list of Atoms or what `read_images` reads; dynamics
        begin with them and with those that were labelled
    labeller : what `make_labeller` gave
    folder : where each round keeps its files; what is there already is not done again
    settings : of the dynamics, the labels and the trainings
    rounds : at most so many; it ends before, when dynamics of `settings.silent` picoseconds lose no
        trust
    model : folder of the potential to begin with; None to train one on `start`

    Raises ValueError that names the elements which the model does not know, the frame that cannot
    be used, or where no frame of a round could be labelled; BlockingIOError where another process
    learns in that folder.
    """
    first, place = read_images(start), Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    busy = (
        f"another process learns in {str(place)!r}; wait until it has ended, or give another --out"
    )
    with locked(place / ".lock", busy, remove=True):
        return _learn(first, labeller, place, settings or LearningConfig(), rounds, model)


def _learn(
    first: list[Atoms],
    labeller: Labeller,
    place: Path,
    settings: LearningConfig,
    rounds: int,
    model: str | os.PathLike[str] | None,
) -> Learned:
    potential, at = _first_potential(first, place, settings, model)
    check_elements(potential, first)
    frames, labelled = list(first), 0
    for number in range(rounds):
        here = place / f"round-{number:03d}"
        here.mkdir(exist_ok=True)
        if not (here / "dynamics.json").exists():
            _move(potential, frames, here, settings, number)
        moved = read_json(here / "dynamics.json")
        logger.info("round %d: %.3g ps in %d runs, trust lost in %d", number, *map(moved.get, KEYS))
        if not moved["lost"]:
            return Learned(potential, at, labelled, number + 1, silent=True)
        if not (here / "labelled.traj").exists():
            _label(potential, here, labeller, settings)
        new: Any = read(here / "labelled.traj", ":")
        frames, labelled = frames + new, labelled + len(new)
        at = here / "model"
        if not at.exists():
            train_on(potential, frames, at, settings)
        potential = _loaded(at)
        logger.info("round %d: trained on %d frames, %d of them new", number, len(frames), len(new))
    return Learned(potential, at, labelled, rounds, silent=False)


def _first_potential(
    images: list[Atoms],
    place: Path,
    settings: LearningConfig,
    model: str | os.PathLike[str] | None,
) -> tuple[Potential, Path]:
    at = place / "first" if model is None else Path(model)
    if model is None and not at.exists():
        config = _merged({"defaults": "recommended", "size": settings.size}, settings)
        with _new_folder(at) as unfinished:
            fit(prepare(config, images), folder=unfinished)
    return _loaded(at), at


def _loaded(at: Path) -> Potential:
    found = load(at)
    if not isinstance(found, Potential):
        raise ValueError(f"{at} holds an ensemble; learning goes on with one potential")
    return found


def _merged(config: dict[str, Any], settings: LearningConfig) -> dict[str, Any]:
    """Return a configuration with the time and the sections that the settings give."""
    sections = {**settings.training}
    optim = {"total_seconds": settings.seconds, **(sections.get("optim") or {})}
    if "total_seconds" in optim and "epochs" not in optim:
        optim["epochs"] = MANY
    cmd = {"verbose": False, "seed": settings.seed, **(sections.get("cmd") or {})}
    merged = dict(config)
    for name, values in {**sections, "optim": optim, "cmd": cmd}.items():
        merged[name] = {**merged.get(name, {}), **(values or {})}
    return merged


def train_on(
    potential: Potential, images: Sequence[Atoms], at: Path, settings: LearningConfig
) -> None:
    """Write the potential that goes on from the weights of another, on more frames."""
    if potential.settings is None:
        raise ValueError("a potential that was made by hand cannot be trained on")
    config = _merged(config_from_json(config_to_json(potential.settings)), settings)
    data = prepare(Config.from_dict(config), list(images), trained=potential)
    with _new_folder(at) as unfinished:
        fit(data, start=potential, folder=unfinished)


def _move(
    potential: Potential,
    frames: Sequence[Atoms],
    here: Path,
    settings: LearningConfig,
    round_number: int,
) -> None:
    """Run dynamics until trust was lost in as many runs as frames are labelled, or the time that
    must be silent is over; write the candidates."""
    random = np.random.default_rng((settings.seed, round_number))
    candidates: list[Atoms] = []
    passed, runs, lost = 0.0, 0, 0
    while passed < settings.silent and lost < settings.frames:
        guard = _run(potential, frames[int(random.integers(len(frames)))], settings, random)
        runs, lost = runs + 1, lost + (guard.lost > 0)
        until = guard.frames[0].info["step"] if guard.frames else guard.dynamics.nsteps
        # A run that is lost at once takes time, too.
        steps = max(until, settings.interval)
        passed += steps * settings.timestep / 1000
        candidates += guard.frames
    if candidates:
        _write(here / "candidates.traj", candidates)
    write_json(here / "dynamics.json", dict(zip(KEYS, (passed, runs, lost), strict=True)))


def _run(
    potential: Potential, start: Atoms, settings: LearningConfig, random: np.random.Generator
) -> Guard:
    """Run dynamics, and some way beyond where trust is lost: frames there teach more than those at
    the border (L. Zhang et al., Phys. Rev. Mater. 3, 023804 (2019))."""
    atoms = start.copy()
    atoms.calc = calculator = potential.get_calc()
    draw_momenta(atoms, settings.temperature, random)
    step = settings.timestep * units.fs
    if settings.method == "langevin":
        dynamics: Any = Langevin(
            atoms,
            step,
            temperature_K=settings.temperature,
            friction=settings.friction / units.fs,
            fixcm=False,
            rng=random,
        )
    else:
        dynamics = VelocityVerlet(atoms, step)
    guard = Guard(dynamics, action="go on", margin=settings.margin)
    longest, limit = 1000 * AFTER / settings.timestep, settings.beyond * (1 + settings.margin)

    def look() -> None:
        guard()
        if guard.frames:
            found = calculator.extrapolation
            far = np.inf if found is None else float(found.score.max())
            if far > limit or dynamics.nsteps - guard.frames[0].info["step"] >= longest:
                guard.stop()

    dynamics.attach(look, interval=settings.interval)
    with warnings.catch_warnings():
        # The guard says it, and keeps the frame.
        warnings.filterwarnings("ignore", message=".*farthest from the training atoms")
        dynamics.run(max(1, round(1000 * settings.run / settings.timestep)))
    return guard


def _label(potential: Potential, here: Path, labeller: Labeller, settings: LearningConfig) -> None:
    candidates: Any = read(here / "candidates.traj", ":")
    chosen, _ = select(potential, candidates, settings.frames)
    images = [candidates[k] for k in chosen]
    _write(here / "chosen.traj", images)
    labelled, reasons = labeller(images)
    for k, reason in reasons.items():
        logger.warning("%s, frame %d is left out: %s", here / "chosen.traj", k, reason)
    if not labelled:
        raise ValueError(f"none of the frames in {here / 'chosen.traj'} could be labelled")
    write_json(here / "failed.json", reasons)
    _write(here / "labelled.traj", labelled)


def _write(path: Path, images: Sequence[Atoms]) -> None:
    with replacing(path) as unfinished:
        write(unfinished, images, format="traj")


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to write to, which gets its name at the end."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    yield unfinished
    os.replace(unfinished, path)
