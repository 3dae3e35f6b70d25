"""Generated frames of water on iron, for the demonstration, tests and benchmarks.

Nothing is simulated: a frame is a slab of iron and molecules on lattice sites, all displaced at
random as if by heat, with energy and forces from a smooth analytic potential
(`amptorch.kernels.water_iron`), so that the forces are its exact derivatives.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator

from amptorch.kernels.water_iron import energy_and_forces

# A 2 x 2 cell of a (100) surface with eight layers, 32 atoms; the lattice goes on, wider, as eleven
# layers of four sites for water, at about the density of the liquid.
CELL = np.array([7.21, 7.21, 37.74])
IRON_LAYERS, IRON_SPACING = 8, 1.72
WATER_LAYERS = 11
MOST_WATER = 4 * WATER_LAYERS

# Standard deviations of the random displacements: Å, and radians for the angle. A frame is cooler
# or hotter than that by a factor from this range.
IRON_DISORDER, WATER_DISORDER, BOND_DISORDER, ANGLE_DISORDER = 0.12, 0.2, 0.045, 0.1
HEAT = (0.5, 1.3)

BOND = np.array([4.8, 2.2, 0.96])  # D (eV), a (1/Å), r0 (Å): a force constant of 46 eV/Å²
ANGLE = np.radians(104.5)
BEND = np.array([3.5, np.cos(ANGLE)])  # k (eV), cosθ0
CUTOFF = 6.0
SPECIES = {26: 0, 8: 1, 1: 2}


def _morse_table() -> np.ndarray:
    pairs = {  # D (eV), a (1/Å), r0 (Å)
        ("Fe", "Fe"): (0.42, 1.39, 2.9),
        ("Fe", "O"): (0.20, 1.6, 2.3),
        ("Fe", "H"): (0.01, 1.6, 3.0),
        ("O", "O"): (0.02, 1.7, 3.3),
        ("O", "H"): (0.15, 2.2, 1.9),
        ("H", "H"): (0.005, 1.6, 2.8),
    }
    index = {"Fe": 0, "O": 1, "H": 2}
    table = np.zeros((3, 3, 3))
    for (a, b), numbers in pairs.items():
        table[index[a], index[b]] = table[index[b], index[a]] = numbers
    return table


MORSE = _morse_table()


def _lattice(layers: int, bottom: float, spacing: float) -> np.ndarray:
    """Return sites (4 * layers, 3) of square layers, each shifted to the hollows of the last."""
    layer, x, y = (axis.ravel() for axis in np.indices((layers, 2, 2)))
    shift = 0.5 * (layer % 2)
    return np.stack(
        [(x + shift) * CELL[0] / 2, (y + shift) * CELL[1] / 2, bottom + spacing * layer], axis=1
    )


_IRON_TOP = IRON_SPACING * (IRON_LAYERS - 1)
_WATER_SPACING = (CELL[2] - _IRON_TOP) / (WATER_LAYERS + 1)
_IRON_SITES = _lattice(IRON_LAYERS, 0.0, IRON_SPACING)
_WATER_SITES = _lattice(WATER_LAYERS, _IRON_TOP + _WATER_SPACING, _WATER_SPACING)
_WATER_HEIGHTS = np.repeat(np.arange(WATER_LAYERS), 4)


def iron_water(
    n_frames: int, seed: int = 0, min_water: int = 1, max_water: int = MOST_WATER
) -> list[Atoms]:
    """Return `n_frames` ase.Atoms: 32 iron atoms and 1 to 44 molecules of water.

    Periodic cells of 7.21 x 7.21 x 37.74 Å, 35 to 164 atoms, ordered as iron and then O, H, H of
    each molecule, with energy (eV) and forces (eV/Å) in a SinglePointCalculator. Frame k depends on
    `seed` and k alone, not on `n_frames`. ValueError where the numbers make no sense.
    """
    return list(iter_iron_water(n_frames, seed, min_water, max_water))


def iter_iron_water(
    n_frames: int,
    seed: int = 0,
    min_water: int = 1,
    max_water: int = MOST_WATER,
    start: int = 0,
) -> Iterator[Atoms]:
    """Yield the frames `start`, `start` + 1, … of `iron_water`, `n_frames` of them.

    Raises ValueError at once where the numbers make no sense.
    """
    if n_frames < 0 or start < 0:
        raise ValueError(f"n_frames and start must not be negative, got {n_frames} and {start}")
    if not 0 <= min_water <= max_water <= MOST_WATER:
        raise ValueError(
            f"the numbers of molecules must satisfy 0 <= min_water <= max_water <= {MOST_WATER}, "
            f"got min_water={min_water}, max_water={max_water}"
        )
    return (_frame(seed, k, min_water, max_water) for k in range(start, start + n_frames))


def iron_water_potential(atoms: Atoms) -> tuple[float, np.ndarray]:
    """Return energy (eV) and forces (n, 3) (eV/Å), with which the frames of `iron_water` come.

    Raises ValueError unless the cell is orthorhombic and periodic in all directions and the atoms
    are Fe, O and H with the two hydrogens of each oxygen right behind it.
    """
    lengths = atoms.cell.lengths()
    if not atoms.pbc.all() or abs(atoms.cell.array - np.diag(lengths)).max() > 1e-10:
        raise ValueError(f"the cell must be orthorhombic and periodic, got {atoms.cell!r}")
    padded = np.append(atoms.numbers, [26, 26])  # room for the hydrogens of a last oxygen
    oxygen = np.flatnonzero(padded == 8)
    expected, molecules = np.full(len(padded), 26), np.full(len(padded), -1)
    for offset, number in enumerate((8, 1, 1)):
        expected[oxygen + offset] = number
        molecules[oxygen + offset] = oxygen
    if not np.array_equal(padded, expected):
        raise ValueError(f"atoms must be Fe, and O, H, H for each water molecule, got {atoms!r}")
    species = np.array([SPECIES[number] for number in atoms.numbers])
    return energy_and_forces(
        atoms.positions, species, molecules, lengths, MORSE, CUTOFF, BOND, BEND
    )


class IronWater(Calculator):
    """Calculate the energy and forces of `iron_water_potential` for ASE."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (as ASE has it)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute `results` of the atoms; ValueError for others than `iron_water` makes."""
        super().calculate(atoms, properties, system_changes)
        own: Any = self.atoms
        energy, forces = iron_water_potential(own)
        self.results = {"energy": energy, "forces": forces}


