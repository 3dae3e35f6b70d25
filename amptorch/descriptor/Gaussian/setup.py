"""From `fp_params` to the table of symmetry functions of every element.

A table has one row of seven numbers per symmetry function: type (1 to 5 for G1 to G5, 12, 14 and 15
for G2W, G4W and G5W), atomic number of the neighbour, atomic number of the second neighbour (0 for
G1 to G3, both 0 for weighted functions), cutoff in Å, and

- G1: 0, 0, 0;
- G2, G2W: eta in 1/Å², Rs in Å, 0;
- G3: kappa in 1/Å, 0, 0;
- G4, G5, G4W, G5W: eta in 1/Å², zeta, gamma (the lambda of the literature).

Where an angular function has an Rs other than 0, there is an eighth column, Rs in Å of angular
functions.

Rows are sorted by type, then in the order of Python tuples; the row is the feature.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from amptorch.frames import symbol_numbers

# The parameters of each type, in the order of the table's last three columns.
PARAMETERS = {
    "G1": (),
    "G2": ("eta", "rs"),
    "G3": ("kappa",),
    "G4": ("eta", "zeta", "gamma", "rs"),
    "G5": ("eta", "zeta", "gamma", "rs"),
    "G2W": ("eta", "rs"),
    "G4W": ("eta", "zeta", "gamma", "rs"),
    "G5W": ("eta", "zeta", "gamma", "rs"),
}
TYPES = {"G1": 1, "G2": 2, "G3": 3, "G4": 4, "G5": 5, "G2W": 12, "G4W": 14, "G5W": 15}
KINDS = {number: kind for kind, number in TYPES.items()}
ANGULAR = ("G4", "G5", "G4W", "G5W")
# Functions of all neighbours, each with its atomic number for a weight.
WEIGHTED_KINDS = ("G2W", "G4W", "G5W")
# The types whose eta v1.0's dictionary form gives in units of 1/Rc²; G5's is in 1/Å² there.
ETA_IN_RC2 = ("G2", "G4", "G2W", "G4W")

DICT_KEYS = {"eta": "etas", "rs": "rs_s", "kappa": "kappas", "zeta": "zetas", "gamma": "gammas"}
LIST_KEYS = {
    **{name: name for name in ("eta", "rs", "kappa", "zeta", "gamma")},
    "Rs": "rs",
    "offset": "rs",
}
DEFAULTS = {"rs": 0.0}
# The cosine, Amp's polynomial, and the other ones of n2p2.
CUTOFF_FUNCTIONS = (
    *("cosine", "polynomial", "hard", "tanh", "tanh_scaled", "exp"),
    *("poly1", "poly2", "poly3", "poly4"),
)
WITHOUT_ALPHA = ("polynomial", "hard", "tanh", "tanh_scaled")
# Amp's own default, for its list form, which does not say the cutoff.
AMP_CUTOFF = 6.5


def descriptor_setup(fp_params: Any, elements: Iterable[str]) -> dict[str, np.ndarray]:
    """Return {symbol: table (n, 7), or (n, 8)} of the symmetry functions of `fp_params`.

    `fp_params` has a key per element, or "default" for all that have none of their own. What is
    under it is either v1.0's dictionary,

        {"cutoff": Rc, "G1": {}, "G2": {"etas": [...], "rs_s": [...]}, "G3": {"kappas": [...]},
         "G4": {"etas": [...], "zetas": [...], "gammas": [...], "rs_s": [...]}, "G5": {...},
         "G2W": {...}, "G4W": {...}, "G5W": {...}},

    every combination of the values with every element (G1 to G3) or unordered pair of elements (G4,
    G5), or once with all neighbours (G2W, G4W, G5W), the eta of G2, G4, G2W and G4W divided by Rc²
    and that of G5 and G5W used as it is; or Amp's list,

        [{"type": "G2", "element": "O", "eta": 4.0, "Rs": 0.0},
         {"type": "G4", "elements": ["O", "H"], "eta": 0.005, "zeta": 1.0, "gamma": 1.0},
         {"type": "G2W", "eta": 4.0, "Rs": 0.0},
         {"type": "G4W", "eta": 0.005, "zeta": 1.0, "gamma": 1.0}],

    in Amp's convention (A. Khorshidi, A. A. Peterson, Comput. Phys. Commun. 207, 310 (2016)): one
    function per entry, every eta, G5's too, divided by Rc²; "offset" is another name of "Rs"; Rc is
    the entry's "cutoff", else that of `fp_params` itself, else 6.5 Å. An Rs that is left out is 0.

    `fp_params` may also be a GaussianDescriptorSet. Raises ValueError or TypeError that names
    the element and the key; changes nothing it is given.
    """
    numbers = dict(zip(elements, symbol_numbers(elements), strict=True))
    if hasattr(fp_params, "descriptor_setup"):
        return _from_descriptor_set(fp_params, numbers)
    if not isinstance(fp_params, Mapping):
        raise TypeError(
            f"fp_params is {type(fp_params).__name__}; expected a dictionary with a key per "
            "element or 'default', or a GaussianDescriptorSet"
        )
    symbols = [key for key in fp_params if atomic_numbers.get(key)]
    check_keys("fp_params", fp_params, [*numbers, *symbols, "default", "cutoff"])
    common = fp_params.get("cutoff")
    setup = {}
    for symbol in numbers:
        section = symbol if symbol in fp_params else "default"
        if section not in fp_params:
            raise ValueError(f"fp_params has neither {symbol!r} nor 'default'")
        given, where = fp_params[section], f"fp_params[{section!r}]"
        if isinstance(given, Mapping):
            rows = _from_dict(given, where, numbers, common)
        elif isinstance(given, (list, tuple)):
            rows = _from_list(given, where, numbers, common)
        else:
            raise TypeError(
                f"{where} is {type(given).__name__}; expected a dictionary or Amp's list"
            )
        setup[symbol] = table(rows, where)
    return setup


def setup_hash(setup: Mapping[str, np.ndarray], cutoff_params: Mapping[str, Any] | None) -> str:
    """Return the md5 that names a set-up: the cutoff function, then each element and its table."""
    name, parameter = cutoff_function(cutoff_params)
    parts = [f"{name}{parameter:.15f}" if parameter else name]
    for symbol, rows in setup.items():
        parts.append(symbol)
        parts.extend(f"{value:.15f}" for value in rows.flat)
    return hashlib.md5("".join(parts).encode()).hexdigest()


def cutoff_parameters(
    cutoff_func: str | Mapping[str, Any] | None, gamma: float | None = None
) -> dict[str, Any]:
    """Return `cutoff_params` of the name and the gamma of a cutoff function.

    `cutoff_func` may also be `cutoff_params` themselves, or None for the cosine.
    """
    if cutoff_func is None:
        return {"cutoff_func": "cosine"}
    if isinstance(cutoff_func, Mapping):
        return dict(cutoff_func)
    return {"cutoff_func": cutoff_func, **({} if gamma is None else {"gamma": gamma})}


def cutoff_function(cutoff_params: Mapping[str, Any] | None) -> tuple[str, float]:
    """Return the name of a cutoff function and its parameter; None is the cosine.

    The names are those of CUTOFF_FUNCTIONS, in any case. The parameter is `gamma` of "polynomial",
    which must be positive, and of the others `alpha`, 0 where it is not given: the function is 1 up
    to alpha·Rc and falls from there to 0 at Rc. "hard", "tanh" and "tanh_scaled" have none.

    Raises ValueError for another name, or a parameter that is missing or has no meaning.
    """
    if cutoff_params is None:
        return "cosine", 0.0
    if not isinstance(cutoff_params, Mapping):
        raise TypeError(
            f"cutoff_params is {type(cutoff_params).__name__}, expected a dictionary such as "
            '{"cutoff_func": "Cosine"}'
        )
    check_keys("cutoff_params", cutoff_params, ["cutoff_func", "gamma", "alpha"])
    name = str(cutoff_params.get("cutoff_func")).lower()
    if name not in CUTOFF_FUNCTIONS:
        raise ValueError(
            f"cutoff_params['cutoff_func'] is {cutoff_params.get('cutoff_func')!r}; "
            f"expected 'Cosine' or 'Polynomial', or one of {[*CUTOFF_FUNCTIONS[2:]]}"
        )
    alpha = _number("cutoff_params['alpha']", cutoff_params.get("alpha", 0.0))
    if not 0 <= alpha < 1 or (alpha and name in WITHOUT_ALPHA):
        wanted = f"0 for {name!r}" if name in WITHOUT_ALPHA else "from 0 to below 1"
        raise ValueError(f"cutoff_params['alpha'] is {alpha}, must be {wanted}")
    if name != "polynomial":
        return name, alpha
    where = "cutoff_params['gamma']"
    gamma = _number(where, cutoff_params.get("gamma"))
    if gamma <= 0:
        raise ValueError(f"{where} is {gamma}, must be positive for the polynomial cutoff")
    return name, gamma


def table(rows: list[Any], where: str) -> np.ndarray:
    """Return the rows, sorted as v1.0 sorts them, as an (n, 7) array, (n, 8) where an angular
    function has an Rs; ValueError where there are none."""
    if not rows:
        raise ValueError(f"{where} has no symmetry functions; give at least one of {[*TYPES]}")
    complete = np.array(sorted(rows), dtype=np.float64)
    return complete if complete[:, 7:].any() else complete[:, :7].copy()


def table_row(
    where: str,
    kind: str,
    neighbors: Sequence[int],
    cutoff: Any,
    values: Iterable[Any],
    eta_in_rc2: bool,
) -> tuple[float, ...]:
    """Return one row of a table, with all eight columns.

    `neighbors`: one atomic number, two for G4 and G5, none for weighted functions. `values`: a
    number for each of the PARAMETERS of `kind`, of which the last, Rs, may be left out.
    `eta_in_rc2`: whether eta is given in units of 1/Rc². `where` names it in errors.
    """
    cutoff = check_cutoff(where, cutoff)
    names, given = PARAMETERS[kind], list(values)
    if len(given) > len(names):
        raise ValueError(f"{where}: {given} are too many values, expected {names}")
    given += [DEFAULTS.get(name) for name in names[len(given) :]]
    values = [
        _check(f"{where}: {name}", name, value) for name, value in zip(names, given, strict=True)
    ]
    if kind in ANGULAR:
        zeta, gamma = values[1:3]
        # (1 + gamma cos θ) can be negative there, and its power is then not a real number.
        if abs(gamma) > 1 and zeta != round(zeta):
            raise ValueError(f"{where}: gamma {gamma} beyond ±1 needs an integer zeta, not {zeta}")
    if eta_in_rc2:
        values[0] /= cutoff**2
    first, second = (*neighbors, 0, 0)[:2]
    return (TYPES[kind], first, second, cutoff, *values, *[0.0] * (4 - len(values)))


def check_cutoff(where: str, cutoff: Any) -> float:
    """Return the cutoff in Å as a float; raise ValueError where it is missing or not positive."""
    if cutoff is None:
        raise ValueError(f"{where} has no 'cutoff' (in Å)")
    cutoff = _number(f"{where}: cutoff", cutoff)
    if cutoff <= 0:
        raise ValueError(f"{where}: cutoff {cutoff} must be positive (in Å)")
    return cutoff


def check_keys(where: str, given: Iterable[Any], known: Iterable[str]) -> None:
    """Raise ValueError for a key of `given` that is not in `known`, with the nearest that is."""
    for key in given:
        if key not in known:
            near = [k for k in known if k.lower() == str(key).lower()]
            near = near or get_close_matches(str(key), known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {sorted(set(known))}"
            raise ValueError(f"{where} has the unknown key {key!r}; {hint}")


def _from_descriptor_set(descriptor_set: Any, numbers: dict[str, int]) -> dict[str, np.ndarray]:
    setup = {}
    for symbol in numbers:
        where = f"GaussianDescriptorSet: {symbol!r}"
        rows = descriptor_set.descriptor_setup.get(symbol, np.empty((0, 7)))
        # An eighth column may be missing.
        rows = np.pad(rows, [(0, 0), (0, 8 - rows.shape[1])])
        setup[symbol] = table(rows.tolist(), where)
        unknown = set(setup[symbol][:, 1:3].flat) - {0, *numbers.values()}
        if unknown:
            neighbor = chemical_symbols[int(min(unknown))]
            raise ValueError(
                f"{where} has functions of the neighbour {neighbor!r}, which is not in elements "
                f"{[*numbers]}; add it there, or make the set for these elements"
            )
    return setup


def _from_dict(
    given: Any, where: str, numbers: dict[str, int], common_cutoff: Any
) -> list[tuple[float, ...]]:
    check_keys(where, given, ["cutoff", *TYPES])
    cutoff = check_cutoff(where, given.get("cutoff", common_cutoff))
    rows = []
    for kind in given:
        if kind == "cutoff":
            continue
        inside = f"{where}[{kind!r}]"
        combinations = list(itertools.product(*_value_lists(given[kind], inside, kind)))
        for neighbors in neighbor_elements(kind, numbers.values()):
            rows += [
                table_row(inside, kind, neighbors, cutoff, values, kind in ETA_IN_RC2)
                for values in combinations
            ]
    return rows


def neighbor_elements(kind: str, numbers: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return the neighbour elements of a type: single ones, unordered pairs for G4 and G5, and one
    empty tuple for weighted functions."""
    size = 0 if kind in WEIGHTED_KINDS else 2 if kind in ANGULAR else 1
    return list(itertools.combinations_with_replacement(numbers, size))


