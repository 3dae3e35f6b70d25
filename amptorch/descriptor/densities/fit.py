"""Make valence.json: valence densities of free atoms, and Gaussians fitted to them.

    pip install -e '.[densities]' && python -m amptorch.descriptor.densities.fit valence.json

For each element up to radon, a restricted Kohn-Sham atom with the PBE functional (J. P. Perdew,
K. Burke, M. Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996)) and the dual-space pseudopotential of
C. Hartwigsen, S. Goedecker, J. Hutter (Phys. Rev. B 58, 3641 (1998); for PBE M. Krack, Theor. Chem.
Acc. 114, 145 (2005)) that PySCF ships as "gth-pbe", in the pseudopotential's own reference
configuration: its electrons of each angular momentum are spread evenly over the orbitals of a
shell, so that the density is spherical. The basis is even-tempered and not contracted.

The fit of Σ_g B_g exp(−β_g r²) minimises ∫ [Δρ(r)]² r² dr, with the number of electrons kept; B
may be negative, since the densities have a hole at the nucleus. As many Gaussians are taken as are
needed for an error ∫ |Δρ| dV below 1 % of the electrons, at most 6.
"""

import itertools
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.units import Bohr
from scipy.integrate import trapezoid
from scipy.optimize import least_squares

LAST_ELEMENT = 86
METHOD = "PBE atom in the reference configuration of its pseudopotential"
PSEUDOPOTENTIAL = "gth-pbe"
# Exponents of the basis in 1/bohr²: from, to, ratio.
BASIS = {0: (0.015, 120.0, 1.9), 1: (0.015, 80.0, 2.0), 2: (0.03, 60.0, 2.1), 3: (0.08, 40.0, 2.2)}
RADII = np.linspace(0.0, 9.0, 1801)  # Å
MOST_GAUSSIANS = 6
ACCURACY = 0.01
# Limits of β in 1/Å², and the least ratio of neighbouring ones: nearer ones have large B of either
# sign that cancel.
BETAS = (0.05, 200.0)
RATIO = 1.6
# A fit starts from each of these: the smallest β in 1/Å², and by how much the logarithms of
# neighbouring ones differ beyond that of RATIO. From one start it often ends in a local minimum.
STARTS = list(itertools.product((0.1, 0.25, 0.5, 1.0), (0.2, 0.6, 1.0)))

logger = logging.getLogger(__name__)


def valence_density(symbol: str) -> tuple[list[int], np.ndarray]:
    """Return (electrons of each angular momentum, ρ on RADII in Å⁻³) of an atom."""
    from pyscf import gto

    atom = gto.Mole()
    atom.verbose = 0
    shells = pseudopotential_electrons(symbol)
    basis = []
    for l in range(len(shells)):  # noqa: E741
        first, last, ratio = BASIS[l]
        count = int(np.log(last / first) / np.log(ratio)) + 1
        basis += [[l, [first * ratio**k, 1.0]] for k in range(count)]
    atom.build(
        atom=f"{symbol} 0 0 0",
        basis={symbol: basis},
        pseudo={symbol: PSEUDOPOTENTIAL},
        spin=sum(shells) % 2,
    )
    calculation = _atom_calculation(atom, shells)
    calculation.kernel()
    if not calculation.converged:
        raise ValueError(f"the calculation of {symbol} did not converge")
    points = np.zeros((len(RADII), 3))
    points[:, 0] = RADII / Bohr
    orbitals = atom.eval_gto("GTOval", points)
    density = np.einsum("pi,ij,pj->p", orbitals, calculation.make_rdm1(), orbitals)
    return shells, density / Bohr**3


def pseudopotential_electrons(symbol: str) -> list[int]:
    """Return the valence electrons of each angular momentum."""
    from pyscf.pbc.gto import pseudo

    return list(pseudo.load(PSEUDOPOTENTIAL, symbol)[0])


def _atom_calculation(atom: Any, shells: list[int]) -> Any:
    """Return a spherical Kohn-Sham atom with a pseudopotential, which PySCF has in two halves."""
    from pyscf.scf import ADIIS, atom_hf_pp, atom_ks

    class Atom(atom_ks.AtomSphAverageRKS):
        get_hcore = atom_hf_pp.AtomSCFPP.get_hcore

        def get_occ(self, mo_energy: Any = None, mo_coeff: Any = None) -> np.ndarray:
            occupations = []
            for l, electrons in enumerate(shells):  # noqa: E741
                count = sum(atom.bas_angular(k) == l for k in range(atom.nbas))
                of_orbital = np.clip(electrons / (2 * l + 1) - 2 * np.arange(count), 0, 2)
                occupations.append(np.repeat(of_orbital, 2 * l + 1))
            return np.concatenate(occupations)

    calculation = Atom(atom)
    calculation.xc = "pbe"
    calculation.grids.atom_grid = (120, 302)
    calculation.init_guess = "1e"
    calculation.diis = ADIIS()
    calculation.max_cycle = 300
    calculation.conv_tol = 1e-9
    return calculation