def _frame(seed: int, k: int, min_water: int, max_water: int) -> Atoms:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(k,)))
    n = int(rng.integers(min_water, max_water, endpoint=True))
    heat = rng.uniform(*HEAT)
    iron = _IRON_SITES + rng.normal(0.0, heat * IRON_DISORDER, _IRON_SITES.shape)
    # Sites are filled from the surface up, with a rough front two layers deep.
    filled = np.argsort(_WATER_HEIGHTS + rng.uniform(0.0, 2.0, MOST_WATER))[:n]
    oxygen = _WATER_SITES[filled] + rng.normal(0.0, heat * WATER_DISORDER, (n, 3))
    molecules = oxygen[:, None, :] + _molecules(rng, n, heat)
    atoms = Atoms(
        numbers=[26] * len(iron) + [8, 1, 1] * n,
        positions=np.concatenate([iron, molecules.reshape(-1, 3)]),
        cell=CELL,
        pbc=True,
    )
    energy, forces = iron_water_potential(atoms)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def _molecules(rng: np.random.Generator, n: int, heat: float) -> np.ndarray:
    """Return positions (n, 3, 3) of O, H, H of distorted molecules, turned at random, O at 0."""
    axis = rng.normal(size=(n, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    side = np.cross(axis, rng.normal(size=(n, 3)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    half = 0.5 * rng.normal(ANGLE, heat * ANGLE_DISORDER, (n, 1))
    lengths = rng.normal(BOND[2], heat * BOND_DISORDER, (2, n, 1))
    along, across = np.cos(half) * axis, np.sin(half) * side
    first, second = lengths[0] * (along + across), lengths[1] * (along - across)
    return np.stack([np.zeros((n, 3)), first, second], axis=1)
