"""Watch dynamics and relaxations: keep the frames where the potential cannot be trusted."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import chemical_symbols
from ase.io import write
from ase.md.md import MolecularDynamics

from amptorch.calculator import AmpTorch, EnsembleCalculator
from amptorch.checks import choice, number
from amptorch.extrapolation import MARGIN, NOT_KNOWN
from amptorch.frames import Frames
from amptorch.novelty import Place, places_of
from amptorch.writing import replacing

logger = logging.getLogger(__name__)

ACTIONS = ("stop", "go on", "back")
XYZ = (".xyz", ".extxyz")
# Frames differ where some atom's distance from all atoms of the other is at least this: as far as
# the farthest 1 % of the training atoms are from their mean.
ALIKE = 1.0
# Of ASE's dynamics, those that keep positions of their own, and write these over the atoms'.
KEEP_POSITIONS = ("NoseHooverChainNVT", "IsotropicMTKNPT", "MTKNPT", "MelchionnaNPT", "NPT")
# Of the smallest distance of training atoms: what no pair may be nearer than. And of the distance
# that was reported last: what is reported again.
NEARER = 0.9


class Guard:
    """Watch ASE dynamics or an optimiser that runs on an `AmpTorch` calculator.

    dynamics : the dynamics or optimiser; `dynamics.attach(guard, interval=5)` makes it look at
        every fifth step
    file : trajectory for the frames where trust is lost (.traj or .xyz), written anew with each;
        None to keep them in `frames` alone
    action : what is done there: "stop" the run, "go on", or go "back" to the last frame that was
        trusted; dynamics go on from there with new velocities of the same kinetic energy, an
        optimiser stops
    margin : trust is lost where an atom is farther from the training atoms than 1 + margin, or two
        atoms are nearer than 0.9 times the smallest distance of training atoms of these elements
    spread : eV/Å, of an ensemble: trust is lost, too, where the forces on an atom have a larger
        standard deviation; None for no such limit
    most : frames that are kept at most; of more, those that differ least are left out
    returns : times that it goes back, after which it stops
    seed : of the new velocities

    Attributes
    ----------
    frames : list of Atoms, without calculator; `info` has `step`, `extrapolation` and `reason`
    looks, lost, returned : how often it looked, trust was lost, and it went back
    silent : looks since trust was lost last
    stopped : whether it stopped the run

    Atoms that are nearer to each other than any two training atoms of their elements are reported
    in the log, each pair of elements again when it is nearer still. Where the checkpoint is too old
    to know its training atoms, that is said once, and only `spread` is looked at.

    Raises ValueError for an option of no meaning; where the atoms have no such calculator, or one
    with extrapolation "ignore" (it looks at nothing) or "raise" (it ends the run first); and for
    "back" with dynamics that keep positions of their own (Nosé-Hoover chains, MTK and Melchionna),
    which would go on from those. Raises FileNotFoundError where the folder of the file is missing.
    """

    def __init__(
        self,
        dynamics: Any,
        file: str | os.PathLike[str] | None = None,
        action: str = "stop",
        margin: float = MARGIN,
        spread: float | None = None,
        most: int = 100,
        returns: int = 20,
        seed: int = 0,
    ) -> None:
        self.dynamics = dynamics
        # A filter, such as those that relax cells, has its atoms inside.
        self.atoms: Atoms = getattr(dynamics.atoms, "atoms", dynamics.atoms)
        self.calculator = _checked_calculator(self.atoms)
        self.file = None if file is None else _checked_file(Path(file))
        self.action = _checked_action(action, dynamics)
        self.margin = number(minimum=0)("margin", margin)
        self.spread = None if spread is None else _checked_spread(spread, self.calculator)
        self.most = int(number(minimum=1, integer=True)("most", most))
        self.returns = int(number(minimum=0, integer=True)("returns", returns))
        self.random = np.random.default_rng(seed)
        self.frames: list[Atoms] = []
        self.looks = self.lost = self.returned = self.silent = 0
        self.stopped = False
        self._places: list[Place] = []
        self._alike = ALIKE
        self._trusted: Atoms | None = None
        self._nearest: dict[tuple[int, int], float] = {}
        potential = self.calculator.potential
        members = getattr(potential, "members", [potential])
        self._domain = members[0].domain
        if self._domain is None:
            logger.warning("%s", NOT_KNOWN)

    def __call__(self) -> None:
        """Look at the atoms as they are now."""
        self.looks += 1
        reason, far = self._reason()
        if not reason:
            self.silent += 1
            self._trusted = self.atoms.copy()
            return
        self.lost, self.silent = self.lost + 1, 0
        self._keep(reason, far)
        if self.action == "back":
            self._go_back()
        elif self.action == "stop":
            self.stop()

    def _reason(self) -> tuple[str, float]:
        """Return why the atoms are not trusted, empty where they are, and how far they are."""
        # Of these positions: computed already, unless something has moved them since.
        self.atoms.get_potential_energy()
        found = self.calculator.extrapolation
        reasons, far = [], 0.0
        if found is not None:
            far = float(found.score.max())
            if far > 1 + self.margin:
                reasons.append(str(found))
        if self.spread is not None:
            spread = np.linalg.norm(self.calculator.results["forces_uncertainty"], axis=1)
            atom = int(spread.argmax())
            if spread[atom] > self.spread:
                reasons.append(f"forces on atom {atom} spread by {spread[atom]:.3g} eV/Å")
        return "; ".join(reasons + self._close_pairs()), far

    def _close_pairs(self) -> list[str]:
        """Return words for pairs of elements that are much nearer than any training atoms; report
        all that are nearer."""
        if self._domain is None or not self._domain.pairs:
            return []
        frames = Frames.from_atoms([self.atoms])
        pairs = self.calculator.neighbors.update(frames)
        lengths = np.sqrt(np.einsum("ij,ij->i", pairs.vectors, pairs.vectors))
        ends = np.sort([frames.numbers[pairs.centers], frames.numbers[pairs.neighbors]], axis=0)
        words = []
        for (a, b), smallest in self._domain.pairs.items():
            here = lengths[(ends[0] == a) & (ends[1] == b)].min(initial=np.inf)
            if here >= smallest:
                continue
            names = f"{chemical_symbols[a]}-{chemical_symbols[b]}"
            text = f"{names} at {here:.3f} Å, nearer than any in the training ({smallest:.3f} Å)"
            if here < self._nearest.get((a, b), np.inf):
                self._nearest[a, b] = NEARER * here
                logger.warning("step %d: %s", self.dynamics.nsteps, text)
            if here < NEARER * smallest:
                words.append(text)
        return words

    def _keep(self, reason: str, far: float) -> None:
        """Keep a copy of the frame, unless it is like one that is kept already."""
        copy = self.atoms.copy()
        copy.info.update(step=self.dynamics.nsteps, extrapolation=far, reason=reason)
        if self._domain is not None and self._domain.has_distances:
            (place,) = places_of(self.calculator.potential, [copy])
            if self._places and place.novelty(self._places) < self._alike:
                return
            self._places.append(place)
        elif len(self.frames) == self.most:
            return
        self.frames.append(copy)
        while len(self.frames) > self.most:
            self._thin()
        if self.file is not None:
            with replacing(self.file) as unfinished:
                write(unfinished, self.frames, format=_format(self.file))

    def _thin(self) -> None:
        """Leave out frames that are like ones before, with twice the distance that makes them
        differ (T. Feder, D. H. Greene, STOC 1988)."""
        self._alike *= 2
        kept: list[int] = []
        for k, place in enumerate(self._places):
            others = [self._places[other] for other in kept]
            if not others or place.novelty(others) >= self._alike:
                kept.append(k)
        self.frames = [self.frames[k] for k in kept]
        self._places = [self._places[k] for k in kept]

    def _go_back(self) -> None:
        if self._trusted is None or self.returned == self.returns:
            self.stop()
            return
        self.returned += 1
        self.atoms.set_cell(self._trusted.cell)
        # As they were, though something holds atoms in place.
        self.atoms.set_positions(self._trusted.positions, apply_constraint=False)
        if not isinstance(self.dynamics, MolecularDynamics):
            self.stop()
            return
        energy = self._trusted.get_kinetic_energy()
        draw_momenta(self.atoms, 300.0, self.random)
        drawn = self.atoms.get_kinetic_energy()
        if drawn > 0:
            self.atoms.set_momenta(self.atoms.get_momenta() * np.sqrt(energy / drawn))
        # What dynamics look at next belongs to these atoms.
        self.atoms.get_potential_energy()

    def stop(self) -> None:
        """End the run after this step."""
        self.stopped = True
        self.dynamics.max_steps = self.dynamics.nsteps


def draw_momenta(atoms: Atoms, temperature: float, random: np.random.Generator) -> None:
    """Give atoms momenta out of the Maxwell-Boltzmann distribution at a temperature, K."""
    widths = np.sqrt(units.kB * temperature * atoms.get_masses())[:, None]
    atoms.set_momenta(widths * random.normal(size=(len(atoms), 3)))


def _checked_calculator(atoms: Atoms) -> AmpTorch:
    calculator = getattr(atoms, "calc", None)  # the images of a band have several
    if not isinstance(calculator, AmpTorch):
        raise ValueError(f"a guard needs atoms with an AmpTorch calculator, got {calculator!r}")
    if calculator.watch.kind != "warn":
        raise ValueError(
            f"the calculator has extrapolation {calculator.watch.kind!r}; a guard needs 'warn'"
        )
    return calculator


def _checked_action(action: str, dynamics: Any) -> str:
    choice(*ACTIONS)("action", action)
    names = [kind.__name__ for kind in type(dynamics).__mro__]
    if action == "back" and any(name in KEEP_POSITIONS for name in names):
        raise ValueError(
            f"{names[0]} keeps positions of its own and cannot be taken back; take action 'stop' "
            "or 'go on', or other dynamics, such as Langevin, Bussi or NPTBerendsen"
        )
    return action


def _checked_spread(spread: float, calculator: AmpTorch) -> float:
    spread = float(number(above=0)("spread", spread))
    ensemble = isinstance(calculator, EnsembleCalculator)
    if not ensemble or not calculator.potential.has_forces:
        raise ValueError(
            f"spread is {spread:g}, but the calculator gives no spread of forces: take that of an "
            "ensemble, ensemble.get_calc(), or leave spread out"
        )
    return spread


def _checked_file(file: Path) -> Path:
    if file.suffix not in (".traj", *XYZ):
        raise ValueError(f"{str(file)!r} must end in .traj or .xyz")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(file.parent)!r} for {file.name!r}")
    return file


def _format(file: Path) -> str:
    return "extxyz" if file.suffix in XYZ else "traj"
