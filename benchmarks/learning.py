"""Measure what learning on the fly gains over random frames, at the same number of labels.

    python benchmarks/learning.py copper iron-water --folder learned --plot learned.svg

The true potential is known: ASE's EMT for copper, that of the generated frames for water on iron.
Its dynamics give 20 frames at a temperature. `amptorch learn` goes on from them at twice the
temperature, until the guard is silent for so long as it says below, or for so many `--rounds`.
After each round the errors of its potential stand beside those of potentials that were trained in
the same steps on as many random frames instead:

- random, true dynamics: of the true dynamics at twice the temperature. Nobody has these for the
  price of the labels, since each step of them costs one;
- random, colder: more of the frames to begin with, as who has no `learn` would label.

All are tested on frames of other true dynamics at twice the temperature. Trainings have a number of
epochs and not a time, so that the load of the machine changes nothing. What is in the folder
already is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import read
from ase.io import write as write_frames
from ase.md.langevin import Langevin
from measuring import markdown, parser_of, write
from setups import machine

FIRST, TESTED, POOL = 20, 100, 200
# fs, between two frames, and before the first.
APART, BEFORE = 100.0, 5000.0
FRICTION = 0.01
RANDOM = ("random, true dynamics", "random, colder")

# {way: [(labels, meV/atom, eV/Å) after each round]}
Curves = dict[str, list[tuple[int, float, float]]]


@dataclass(frozen=True)
class System:
    """Hold the name of the true calculator, a start, the temperature (K) of the first frames, the
    time step (fs), and how long the guard must be silent (ps)."""

    label: str
    start: Callable[[], Atoms]
    temperature: float
    timestep: float
    silent: float


def copper() -> Atoms:
    """Return 32 atoms."""
    return bulk("Cu", "fcc", a=3.62, cubic=True) * (2, 2, 2)


def iron_water() -> Atoms:
    """Return 32 atoms of iron and eight molecules."""
    from amptorch.datasets import iron_water

    return iron_water(1, min_water=8, max_water=8)[0]


SYSTEMS = {
    "copper": System("ase.calculators.emt:EMT", copper, 400.0, 2.0, 20.0),
    "iron-water": System("amptorch.datasets:IronWater", iron_water, 150.0, 0.5, 20.0),
}


def true_frames(system: System, temperature: float, seed: int, number: int) -> list[Atoms]:
    """Return labelled frames of true Langevin dynamics, `APART` fs apart."""
    from amptorch.learning import make_labeller
    from amptorch.md import draw_momenta

    random, atoms = np.random.default_rng(seed), system.start()
    label = make_labeller(system.label)
    atoms.calc = calculator_of(system)
    draw_momenta(atoms, temperature, random)
    dynamics = Langevin(
        atoms,
        system.timestep * units.fs,
        temperature_K=temperature,
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=random,
    )
    dynamics.run(round(BEFORE / system.timestep))
    found = []
    for _ in range(number):
        dynamics.run(round(APART / system.timestep))
        found.append(atoms.copy())
    return label(found)[0]


def calculator_of(system: System) -> Any:
    """Return the true calculator."""
    module, _, name = system.label.partition(":")
    return getattr(__import__(module, fromlist=[name]), name)()


def kept(path: Path, make: Callable[[], list[Atoms]]) -> list[Atoms]:
    """Return the frames in a file, which is made if it is not there."""
    if not path.is_file():
        write_frames(path, make())
    found: Any = read(path, ":")
    return found


def errors(potential: Any, frames: Sequence[Atoms]) -> tuple[float, float]:
    """Return root mean square errors of energies, meV/atom, and forces, eV/Å."""
    found = potential.predict(list(frames))
    true = [atoms.get_potential_energy() for atoms in frames]
    energies = (np.array(found["energy"]) - true) / [len(atoms) for atoms in frames]
    forces = np.concatenate(found["forces"]) - np.concatenate([a.get_forces() for a in frames])
    return 1e3 * float(np.sqrt((energies**2).mean())), float(np.sqrt((forces**2).mean()))


def curves(system: System, place: Path, settings: Any, rounds: int) -> tuple[Curves, list[Any]]:
    """Return the curves, and what the dynamics of each round were."""
    import amptorch
    from amptorch.learning import learn, make_labeller
    from amptorch.learning.rounds import train_on

    place.mkdir(parents=True, exist_ok=True)
    cold, hot = system.temperature, 2 * system.temperature
    frames = partial(true_frames, system)
    first = kept(place / "first.traj", lambda: frames(cold, 0, FIRST))
    test = kept(place / "test.traj", lambda: frames(hot, 1, TESTED))
    pools = {
        RANDOM[0]: kept(place / "true.traj", lambda: frames(hot, 2, POOL)),
        RANDOM[1]: kept(place / "colder.traj", lambda: frames(cold, 3, POOL)),
    }
    learn(first, make_labeller(system.label), place / "learn", settings, rounds)
    start = amptorch.load(place / "learn" / "first")
    found: Curves = {way: [(FIRST, *errors(start, test))] for way in ("learn", *RANDOM)}
    last, labels = dict.fromkeys(RANDOM, start), FIRST
    order = np.random.default_rng(settings.seed).permutation(POOL)
    for here in sorted((place / "learn").glob("round-*/model")):
        labels += len(read(here.parent / "labelled.traj", ":"))
        found["learn"].append((labels, *errors(amptorch.load(here), test)))
        for way in RANDOM:
            folder = place / way.replace(", ", "-").replace(" ", "-") / here.parent.name
            folder.parent.mkdir(exist_ok=True)
            if not folder.exists():
                some = [pools[way][k] for k in order[: labels - FIRST]]
                train_on(last[way], first + some, folder, settings)
            last[way] = amptorch.load(folder)
            found[way].append((labels, *errors(last[way], test)))
    told = sorted((place / "learn").glob("round-*/dynamics.json"))
    return found, [json.loads(path.read_text()) for path in told]


def draw(path: Path, every: dict[str, Curves]) -> None:
    """Draw the force errors of all systems over the labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(every), 3.2), layout="constrained")
    for axes, (name, found) in zip(
        np.atleast_1d(figure.subplots(1, len(every))), every.items(), strict=True
    ):
        for (way, points), style in zip(found.items(), ("o-", "s--", "^:"), strict=True):
            labels, _, forces = zip(*points, strict=True)
            axes.plot(labels, forces, style, ms=4, lw=1.2, label=way)
        axes.set(title=name, xlabel="labelled frames", yscale="log")
        axes.set_ylabel("RMSE of forces at twice the temperature (eV/Å)", fontsize=8)
        axes.legend(fontsize=7, frameon=False)
    figure.savefig(path)