def fit_gaussians(density: np.ndarray) -> tuple[np.ndarray, float]:
    """Return (Gaussians (G, 2), error): B in Å⁻³ and β in Å⁻²; ∫ |Δρ| dV over ∫ ρ dV."""
    for count in range(1, MOST_GAUSSIANS + 1):
        fits = [_fit(density, count, *start) for start in STARTS]
        gaussians, error = min(fits, key=lambda fit: fit[1])
        if error < ACCURACY:
            break
    return gaussians, error


def _fit(
    density: np.ndarray, count: int, smallest: float, apart: float
) -> tuple[np.ndarray, float]:
    """Return the best Gaussians from one start, and their error."""
    weight = RADII
    electrons = _integral(density)

    def betas_of(steps: np.ndarray) -> np.ndarray:
        return np.exp(np.cumsum(np.concatenate(([steps[0]], np.log(RATIO) + np.abs(steps[1:])))))

    def amplitudes(betas: np.ndarray) -> np.ndarray:
        # One amplitude follows from the number of electrons; a Gaussian has B (π/β)^{3/2}.
        shapes = np.exp(-betas * RADII[:, None] ** 2) * (betas / np.pi) ** 1.5
        base = electrons * shapes[:, 0]
        if len(betas) == 1:
            charges = np.array([electrons])
        else:
            basis = (shapes[:, 1:] - shapes[:, :1]) * weight[:, None]
            others = np.linalg.lstsq(basis, weight * (density - base), rcond=None)[0]
            charges = np.concatenate(([electrons - others.sum()], others))
        return charges * (betas / np.pi) ** 1.5

    def residual(steps: np.ndarray) -> np.ndarray:
        betas = betas_of(steps)
        fitted = np.exp(-betas * RADII[:, None] ** 2) @ amplitudes(betas)
        outside = np.log(np.array([betas[-1] / BETAS[1], BETAS[0] / betas[0]])).clip(min=0)
        return np.concatenate((weight * (fitted - density), 10 * outside * electrons))

    start = np.concatenate(([np.log(smallest)], np.full(count - 1, apart)))
    betas = betas_of(least_squares(residual, start, x_scale=0.3, max_nfev=300).x)
    gaussians = np.column_stack((amplitudes(betas), betas))
    fitted = np.exp(-betas * RADII[:, None] ** 2) @ gaussians[:, 0]
    return gaussians, _integral(np.abs(fitted - density)) / electrons


def _integral(values: np.ndarray) -> float:
    return trapezoid(4 * np.pi * RADII**2 * values, RADII)


def make_table(path: str | os.PathLike[str], symbols: Sequence[str]) -> None:
    """Write the table of `symbols` to `path`."""
    import pyscf

    elements = {}
    for symbol in symbols:
        shells, density = valence_density(symbol)
        gaussians, error = fit_gaussians(density)
        elements[symbol] = {
            "electrons": int(sum(shells)),
            "shells": shells,
            "error": float(f"{error:.2g}"),
            "gaussians": [[float(f"{value:.8g}") for value in row] for row in gaussians],
        }
        logger.info(
            "%2s %2d electrons %d Gaussians, error %.2f %%, charge on the grid %.4f, lowest %.1e",
            symbol,
            sum(shells),
            len(gaussians),
            100 * error,
            _integral(density),
            (np.exp(-gaussians[:, 1] * RADII[:, None] ** 2) @ gaussians[:, 0]).min(),
        )
    about = {
        "what": "valence densities of free atoms, sum of B exp(-beta r^2)",
        "gaussians": "rows B in 1/angstrom^3, beta in 1/angstrom^2",
        "shells": "electrons of angular momentum 0, 1, ...",
        "error": "integral of |fit - density|, as a fraction of the electrons",
        "method": METHOD,
        "pseudopotential": PSEUDOPOTENTIAL,
        "made by": f"amptorch.descriptor.densities.fit with PySCF {pyscf.__version__}",
    }
    lines = ",\n".join(f'  "{symbol}": {json.dumps(entry)}' for symbol, entry in elements.items())
    with open(path, "w", encoding="utf8") as file:
        file.write(f'{{"about": {json.dumps(about, indent=1)},\n"elements": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_table(sys.argv[1], sys.argv[2:] or chemical_symbols[1 : LAST_ELEMENT + 1])
