"""Find energies, forces and stresses of frames where a calculator does not hold them."""

from collections.abc import Collection
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

# Shapes of a stress: Voigt's order, or the whole matrix.
STRESSES: list[Any] = [(6,), (3, 3), (9,)]
# Arrays of ASE's own, which are no forces.
OWN_ARRAYS = ("positions", "momenta", "initial_magmoms", "numbers")


@dataclass(frozen=True)
class Labels:
    """Hold the names under which frames have what they are trained on.

    energy, forces, stress : keys of `Atoms.info` or `Atoms.arrays`, of a calculator's results, or
        of the `data` and `key_value_pairs` of ASE's databases; None for what the calculator gives.
        In eV, eV/Å and eV/Å³; a stress key with "virial" in it names a virial, see `stress_of`
    missing_forces : "error", or "ignore" for frames without forces
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    missing_forces: str = "error"

    @property
    def keys(self) -> dict[str, str]:
        """Return {"energy", "forces" or "stress": key} of those that are not the calculator's."""
        names = {"energy": self.energy, "forces": self.forces, "stress": self.stress}
        return {name: key for name, key in names.items() if key is not None}

    def apply(self, atoms: Atoms, index: int = 0) -> Atoms:
        """Return a copy of frame `index` whose calculator holds what stands under the keys.

        Raises ValueError that names the frame, and what keys there are, where there is no such key
        or it holds something else. Frames without a stress are left without one.
        """
        if not self.keys or not isinstance(atoms, Atoms):
            return atoms
        results = dict(getattr(atoms.calc, "results", {}))
        shapes: dict[str, list] = {
            "energy": [()],
            "forces": [(len(atoms), 3)],
            "stress": STRESSES,
        }
        for name, key in self.keys.items():
            value = _found(atoms, key)
            if value is None and name == "stress":
                results.pop("stress", None)
                continue
            if value is None and name == "forces" and self.missing_forces == "ignore":
                results.pop("forces", None)
                continue
            if value is None:
                raise ValueError(
                    f"frame {index} has nothing under {key!r}, which dataset.{name}_key names; "
                    f"{keys_there(atoms)}"
                )
            array = _numbers(value)
            if array is None or array.shape not in shapes[name]:
                raise ValueError(
                    f"frame {index}: what stands under {key!r} (dataset.{name}_key) is no {name}: "
                    f"{value!r:.80}"
                )
            if name == "stress":
                results[name] = _stress(atoms, key, array, index)
            else:
                results[name] = float(array) if name == "energy" else array
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **results)
        return copy


def stress_of(atoms: Atoms, name: int | str = 0) -> np.ndarray | None:
    """Return the stress (6,) that a frame was labelled with, eV/Å³, or None where there is none.

    It is positive under tension, in the order xx, yy, zz, yz, xz, xy. It is what the calculator
    holds, or `info["stress"]`, or −virial/volume for `info["virial"]` (eV). Each may be 6 numbers
    in this order, 9, or 3 by 3.

    name : what errors call the frame

    Raises ValueError where such a label is something else, or not finite.
    """
    for key, place in (
        ("stress", getattr(atoms.calc, "results", {})),
        ("stress", atoms.info),
        ("virial", atoms.info),
    ):
        value = place.get(key)
        if value is None:
            continue
        array = _numbers(value)
        if array is None or array.shape not in STRESSES or not np.isfinite(array).all():
            raise ValueError(
                f"frame {name}: {key} {value!r:.80} is not made of 6, 9 or 3 by 3 finite numbers"
            )
        return _stress(atoms, key, array, name)
    return None


def keys_there(atoms: Atoms, known: Collection[str] = ()) -> str:
    """Return words about the keys of a frame that may be energies, and those that may be forces.

    known : "energy", "forces", those of which nothing need be said
    """
    places = {**_info(atoms), **getattr(atoms.calc, "results", {})}
    arrays = {**places, **{k: v for k, v in atoms.arrays.items() if k not in OWN_ARRAYS}}
    found = {
        "energy": ("numbers", [key for key, v in places.items() if _shape(v) == ()]),
        "forces": (
            "vectors of its atoms",
            [key for key, v in arrays.items() if _shape(v) == (len(atoms), 3)],
        ),
    }
    words = [
        f"the {what} {', '.join(map(repr, keys))} (name one in dataset.{name}_key, --{name}-key)"
        for name, (what, keys) in found.items()
        if keys and name not in known
    ]
    return f"it has {' and '.join(words)}" if words else "it has no other numbers"


def other_stress_keys(atoms: Atoms) -> list[str]:
    """Return the keys of a frame that look like stresses, and that `stress_of` does not know."""
    places = {**_info(atoms), **getattr(atoms.calc, "results", {})}
    return [
        key
        for key, value in places.items()
        if key not in ("stress", "virial")
        and ("stress" in key.lower() or "virial" in key.lower())
        and _shape(value) in STRESSES
    ]


def _info(atoms: Atoms) -> dict[str, Any]:
    """Return `Atoms.info`, with what ASE's databases put below it."""
    parts = [atoms.info.get(name) for name in ("key_value_pairs", "data")]
    return {
        **atoms.info,
        **{k: v for part in parts if isinstance(part, dict) for k, v in part.items()},
    }


def _found(atoms: Atoms, key: str) -> Any:
    for place in (_info(atoms), atoms.arrays, getattr(atoms.calc, "results", {})):
        if place.get(key) is not None:
            return place[key]
    return None


def _numbers(value: Any) -> np.ndarray | None:
    """Return the value as an array of numbers; None where it is none."""
    if isinstance(value, bool) or (np.isscalar(value) and not isinstance(value, Real)):
        return None
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _shape(value: Any) -> tuple[int, ...] | None:
    array = _numbers(value)
    return None if array is None else array.shape


def _stress(atoms: Atoms, key: str, array: np.ndarray, name: int | str) -> np.ndarray:
    """Return the stress (6,), in ASE's order, of numbers under a key, which may be a virial."""
    if array.shape != (6,):
        array = array.reshape(3, 3)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    if "virial" not in key.lower():
        return array
    if atoms.cell.rank < 3:
        raise ValueError(
            f"frame {name} has a virial under {key!r}, and no three cell vectors whose volume "
            "would make a stress of it"
        )
    return -array / atoms.cell.volume
