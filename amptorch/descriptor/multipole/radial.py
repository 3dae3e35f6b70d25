"""Radial functions of Gaussian multipoles, and their table for the kernels.

The density of an atom, Σ_g B_g exp(−β_g r²), meets a probe A exp(−α r²) p(r), α = 1/(2σ²), where p
is a harmonic of order l; what comes out is the mean of p over a Gaussian of variance
v = 1/(2(α + β)) around λ r_j, λ = β/(α + β), times A B (π/(α + β))^{3/2} exp[−αβ r_j²/(α + β)]. The
mean of a solid harmonic is its value at λ r_j. A surface harmonic is a harmonic polynomial in which
powers of r² are replaced by 1, and

    p = Σ_K (−1)^K (2l − 2K − 1)!! Δ^K x^n / (2^K K!),      mean = exp(vΔ/2) p,

for the component x^n of a Cartesian tensor. x^n holds harmonics of the orders k = l, l − 2, …, as
r^{2Q} Y_km with Q = (l − k)/2, and Δ turns r^{2Q} Y_km into 2Q (2Q + 2k + 1) r^{2Q−2} Y_km; so
there is one radial function for each k, the "rank".
"""

from collections.abc import Sequence
from math import comb, factorial, prod
from typing import TypeAlias

import numpy as np
from numpy.polynomial import chebyshev

from amptorch.kernels.gmp_structures import GROUP, N_COEFFICIENTS, RadialTable

# Order l, rank, sigma (Å) and amplitude A of the probe.
Channel: TypeAlias = tuple[int, int, float, float]

# First try for the length of a piece, Å; halved until the table is accurate.
PIECE = 0.25
# Error of the table, relative to the largest value within a piece, or to that at the atom.
ACCURACY, FLOOR = 2e-14, 1e-25
MAX_PIECES = 1 << 14


def double_factorial(n: int) -> int:
    """Return n!! with (−1)!! = 1."""
    return prod(range(n, 0, -2))


def radial_terms(
    order: int, rank: int, sigma: float, amplitude: float, gaussians: np.ndarray, s: np.ndarray
) -> np.ndarray:
    """Return ρ(s) as an array of terms (n, len(s)) to be summed, for an atom with density
    `gaussians`.

    order l, rank and sigma (Å) of the channel; amplitude: A of the probe, Å⁻³; gaussians: (G, 2)
    rows B (Å⁻³), β (Å⁻²); s = r² in Å².
    """
    alpha = 1 / (2 * sigma**2)
    steps = (order - rank) // 2
    terms = []
    for b, beta in gaussians:
        total = alpha + beta
        shrink, variance = beta / total, 1 / (2 * total)
        scale = amplitude * b * (np.pi / total) ** 1.5 * np.exp(-alpha * shrink * s)
        for traced in range(steps + 1):
            weight = prod(
                (steps - q) * (2 * (steps - q) + 2 * rank + 1) for q in range(traced)
            ) / factorial(traced)
            mean = sum(
                (-1) ** k
                * double_factorial(2 * order - 2 * k - 1)
                * comb(traced, k)
                * variance ** (traced - k)
                for k in range(traced + 1)
            )
            power = shrink ** (order - 2 * traced) * s ** (steps - traced)
            terms.append(weight * mean * scale * power)
    return np.array(terms)


def radial_table(
    channels: Sequence[Channel], densities: Sequence[np.ndarray], cutoff: float
) -> RadialTable:
    """Return the RadialTable of `channels`, a list of (order, rank, sigma, amplitude), up to
    `cutoff` (Å).

    densities: for each element, an array (G, 2) of B and β. Raises ValueError where Gaussians are
    so narrow that no table of reasonable size holds them.
    """
    n_pieces = int(np.ceil(cutoff / PIECE))
    while True:
        fitted = [_table(channels, gaussians, cutoff, n_pieces) for gaussians in densities]
        tables = [table for table in fitted if table is not None]
        if len(tables) == len(fitted):
            break
        n_pieces *= 2
        if n_pieces > MAX_PIECES:
            raise ValueError(
                "a radial function varies too fast for the cutoff of "
                f"{cutoff} Å; give wider probes (sigma) or wider densities (a smaller beta)"
            )
    n_channels = GROUP * -(-len(channels) // GROUP)
    coefficients = np.zeros((len(densities), n_pieces, N_COEFFICIENTS, n_channels))
    for element, table in enumerate(tables):
        coefficients[element, ..., : len(channels)] = table.transpose(1, 2, 0)
    return RadialTable(
        step=cutoff / n_pieces,
        n_pieces=n_pieces,
        n_channels=n_channels,
        coefficients=coefficients.reshape(-1, N_COEFFICIENTS, n_channels),
    )


def _table(
    channels: Sequence[Channel], gaussians: np.ndarray, cutoff: float, n_pieces: int
) -> np.ndarray | None:
    """Return coefficients (channels, pieces, N_COEFFICIENTS), highest power first; None where they
    are not accurate."""
    nodes = chebyshev.chebpts1(N_COEFFICIENTS)
    between = np.concatenate(([-1.0], (nodes[1:] + nodes[:-1]) / 2, [1.0]))
    to_chebyshev = np.linalg.inv(chebyshev.chebvander(nodes, N_COEFFICIENTS - 1))
    to_powers = np.array(
        [
            np.pad(chebyshev.cheb2poly(row), (0, N_COEFFICIENTS - 1 - k))
            for k, row in enumerate(np.tri(N_COEFFICIENTS) - np.tri(N_COEFFICIENTS, k=-1))
        ]
    )
    k = np.arange(n_pieces)[:, None]
    step2 = (cutoff / n_pieces) ** 2
    x = np.concatenate((nodes, between))
    s = np.maximum(step2 * (k * k + k + 0.5 + (k + 0.5) * x), 0.0)
    result = []
    for channel in channels:
        terms = radial_terms(*channel, gaussians, s)
        exact = terms.sum(axis=0)
        size = np.abs(terms).sum(axis=0)
        fit = exact[:, : len(nodes)] @ to_chebyshev.T
        error = fit @ chebyshev.chebvander(between, N_COEFFICIENTS - 1).T - exact[:, len(nodes) :]
        allowed = ACCURACY * size.max(axis=1, keepdims=True) + FLOOR * size.max()
        if (np.abs(error) > allowed).any():
            return None
        result.append((fit @ to_powers)[:, ::-1])
    return np.array(result)
