"""Measure what learning on the fly gains over random frames, at the same number of labels.

    python benchmarks/learning.py copper iron-water --folder learned --json learned.json

The true potential is known: ASE's EMT for copper, that of the generated frames for water on iron.
Its dynamics give 20 frames at a temperature. `amptorch learn` goes on from them at twice the
temperature, until the guard is silent for 20 ps, or for so many `--rounds`.
After each round the errors of its potential stand beside those of potentials that were trained in
the same steps on as many random frames instead:

- true: of the true dynamics at twice the temperature. Nobody has these for the price of the labels,
  since each step of them costs one;
- colder: more of the frames to begin with, as who has no `learn` would label.

All are tested on frames of other true dynamics at twice the temperature. Trainings have a number of
epochs and not a time, so that the load of the machine changes nothing. What was trained into the
folder already is not done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from ase.md.langevin import Langevin
from setups import machine, parser_of, table, write

import amptorch
from amptorch.datasets import IronWater, iron_water
from amptorch.learning import LearningConfig, learn
from amptorch.learning.labelling import label
from amptorch.learning.rounds import train_on
from amptorch.md import draw_momenta
from amptorch.metrics import rms

FIRST, TESTED, POOL = 20, 100, 200
# fs, between two frames, and before the first.
APART, BEFORE = 100.0, 5000.0
FRICTION = 0.01  # 1/fs
SILENT = 20.0  # ps

# {way: [(labels, eV/Å) after each round]}
Curves = dict[str, list[tuple[int, float]]]


class System(NamedTuple):
    """Hold the true calculator, a start, the temperature (K) of the first frames, and the time step
    (fs)."""

    calculator: type
    start: Atoms
    temperature: float
    timestep: float


SYSTEMS = {
    "copper": System(EMT, bulk("Cu", "fcc", a=3.62, cubic=True) * (2, 2, 2), 400.0, 2.0),
    "iron-water": System(IronWater, iron_water(1, min_water=8, max_water=8)[0], 150.0, 0.5),
}


def true_frames(system: System, temperature: float, seed: int, number: int) -> list[Atoms]:
    """Return labelled frames of true Langevin dynamics, `APART` fs apart."""
    random, atoms = np.random.default_rng(seed), system.start.copy()
    atoms.calc = system.calculator()
    draw_momenta(atoms, temperature, random)
    step, friction = system.timestep * units.fs, FRICTION / units.fs
    dynamics = Langevin(
        atoms, step, temperature_K=temperature, friction=friction, fixcm=False, rng=random
    )
    dynamics.run(round(BEFORE / system.timestep))
    found = []
    for _ in range(number):
        dynamics.run(round(APART / system.timestep))
        found.append(atoms.copy())
    return label(system.calculator, found)[0]


def error(potential: Any, frames: Sequence[Atoms]) -> float:
    """Return the root mean square error of forces, eV/Å."""
    predicted = np.concatenate(potential.predict(list(frames))["forces"])
    return rms(predicted - np.concatenate([atoms.get_forces() for atoms in frames]))


def curves(system: System, place: Path, settings: LearningConfig, rounds: int) -> Curves:
    """Learn, and train on as many random frames."""
    cold, hot = system.temperature, 2 * system.temperature
    first = true_frames(system, cold, 0, FIRST)
    test = true_frames(system, hot, 1, TESTED)
    pools = {
        "true": true_frames(system, hot, 2, POOL),
        "colder": true_frames(system, cold, 3, POOL),
    }
    learn(first, partial(label, system.calculator), place / "learn", settings, rounds)
    start = amptorch.load(place / "learn" / "first")
    found: Curves = {way: [(FIRST, error(start, test))] for way in ("learn", *pools)}
    last, labels = dict.fromkeys(pools, start), FIRST
    order = np.random.default_rng(settings.seed).permutation(POOL)
    for here in sorted((place / "learn").glob("round-*/model")):
        labels += len(read(here.parent / "labelled.traj", ":"))
        found["learn"].append((labels, error(amptorch.load(here), test)))
        for way, pool in pools.items():
            folder = place / way / here.parent.name
            folder.parent.mkdir(exist_ok=True)
            if not folder.exists():
                some = [pool[k] for k in order[: labels - FIRST]]
                train_on(last[way], first + some, folder, settings)
            last[way] = amptorch.load(folder)
            found[way].append((labels, error(last[way], test)))
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = parser_of(__doc__, rounds=8, frames=5, epochs=320, seed=0)
    parser.add_argument("systems", nargs="+", choices=sorted(SYSTEMS))
    parser.add_argument("--folder", type=Path, default=Path("learned"), help="for all files")
    options = parser.parse_args()
    every: dict[str, Curves] = {}
    for name in options.systems:
        system = SYSTEMS[name]
        settings = LearningConfig(
            temperature=2 * system.temperature,
            timestep=system.timestep,
            friction=FRICTION,
            run=SILENT,
            silent=SILENT,
            frames=options.frames,
            seed=options.seed,
            training={
                "model": {"members": 4},
                "optim": {"epochs": options.epochs, "total_seconds": None},
            },
        )
        every[name] = curves(system, options.folder / name, settings, options.rounds)
        rows = []
        for points in zip(*every[name].values(), strict=True):
            forces = [force for _, force in points]
            row = [f"{name}, {points[0][0]}", *(f"{1000 * force:.1f}" for force in forces)]
            rows.append([*row, *(f"{forces[0] / force:.2f}" for force in forces[1:])])
        header = ("labels", "learn", "true", "colder", "learn / true", "learn / colder")
        print(table(header, rows), flush=True)
    write(options.json, machine(), curves=every)


if __name__ == "__main__":
    main()
