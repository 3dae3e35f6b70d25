"""Radial functions of neighbours from a table of polynomials.

A radial function of Gaussian multipoles is a sum of Gaussians of r, so a smooth function of s = r².
Its exponentials are what values would cost: 30 a neighbour for ten widths and three Gaussians an
element. A table costs the same for any number of Gaussians. Piece k, from r = k·h to (k+1)·h, is a
polynomial in

    x = [s/h² − (k² + k + ½)] / (k + ½),      −1 ≤ x ≤ 1,

for each channel; the channels of a piece stand side by side, so that Horner's rule runs over them
as packed instructions.
"""

import math

import numpy as np

from amptorch.kernels._jit import inner, njit
from amptorch.kernels.gmp_structures import ATOM_R2, GROUP, N_COEFFICIENTS, RadialTable


@njit
def radial_functions(
    table: RadialTable,
    element: np.ndarray,
    near: np.ndarray,
    n: int,
    with_slope: bool,
    piece: np.ndarray,
    rho: np.ndarray,
    slope: np.ndarray,
) -> None:
    """Compute rho[c, j] = ρ_c(r_j²) and, `with_slope`, slope[c, j] = dρ_c/d(r²) for the first
    n lanes.

    element: place of each lane's element in the table, up to the end of the last group of lanes.
    """
    for first in range(0, n, GROUP):
        for q in range(GROUP):
            _one_lane(table, element[first + q], near[ATOM_R2, first + q], with_slope, q, piece)
        for c in range(table.n_channels):
            for q in range(GROUP):
                rho[c, first + q] = piece[q, c]
        if with_slope:
            for c in range(table.n_channels):
                for q in range(GROUP):
                    slope[c, first + q] = piece[GROUP + q, c]


@inner
def _one_lane(
    table: RadialTable, element: int, s: float, with_slope: bool, q: int, piece: np.ndarray
) -> None:
    """Write ρ_c(s) to row q of `piece`, dρ_c/ds in row GROUP + q.

    The table is indexed as it is, (piece, power, channel): places in a flat array that numba cannot
    know to be positive would keep the loop scalar (measured: 4 times slower).
    """
    step2 = table.step * table.step
    k = min(int(math.sqrt(s) / table.step), table.n_pieces - 1)
    half = (k + 0.5) * step2
    x = (s - (k * k + k + 0.5) * step2) / half
    coefficients, at = table.coefficients, element * table.n_pieces + k
    if with_slope:
        per_half = 1.0 / half
        for c in range(coefficients.shape[2]):
            w, d = coefficients[at, 0, c], 0.0
            for p in range(1, N_COEFFICIENTS):
                d = d * x + w
                w = w * x + coefficients[at, p, c]
            piece[q, c] = w
            piece[GROUP + q, c] = d * per_half
    else:
        for c in range(coefficients.shape[2]):
            w = coefficients[at, 0, c]
            for p in range(1, N_COEFFICIENTS):
                w = w * x + coefficients[at, p, c]
            piece[q, c] = w
