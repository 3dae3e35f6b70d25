"""Define what the symmetry-function kernels pass to each other."""

from typing import NamedTuple

import numpy as np

from amptorch.kernels._jit import inlined, inner

# Rows of the gathered neighbours, `Work.near`: vector, r, r², 1/r, fc, dfc/dr, u, du/d(r²), the
# velocity relative to the central atom's, and the weight in weighted functions.
NEAR_X, NEAR_Y, NEAR_Z, NEAR_R, NEAR_R2, NEAR_INVERSE_R = range(6)
NEAR_FC, NEAR_FC_SLOPE, NEAR_U, NEAR_U_SLOPE = range(6, 10)
NEAR_VX, NEAR_VY, NEAR_VZ, NEAR_WEIGHT = range(10, 14)
N_NEAR_ROWS = 14
# What the kind of a weighted function has above that of the function itself: 12, 14 and 15.
WEIGHTED = 10


class NeighborPairs(NamedTuple):
    """Hold the neighbour list of all atoms, as in `amptorch.neighbors`, with their elements."""

    element: np.ndarray  # (N,) place of each atom's element in the order of the kernel's tables
    offsets: np.ndarray  # (N + 1,)
    neighbors: np.ndarray  # (P,)
    vectors: np.ndarray  # (P, 3) Å


class Radial(NamedTuple):
    """Hold G1, G2, G3: those of cutoff q and neighbour element e are `start[k]:start[k+1]` with
    k = q (E + 1) + e; those of all neighbours, with their weights, stand at e = E."""

    start: np.ndarray
    kind: np.ndarray  # 1, 2 or 3
    eta: np.ndarray  # η of G2, κ of G3
    shift: np.ndarray  # Rs of G2
    feature: np.ndarray


class Angular(NamedTuple):
    """Hold G4 and G5 in groups of one kind, cutoff, η and Rs; group h has the shapes (ζ, λ)
    `shape_start[h]:shape_start[h+1]`.

    A weighted group has one channel of all neighbours, `feature[shape, 0, 0]`; others have one for
    each element.
    """

    cutoff_kind: int
    cutoff_gamma: float  # of the polynomial of Amp
    cutoff_alpha: float  # inner radius over Rc
    cutoff_even: int  # 1 where the series of the cutoff function are `factors.even`, else 0
    cutoff_terms: int  # how many of the coefficients come first and are fc itself; 0: exact
    kind: np.ndarray  # 4 or 5, 14 or 15 where weighted
    eta: np.ndarray
    shift: np.ndarray  # Rs
    degree: np.ndarray  # largest ζ of the shapes that moments can serve, see moments.py
    moments: np.ndarray | None  # how many these are; they come first; None: none in any group
    polynomial: np.ndarray  # (groups, 2) coefficients of F, one series a cutoff; empty: exact
    left: np.ndarray  # the part of η that is not in F, see factors.py
    coefficients: np.ndarray
    shape_start: np.ndarray
    zeta: np.ndarray
    lam: np.ndarray
    scale: np.ndarray  # 2^(1−ζ)
    feature: np.ndarray  # (shapes, channels, channels) column of the pair, -1 where none


class Functions(NamedTuple):
    """Hold the symmetry functions of all central elements.

    Cutoffs of central element c are `cutoff_start[c]:cutoff_start[c+1]`, angular groups of cutoff q
    `group_start[q]:group_start[q+1]`. Functions are passed on in parts, because every array in an
    argument costs time when compiling and when calling.
    """

    weight: np.ndarray  # (E,) of each neighbour element in weighted functions
    cutoff_start: np.ndarray
    cutoffs: np.ndarray
    group_start: np.ndarray
    radial: Radial
    angular: Angular


class Blocks(NamedTuple):
    """Hold derivatives with respect to other atoms, images of one atom folded together.

    Block b = i·E + e is that of central atom i and its neighbours of element e: atoms
    `atoms[atom_start[b]:atom_start[b+1]]`, and an array (atoms, 3, features) that starts at
    `values[value_start[b]]`: what belongs to one atom is one piece, so that a contraction for some
    of the atoms passes over the rest. Which features stand in it depends on the kind of atom i, its
    element and the elements around it: feature s is row `feature_row[kind[i], e, s]`, -1 where it
    is not there because it does not depend on e or needs an element that is absent.
    """

    atom_start: np.ndarray
    atoms: np.ndarray
    value_start: np.ndarray
    values: np.ndarray
    kind: np.ndarray
    feature_row: np.ndarray


class Work(NamedTuple):
    """Hold scratch of one thread for one central atom.

    The channels of an angular group are the elements; of a weighted one, all neighbours together.
    """

    near: np.ndarray  # (N_NEAR_ROWS, most neighbours)
    pair: np.ndarray  # position of a gathered neighbour in the neighbour list
    slot: np.ndarray  # its place in its block, -1 for an image of the central atom
    segment: np.ndarray  # (E+1,) gathered neighbours of each element
    chosen: np.ndarray  # the gathered neighbours that are wanted, in their order
    chosen_segment: np.ndarray  # (E+1,) those of each element
    channel: np.ndarray  # (E+1,) gathered neighbours of each channel of the group
    chosen_channel: np.ndarray  # (E+1,) those that are wanted
    pair_slot: np.ndarray  # the same for each pair of the central atom in the neighbour list
    rows: np.ndarray  # the lanes, see lanes.py
    sums: np.ndarray  # sums over k, see lanes.PER_FUNCTION
    monomials: np.ndarray  # (monomials, WIDTH), see moments.py
    moment: np.ndarray  # (channels, monomials)
    polynomial: np.ndarray  # (1, monomials)
    radial: np.ndarray  # (2 functions + 1, most neighbours), see radial.py
    envelope: np.ndarray  # (2 groups, most neighbours) u and 2 du/d(r²) of each group
    table: np.ndarray  # what `unordered.pair_gradients` knows of each lane, see there
    plan: np.ndarray  # (groups, N_PLAN) how each group is treated, see unordered.py
    pull: np.ndarray  # (3, most neighbours) the gradient of each pair


@inlined
def channels_of(kind: int, work: Work) -> int:
    """Return the number of channels of a group of this kind."""
    return 1 if kind > WEIGHTED else work.segment.shape[0] - 1


@inner
def block_place(blocks: Blocks, i: int, e: int, feature: int) -> tuple[int, int]:
    """Return (first, step): ∂G_i,feature/∂r_axis of the atom in `slot` of block (i, e) stands at
    `first + (3 * slot + axis) * step` in `blocks.values`."""
    b = i * blocks.feature_row.shape[1] + e
    n_atoms = blocks.atom_start[b + 1] - blocks.atom_start[b]
    step = (blocks.value_start[b + 1] - blocks.value_start[b]) // max(3 * n_atoms, 1)
    return blocks.value_start[b] + blocks.feature_row[blocks.kind[i], e, feature], step
