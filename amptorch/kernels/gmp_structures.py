"""Define what the Gaussian multipole kernels pass to each other."""

from typing import NamedTuple

import numpy as np

# Rows of the gathered atoms, `MultipoleWork.near`, the central atom first: vector, r², and the
# velocity relative to the central atom's.
ATOM_X, ATOM_Y, ATOM_Z, ATOM_R2, ATOM_VX, ATOM_VY, ATOM_VZ = range(7)
N_ATOM_ROWS = 7

# Lanes are computed in whole groups of this many; the radial table has whole groups of channels.
GROUP = 8
# Coefficients of a piece of the radial table.
N_COEFFICIENTS = 12

# Lanes of a chunk, and columns whose gradients are computed at a time: what they take stays in the
# nearer caches. Not a power of two, so that rows do not fall into the same places of the cache (a
# third of the time of the gradients).
CHUNK = 200
TILE = 12

# How the components of a feature become its value.
SQUARE, ROOT, SIGNED = range(3)


class RadialTable(NamedTuple):
    """Hold the radial functions ρ_c(r²) of every element as polynomials, see `gmp_radial.py`."""

    step: float  # Å; piece k is k·step ≤ r < (k+1)·step
    n_pieces: int
    n_channels: int  # rounded up to whole groups
    coefficients: np.ndarray  # (E · n_pieces, N_COEFFICIENTS, n_channels), highest power first


class Moments(NamedTuple):
    """Describe the moments A_cm = Σ_j ρ_c(r_j²) Y_lm(r_j), in segments of one l and consecutive
    channels c.

    Row m, channel k of a segment stands at `start + m · n_channels + k` of the flat
    array of moments.
    """

    order: np.ndarray  # l
    channel: np.ndarray  # first radial channel
    n_channels: np.ndarray
    start: np.ndarray


class Features(NamedTuple):
    """Describe the features in segments of one kind and consecutive columns, one for each width σ.

    Component q of a segment is T_q = Σ_n coefficient_n A[entry_n], a feature Σ_q T_q² (SQUARE), its
    root (ROOT), or T of its only component (SIGNED). What it depends on are its terms, one for each
    segment of moments; the derivatives B = ∂feature/∂A of term u stand from `term_start[u]` on as
    the moments do.
    """

    kind: np.ndarray
    first: np.ndarray  # first column
    n_columns: np.ndarray  # number of columns, and of channels of each of its terms
    components: np.ndarray  # (segments + 1,) range of components
    terms: np.ndarray  # (segments + 1,) range of terms
    term_moment: np.ndarray  # segment of moments
    term_start: np.ndarray
    term_scale: np.ndarray  # what |A|² of a term is at most worth in the feature, up to rounding
    entries: np.ndarray  # (components + 1,) range of entries
    entry_moment: np.ndarray  # place of the row in the moments
    entry_term: np.ndarray  # place of the row in B
    coefficient: np.ndarray


class Tiles(NamedTuple):
    """Describe at most TILE consecutive columns of one term, whose gradients are computed
    together."""

    order: np.ndarray  # l
    channel: np.ndarray  # first radial channel
    start: np.ndarray  # place of row 0 of B for the first column
    step: np.ndarray  # from row to row of B
    n_columns: np.ndarray  # number of columns
    feature: np.ndarray  # column of the first


class Multipoles(NamedTuple):
    """Hold a whole set of features."""

    cutoff: float
    order: int  # largest l
    n_moments: int
    n_derivatives: int
    roots: bool  # whether any feature is a root
    moments: Moments
    features: Features
    tiles: Tiles


class MultipoleWork(NamedTuple):
    """Hold scratch of one thread for one central atom.

    Lanes stand in chunks, the first index. A row of a chunk is taken from its start, so that LLVM
    sees consecutive places; with rows over all lanes it does not, and loops stay scalar.
    """

    near: np.ndarray  # (chunks, N_FIELDS, CHUNK)
    pair: np.ndarray  # (chunks, CHUNK) place in the neighbour list, -1 for the central atom
    slot: np.ndarray  # (chunks, CHUNK) place in the block, -1 for the central atom and its images
    element: np.ndarray  # (chunks, CHUNK) place of the element in the radial table
    rho: np.ndarray  # (chunks, channels, CHUNK)
    slope: np.ndarray  # (chunks, channels, CHUNK), dρ/d(r²)
    harmonics: np.ndarray  # (chunks, (order + 1)², CHUNK)
    piece: np.ndarray  # (2 · GROUP, channels): ρ and dρ/d(r²) of one group of lanes
    moment: np.ndarray
    size: np.ndarray  # (channels,) Σ_j ρ² r^(2l), where roots are taken
    derivative: np.ndarray  # B
    gradient: np.ndarray  # (3, 2l − 1) of one column
    lanes: np.ndarray  # (3 · TILE, CHUNK) gradients of a tile: x of all columns, then y, then z
