"""Symmetry functions: lines of input.nn, rows of our tables, and the order of n2p2.

| n2p2 | ours | arguments |
|---|---|---|
| 2 | G2 (and G1, with η = 0) | neighbour η rs rc |
| 3, 9 | G4, G5 | two neighbours η λ ζ rc [rs] |
| 12 | G2W | η rs rc |
| 13 | G4W | η rs λ ζ rc |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ase.data import chemical_symbols

from amptorch.descriptor.Gaussian.setup import KINDS, table_row
from amptorch.n2p2.keywords import Line

Row: TypeAlias = tuple[float, ...]

# Our kind, the number of neighbours, and the names of the numbers that follow; the last of the
# angular ones may be left out.
TYPES: dict[int, tuple[str, int, tuple[str, ...]]] = {
    2: ("G2", 1, ("eta", "rs", "rc")),
    3: ("G4", 2, ("eta", "lambda", "zeta", "rc", "rs")),
    9: ("G5", 2, ("eta", "lambda", "zeta", "rc", "rs")),
    12: ("G2W", 0, ("eta", "rs", "rc")),
    13: ("G4W", 0, ("eta", "rs", "lambda", "zeta", "rc")),
}
COMPACT = range(20, 26)
NUMBERS = {kind: number for number, (kind, _, _) in TYPES.items()}
# By the numbers of n2p2.
CUTOFFS = ("hard", "cosine", "tanh", "tanh_scaled", "exp", "poly1", "poly2", "poly3", "poly4")


def read_function(line: Line, elements: Mapping[str, int], length: float) -> tuple[str, Row]:
    """Return the central element and the row, of our tables, of a line `symfunction_short`.

    elements : {symbol: atomic number} of the potential
    length : the unit of length, Å

    Raises ValueError that names the line where there is no such function here.
    """
    if len(line.words) < 3:
        raise line.error("a symmetry function needs a central element and a type")
    centre, word, *words = line.words[1:]
    number = line.as_integer(word)
    if number in COMPACT:
        raise line.error(
            f"symmetry functions of type {number}, of compact support, are not available here; "
            f"those of types {[*TYPES]} are"
        )
    if number not in TYPES:
        raise line.error(f"there is no symmetry function of type {number}; known are {[*TYPES]}")
    kind, n_neighbors, names = TYPES[number]
    least = n_neighbors + len(names) - (n_neighbors == 2)
    if not least <= len(words) <= n_neighbors + len(names):
        wanted = " ".join([*("n1", "n2")[:n_neighbors], *names])
        raise line.error(f"type {number} needs the values {wanted}, got {len(words)}")
    symbols = words[:n_neighbors]
    for symbol in (centre, *symbols):
        if symbol not in elements:
            raise line.error(f"{symbol!r} is not among the elements {[*elements]}")
    values = dict(zip(names, map(line.as_number, words[n_neighbors:]), strict=False))
    eta, rs = values["eta"] / length**2, values.get("rs", 0.0) * length
    own = (eta, values["zeta"], values["lambda"], rs) if "zeta" in values else (eta, rs)
    neighbors = sorted(elements[symbol] for symbol in symbols)
    try:
        row = table_row(kind, kind, neighbors, values["rc"] * length, own, eta_in_rc2=False)
    except ValueError as error:
        raise line.error(str(error)) from error
    return centre, row


def write_function(centre: str, row: Row) -> str:
    """Return the line of a function of `centre`, without loss; `row` is one of our tables that
    `counterpart` gave."""
    kind = KINDS[int(row[0])]
    number = NUMBERS[kind]
    eta, rs, lam, zeta = row[4], *_angular(row)
    values = {"eta": eta, "rs": rs, "lambda": lam, "zeta": zeta, "rc": row[3]}
    _, n_neighbors, names = TYPES[number]
    if n_neighbors == 2 and not rs:
        names = names[:-1]
    symbols = [chemical_symbols[int(z)] for z in row[1 : 1 + n_neighbors]]
    words = [centre, str(number), *symbols, *(repr(float(values[name])) for name in names)]
    return " ".join(["symfunction_short", *words])


def counterpart(row: Row) -> Row | None:
    """Return the row that stands in input.nn for one of ours, G2 for G1, or None where n2p2 has no
    such function."""
    row = (*row, 0.0)[:8]
    kind = KINDS[int(row[0])]
    if kind == "G1":
        return (2.0, *row[1:])
    return row if kind in NUMBERS else None


def order(rows: Sequence[Row]) -> list[int]:
    """Return the place in `rows` of each function of an element, as n2p2 sorts them."""
    return sorted(range(len(rows)), key=lambda place: _key(rows[place]))


def _key(row: Row) -> Row:
    rs, lam, zeta = _angular(row)
    return (NUMBERS[KINDS[int(row[0])]], row[3], row[4], rs, zeta, lam, *sorted(row[1:3]))


def _angular(row: Row) -> tuple[float, float, float]:
    """Return rs, λ and ζ of a row of eight; λ and ζ are 0 of radial functions."""
    if KINDS[int(row[0])] in ("G2", "G2W"):
        return row[5], 0.0, 0.0
    return row[7], row[6], row[5]