def _value_lists(given: Any, where: str, kind: str) -> list[list[Any]]:
    """Return the list of values of each parameter of `kind`, in the order of PARAMETERS."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{where} is {type(given).__name__}, expected a dictionary")
    keys = [DICT_KEYS[name] for name in PARAMETERS[kind]]
    check_keys(where, given, keys)
    lists = []
    for name, key in zip(PARAMETERS[kind], keys, strict=True):
        default = DEFAULTS.get(name)
        if key not in given and default is None:
            raise ValueError(f"{where} has no {key!r}; {kind} needs {keys}")
        values = np.atleast_1d(np.asarray(given.get(key, default))).ravel().tolist()
        if not values:
            raise ValueError(f"{where}[{key!r}] is empty; give at least one value")
        lists.append(values)
    return lists


def _from_list(
    given: Any, where: str, numbers: dict[str, int], common_cutoff: Any
) -> list[tuple[float, ...]]:
    rows = []
    for place, entry in enumerate(given):
        inside = f"{where}[{place}]"
        if not isinstance(entry, Mapping):
            raise TypeError(f"{inside} is {type(entry).__name__}, expected a dictionary")
        kind = entry.get("type")
        if kind not in TYPES:
            raise ValueError(f"{inside}['type'] is {kind!r}, expected one of {[*TYPES]}")
        names = PARAMETERS[kind]
        key = "elements" if kind in ANGULAR else "element"
        known = [k for k, name in LIST_KEYS.items() if name in names]
        of_element = [] if kind in WEIGHTED_KINDS else [key]
        check_keys(inside, entry, ["type", *of_element, "cutoff", *known])
        given_values = {LIST_KEYS[k]: entry[k] for k in known if k in entry}
        values = [given_values.get(name, DEFAULTS.get(name)) for name in names]
        neighbors = _entry_neighbors(inside, key, entry.get(key), numbers) if of_element else []
        cutoff = entry.get("cutoff", AMP_CUTOFF if common_cutoff is None else common_cutoff)
        rows.append(table_row(inside, kind, neighbors, cutoff, values, "eta" in names))
    return rows


def _entry_neighbors(where: str, key: str, given: Any, numbers: dict[str, int]) -> list[int]:
    """Return the atomic numbers of an entry's element or elements, a pair in the order of
    `numbers`."""
    symbols = [given] if isinstance(given, str) else given
    if not isinstance(symbols, (list, tuple)) or len(symbols) != (1 if key == "element" else 2):
        expected = "one symbol" if key == "element" else "a list of two symbols"
        raise ValueError(f"{where}[{key!r}] is {given!r}, expected {expected}")
    for symbol in symbols:
        if symbol not in numbers:
            raise ValueError(f"{where}[{key!r}]: {symbol!r} is not in elements {list(numbers)}")
    order = list(numbers)
    return [numbers[symbol] for symbol in sorted(symbols, key=order.index)]


def _check(where: str, name: str, value: Any) -> float:
    value = _number(where, value)
    if name == "eta" and value < 0:
        raise ValueError(f"{where} {value} must not be negative")
    if name == "zeta" and value < 1:
        # v1.0 returns zeros for every function of the element in that case.
        raise ValueError(f"{where} {value} must be at least 1")
    return value


def _number(where: str, value: Any) -> float:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    try:
        # PyYAML reads 1e-3, which has no dot, as a string.
        number = float(value) if isinstance(value, (Real, str)) else np.nan
    except ValueError:
        number = np.nan
    if isinstance(value, bool) or not np.isfinite(number):
        raise ValueError(f"{where} is {value!r}, expected a finite number")
    return number
