"""Measure what learning on the fly gains over random frames, at the same number of labels.

    python benchmarks/learning.py copper iron-water --folder learned --plot learned.svg

The true potential is known: ASE's EMT for copper, that of the generated frames for water on iron. Its
dynamics give 20 frames at a temperature. `amptorch learn` goes on from them at twice the temperature,
for so many `--rounds`. After each, the error of its potential is compared with those of potentials
that were trained in the same steps on random frames instead:

- of the dynamics that the first potential gives at twice the temperature (nobody has better ones
  before the labels are paid);
- of the true dynamics at twice the temperature (each step of which costs as much as a label).

The test frames are of other true dynamics at twice the temperature. At the end the last potential
runs with the guard, from a start and with velocities that it has not seen. What is in the folder
already is not done again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
# Between two frames, fs.
APART, WARM = 100.0, 5000.0
FRICTION = 0.01


@dataclass(frozen=True)
class System:
    """Hold a calculator by its name, a start, the temperature (K) of the first frames, and the
    time step (fs)."""

    label: str
    start: Callable[[], Atoms]
    temperature: float
    timestep: float


def water_on_iron() -> Atoms:
    """Return iron with eight molecules."""
    from amptorch.datasets import iron_water

    return iron_water(1, min_water=8, max_water=8)[0]


SYSTEMS = {
    "copper": System("emt", lambda: bulk("Cu", "fcc", a=3.62, cubic=True) * (2, 2, 2), 400.0, 2.0),
    "iron-water": System("amptorch.datasets:IronWater", water_on_iron, 150.0, 0.5),
}


def moving(atoms: Atoms, calculator: Any, temperature: float, timestep: float, seed: int) -> Any:
    """Return Langevin dynamics of a copy of the atoms."""
    from amptorch.md import draw_momenta

    random, copy = np.random.default_rng(seed), atoms.copy()
    copy.calc = calculator
    draw_momenta(copy, temperature, random)
    return Langevin(
        copy,
        timestep * units.fs,
        temperature_K=temperature,
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=random,
    )


def frames_of(dynamics: Any, timestep: float, number: int, first: float) -> list[Atoms]:
    """Return frames of dynamics `APART` fs apart, after the `first` fs."""
    dynamics.run(round(first / timestep))
    found = []
    for _ in range(number):
        dynamics.run(round(APART / timestep))
        found.append(dynamics.atoms.copy())
    return found


def calculator_of(system: System) -> Any:
    """Return the true calculator."""
    from ase.calculators.emt import EMT

    from amptorch.datasets import IronWater

    return EMT() if system.label == "emt" else IronWater()


def labelled(system: System, images: Sequence[Atoms]) -> list[Atoms]:
    """Return frames with labels; RuntimeError where one fails."""
    from amptorch.learning import make_labeller

    found, failed = make_labeller(system.label)(images)
    if failed:
        raise RuntimeError(str(failed))
    return found


def kept(path: Path, make: Callable[[], list[Atoms]]) -> list[Atoms]:
    """Return the frames in a file, which is made if it is not there."""
    if not path.is_file():
        write_frames(path, make())
    found: Any = read(path, ":")
    return found


def errors(potential: Any, frames: Sequence[Atoms]) -> tuple[float, float]:
    """Return root mean square errors of energies, meV/atom, and forces, eV/Å."""
    found = potential.predict(list(frames))
    energies = [(e - a.get_potential_energy()) / len(a) for e, a in zip(found["energy"], frames)]
    forces = np.concatenate(found["forces"]) - np.concatenate([a.get_forces() for a in frames])
    return 1e3 * float(np.sqrt(np.mean(np.square(energies)))), float(np.sqrt((forces**2).mean()))


def trained_on(potential: Any, frames: list[Atoms], settings: Any, place: Path) -> Any:
    """Return a potential that goes on from another as `learn` does, kept in a folder."""
    import amptorch
    from amptorch.learning.rounds import train_on

    if not place.exists():
        train_on(potential, frames, place, settings)
    return amptorch.load(place)


def curves(system: System, place: Path, settings: Any, rounds: int) -> dict[str, list[Any]]:
    """Return {way: [(labels, meV/atom, eV/Å) of each round]}, and how far the last dynamics were."""
    import amptorch
    from amptorch.learning import learn, make_labeller

    place.mkdir(parents=True, exist_ok=True)
    label, step = make_labeller(system.label), system.timestep
    hot = 2 * system.temperature

    def true(temperature: float, seed: int, number: int) -> Callable[[], list[Atoms]]:
        def make() -> list[Atoms]:
            dynamics = moving(system.start(), calculator_of(system), temperature, step, seed)
            return labelled(system, frames_of(dynamics, step, number, WARM))

        return make

    first = kept(place / "first.traj", true(system.temperature, 0, FIRST))
    test = kept(place / "test.traj", true(hot, 1, TESTED))
    found = learn(first, label, place / "learn", settings, rounds)
    start = amptorch.load(place / "learn" / "first")

    pools = {
        "random, colder": kept(place / "colder.traj", true(system.temperature, 3, POOL)),
        "random, true dynamics": kept(place / "true.traj", true(hot, 2, POOL)),
    }
    result: dict[str, list[Any]] = {"learn": [], **{name: [] for name in pools}}
    chains = dict.fromkeys(pools, start)
    for line in result.values():
        line.append((FIRST, *errors(start, test)))
    labels = FIRST
    for here in sorted((place / "learn").glob("round-*/model")):
        labels += len(read(here.parent / "labelled.traj", ":"))
        result["learn"].append((labels, *errors(amptorch.load(here), test)))
        for name, pool in pools.items():
            order = np.random.default_rng(settings.seed).permutation(len(pool))[: labels - FIRST]
            frames = first + [pool[k] for k in order]
            folder = place / name.replace(", ", "-").replace(" ", "-") / here.parent.name
            folder.parent.mkdir(exist_ok=True)
            chains[name] = trained_on(chains[name], frames, settings, folder)
            result[name].append((labels, *errors(chains[name], test)))
        print({name: line[-1] for name, line in result.items()}, flush=True)
    print("silent:", found.silent, "rounds:", found.rounds, flush=True)
    return result


def main() -> None:
    """Measure, print a table and draw."""
    from amptorch.learning import LearningConfig

    parser = parser_of(__doc__, rounds=8, frames=5, epochs=320, silent=20, seed=0)
    parser.add_argument("systems", nargs="+", choices=sorted(SYSTEMS))
    parser.add_argument("--folder", type=Path, default=Path("learned"))
    parser.add_argument("--plot", type=Path, help="a picture of the curves")
    options = parser.parse_args()
    for name in options.systems:
        system = SYSTEMS[name]
        settings = LearningConfig(
            temperature=2 * system.temperature,
            timestep=system.timestep,
            friction=FRICTION,
            run=options.silent,
            silent=options.silent,
            frames=options.frames,
            seed=options.seed,
            training={
                "model": {"members": 4},
                "optim": {"epochs": options.epochs, "total_seconds": None},
            },
        )
        found = curves(system, options.folder / name, settings, options.rounds)
        print(name, found)


if __name__ == "__main__":
    main()
