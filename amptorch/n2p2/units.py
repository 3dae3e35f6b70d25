"""The units of files, which do not say them."""

from typing import Literal, TypeAlias

from ase.units import Bohr, Hartree

Units: TypeAlias = Literal["angstrom", "bohr"]
# Å of the length and eV of the energy: Å and eV, or Bohr and Hartree.
FACTORS = {"angstrom": (1.0, 1.0), "bohr": (Bohr, Hartree)}


def factors(units: str) -> tuple[float, float]:
    """Return the unit of length in Å and that of energy in eV.

    units : "angstrom" for Å and eV, "bohr" for Bohr and Hartree; ValueError for another
    """
    if units not in FACTORS:
        raise ValueError(
            f"units is {units!r}; expected 'angstrom' (Å and eV) or 'bohr' (Bohr and Hartree)"
        )
    return FACTORS[units]
