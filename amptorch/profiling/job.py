"""Do the work that is profiled: preprocess frames, train, predict them, and run dynamics."""

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.io import iread
from ase.md.verlet import VelocityVerlet

from amptorch.config import Config
from amptorch.training.fit import fit
from amptorch.training.prepare import prepare

PHASES = ("preprocessing", "training", "prediction", "dynamics")
# Frames that are read and predicted in one go: the whole trajectory need not fit in memory.
CHUNK = 256

MD_STEP = 0.5  # fs
MD_TEMPERATURE = 300.0  # K
MD_TURN = 20  # steps after which the atoms go back the way they came
# Atoms this much heavier hardly feel forces: those of a potential that was trained for a minute
# would blow the structure up, and with it the number of neighbours.
MD_MASS = 1e6

# A context in which a phase of this name is measured.
Phase = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Job:
    """Hold what is to be done, in JSON's types.

    config: sections of the configuration, without data; data: path of the frames; work: folder for
    all files that are made on the way; in_memory: no store is made.
    """

    config: dict[str, dict]
    data: str
    n_frames: int
    md_steps: int
    work: str
    in_memory: bool = False

    def run(
        self, name: str, phase: Phase, images: list[Atoms] | None = None, **dataset: Any
    ) -> dict[str, Any]:
        """Train, predict all frames, and run dynamics with the largest of them.

        name: of the folder in `work` for the files of this run; phase: context that is entered for
        each of PHASES; images: frames in place of all; dataset: options in place of the
        configuration's. Returns "frames", "epochs", and "atoms": the number of atoms treated in
        each phase, all epochs and steps together.
        """
        folder = Path(self.work) / name
        folder.mkdir()
        data = self.data if images is None else images
        if not self.in_memory:
            dataset["store"] = str(folder / "store")
        settings = Config.from_dict(
            {
                **self.config,
                "dataset": {**self.config["dataset"], **dataset},
                "cmd": {**self.config["cmd"], "run_dir": str(folder)},
            }
        )
        logger = logging.getLogger("amptorch")
        level = logger.level
        logger.setLevel(logging.WARNING)
        try:
            return self._run(settings, data, folder / "potential", phase)
        finally:
            logger.setLevel(level)

    def _run(self, settings: Config, data: Any, folder: Path, phase: Phase) -> dict[str, Any]:
        with phase("preprocessing"):
            prepared = prepare(settings, data)
        with phase("training"):
            potential = fit(prepared, folder=folder, resume=True)
        frames, atoms, largest = 0, 0, Atoms()
        with phase("prediction"):
            for chunk in chunks_of(data):
                potential.predict(chunk)
                frames += len(chunk)
                atoms += sum(len(image) for image in chunk)
                largest = max([largest, *chunk], key=len)
        with phase("dynamics"):
            move(largest.copy(), potential.get_calc(), self.md_steps)
        epochs = len(potential.history)
        treated = (atoms, epochs * atoms, atoms, self.md_steps * len(largest))
        atoms_of = dict(zip(PHASES, treated, strict=True))
        return {"frames": frames, "epochs": epochs, "atoms": atoms_of}


def chunks_of(data: str | list[Atoms]) -> Iterator[list[Atoms]]:
    """Yield lists of at most CHUNK frames of `data`, a path or a list of frames."""
    images = iter(data) if isinstance(data, list) else iread(data)
    yield from iter(lambda: list(itertools.islice(images, CHUNK)), [])


def move(atoms: Atoms, calculator: Calculator, steps: int) -> None:
    """Run dynamics along thermal velocities; see MD_MASS."""
    spread = np.sqrt(units.kB * MD_TEMPERATURE / atoms.get_masses())
    velocities = np.random.default_rng(0).normal(size=(len(atoms), 3)) * spread[:, None]
    atoms.set_masses(MD_MASS * atoms.get_masses())
    atoms.set_velocities(velocities)
    atoms.calc = calculator
    dynamics = VelocityVerlet(atoms, MD_STEP * units.fs)
    for done in range(0, steps, MD_TURN):
        dynamics.run(min(MD_TURN, steps - done))
        atoms.set_momenta(-atoms.get_momenta())
