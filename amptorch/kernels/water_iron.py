"""The model potential of `amptorch.datasets`: flexible water on iron, energy and exact forces.

E = Σ_bonds D_b [1 − exp(−a_b (r − r_b))]² + Σ_molecules k/2 (cosθ − cosθ0)²
  + Σ_pairs D {[1 − exp(−a (r − r0))]² − 1} [1 − (r/Rc)⁴]³

The pair sum runs over every periodic image within Rc and leaves out the atoms of one molecule. A
Morse function is finite at r = 0 and the damping factor has two continuous derivatives at Rc, so E
is smooth for any arrangement of atoms.
"""

import math

import numpy as np

from amptorch.kernels._jit import inner, njit


@njit
def energy_and_forces(
    positions: np.ndarray,
    species: np.ndarray,
    molecules: np.ndarray,
    lengths: np.ndarray,
    morse: np.ndarray,
    cutoff: float,
    bond: tuple[float, float, float],
    angle: tuple[float, float],
) -> tuple[float, np.ndarray]:
    """Return energy (eV) and forces (n, 3) (eV/Å) of one frame in an orthorhombic periodic cell.

    positions (n, 3) Å; species (n,) rows of `morse`; molecules (n,): for an oxygen, and for the two
    hydrogens that follow it, the index of the oxygen, and -1 for every other atom; lengths (3,) of
    the cell, Å; morse (k, k, 3): D (eV), a (1/Å), r0 (Å) of each pair of species; bond: the same
    three numbers; angle: k (eV), cosθ0. Bonds must be shorter than half the cell.
    """
    n = positions.shape[0]
    forces = np.zeros((n, 3))
    energy = 0.0
    # |d + sL| >= (|s| - 1/2) L for a minimum-image d, so that no further image can be in reach.
    reach_x = int(cutoff / lengths[0] + 0.5)
    reach_y = int(cutoff / lengths[1] + 0.5)
    reach_z = int(cutoff / lengths[2] + 0.5)
    for i in range(n):
        for j in range(i, n):
            bonded = i != j and molecules[i] >= 0 and molecules[i] == molecules[j]
            dx, dy, dz = minimum_image(positions, i, j, lengths)
            depth, steepness, r0 = morse[species[i], species[j]]
            for sx in range(-reach_x, reach_x + 1):
                x = dx + sx * lengths[0]
                for sy in range(-reach_y, reach_y + 1):
                    y = dy + sy * lengths[1]
                    for sz in range(-reach_z, reach_z + 1):
                        z = dz + sz * lengths[2]
                        r2 = x * x + y * y + z * z
                        home = sx == 0 and sy == 0 and sz == 0
                        if r2 >= cutoff * cutoff or (home and (bonded or i == j)):
                            continue
                        r = math.sqrt(r2)
                        decay = math.exp(-steepness * (r - r0))
                        well = depth * (decay * decay - 2.0 * decay)
                        slope = 2.0 * depth * steepness * (decay - decay * decay)
                        ratio = (r2 / (cutoff * cutoff)) ** 2
                        damping = (1.0 - ratio) ** 3
                        if i == j:  # an atom and its own image: a pair shared by two equal cells
                            energy += 0.5 * well * damping
                            continue
                        energy += well * damping
                        push = (slope * damping - well * 12.0 * ratio / r * (1.0 - ratio) ** 2) / r
                        add_pair(forces, i, j, push * x, push * y, push * z)
        if molecules[i] == i:
            energy += bend_and_stretch(forces, positions, i, lengths, bond, angle)
    return energy, forces


@inner
def minimum_image(
    positions: np.ndarray, i: int, j: int, lengths: np.ndarray
) -> tuple[float, float, float]:
    """Return the vector from atom i to the nearest image of atom j."""
    dx = positions[j, 0] - positions[i, 0]
    dy = positions[j, 1] - positions[i, 1]
    dz = positions[j, 2] - positions[i, 2]
    return (
        dx - lengths[0] * np.rint(dx / lengths[0]),
        dy - lengths[1] * np.rint(dy / lengths[1]),
        dz - lengths[2] * np.rint(dz / lengths[2]),
    )


@inner
def add_pair(forces: np.ndarray, i: int, j: int, gx: float, gy: float, gz: float) -> None:
    """Add the forces of a term whose derivative by the vector from i to j is (gx, gy, gz)."""
    forces[i, 0] += gx
    forces[i, 1] += gy
    forces[i, 2] += gz
    forces[j, 0] -= gx
    forces[j, 1] -= gy
    forces[j, 2] -= gz


@inner
def bend_and_stretch(
    forces: np.ndarray,
    positions: np.ndarray,
    oxygen: int,
    lengths: np.ndarray,
    bond: tuple[float, float, float],
    angle: tuple[float, float],
) -> float:
    """Return the energy of the two bonds and the angle of one molecule; its forces are added to
    `forces`."""
    first, second = oxygen + 1, oxygen + 2
    ax, ay, az = minimum_image(positions, oxygen, first, lengths)
    bx, by, bz = minimum_image(positions, oxygen, second, lengths)
    a = math.sqrt(ax * ax + ay * ay + az * az)
    b = math.sqrt(bx * bx + by * by + bz * bz)
    energy = 0.0
    for hydrogen, r, x, y, z in ((first, a, ax, ay, az), (second, b, bx, by, bz)):
        decay = math.exp(-bond[1] * (r - bond[2]))
        energy += bond[0] * (1.0 - decay) ** 2
        pull = 2.0 * bond[0] * bond[1] * (decay - decay * decay) / r
        add_pair(forces, oxygen, hydrogen, pull * x, pull * y, pull * z)
    cosine = (ax * bx + ay * by + az * bz) / (a * b)
    bend = angle[0] * (cosine - angle[1])
    # ∂cosθ/∂a = b/(|a||b|) − cosθ a/|a|², and likewise for b.
    ab, aa, bb = bend / (a * b), bend * cosine / (a * a), bend * cosine / (b * b)
    add_pair(forces, oxygen, first, ab * bx - aa * ax, ab * by - aa * ay, ab * bz - aa * az)
    add_pair(forces, oxygen, second, ab * ax - bb * bx, ab * ay - bb * by, ab * az - bb * bz)
    return energy + 0.5 * angle[0] * (cosine - angle[1]) ** 2
