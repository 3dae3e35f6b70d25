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

from amptorch.kernels._jit import inlined, njit
from amptorch.kernels.gmp_structures import GROUP, N_COEFFICIENTS, R2


@njit
def radial_functions(table, lane_element, near, n, with_slope, piece, rho, slope):
    """rho[c, j] = ρ_c(r_j²) and, `with_slope`, slope[c, j] = dρ_c/d(r²) for lanes 0 to n − 1.

    lane_element (n,): position of each lane's element in the table.
    """
    for first in range(0, n, GROUP):
        for q in range(GROUP):
            _one_lane(table, lane_element[first + q], near[R2, first + q], with_slope, q, piece)
        for c in range(table.n_channels):
            for q in range(GROUP):
                rho[c, first + q] = piece[q, c]
        if with_slope:
            for c in range(table.n_channels):
                for q in range(GROUP):
                    slope[c, first + q] = piece[GROUP + q, c]


@inlined
def _one_lane(table, element, s, with_slope, q, piece):
    """ρ_c(s) in row q of `piece`, dρ_c/ds in row GROUP + q."""
    r = math.sqrt(s)
    k = min(int(r / table.step), table.n_pieces - 1)
    half = (k + 0.5) * table.step * table.step
    x = (s - (k * k + k + 0.5) * table.step * table.step) / half
    per_half = 1.0 / half
    coefficients = table.coefficients
    at = (element * table.n_pieces + k) * table.n_channels * N_COEFFICIENTS
    if with_slope:
        for first in range(0, table.n_channels, GROUP):
            for c in range(GROUP):
                w = coefficients[at + c]
                d = 0.0
                for p in range(1, N_COEFFICIENTS):
                    d = d * x + w
                    w = w * x + coefficients[at + p * GROUP + c]
                piece[q, first + c] = w
                piece[GROUP + q, first + c] = d * per_half
            at += GROUP * N_COEFFICIENTS
    else:
        for first in range(0, table.n_channels, GROUP):
            for c in range(GROUP):
                w = coefficients[at + c]
                for p in range(1, N_COEFFICIENTS):
                    w = w * x + coefficients[at + p * GROUP + c]
                piece[q, first + c] = w
            at += GROUP * N_COEFFICIENTS