def main() -> None:
    """Measure, print a table and draw."""
    from amptorch.learning import LearningConfig

    parser = parser_of(__doc__, rounds=8, frames=5, epochs=320, seed=0)
    parser.add_argument("systems", nargs="+", choices=sorted(SYSTEMS))
    parser.add_argument("--folder", type=Path, default=Path("learned"), help="for all files")
    parser.add_argument("--plot", type=Path, help="a picture of the curves")
    options = parser.parse_args()
    every: dict[str, Curves] = {}
    dynamics: dict[str, Any] = {}
    for name in options.systems:
        system = SYSTEMS[name]
        settings = LearningConfig(
            temperature=2 * system.temperature,
            timestep=system.timestep,
            friction=FRICTION,
            run=system.silent,
            silent=system.silent,
            frames=options.frames,
            seed=options.seed,
            training={
                "model": {"members": 4},
                "optim": {"epochs": options.epochs, "total_seconds": None},
            },
        )
        found = curves(system, options.folder / name, settings, options.rounds)
        every[name], dynamics[name] = found
        rows = []
        for points in zip(*every[name].values(), strict=True):
            forces = [point[2] for point in points]
            row = [f"{name}, {points[0][0]}", *(f"{1000 * error:.1f}" for error in forces)]
            rows.append([*row, *(f"{forces[0] / error:.2f}" for error in forces[1:])])
        print(markdown("| labels | learn | true | colder | / true | / colder |", 1, rows))
        print(*dynamics[name], sep="\n", flush=True)
    if options.plot is not None:
        draw(options.plot, every)
    write(options.json, machine(), curves=every, dynamics=dynamics)


if __name__ == "__main__":
    main()
