"""Name the units that energies and forces may be in, by the factor they are off."""

import numpy as np
from ase.units import Bohr, Hartree, Rydberg, kcal, kJ, mol, nm

# eV/Å²: force constants of bonds of hydrogen to C, N and O; 24 to 95 in real data.
STIFFNESS = (8.0, 250.0)
# eV and eV/Å in other units, the commonest first.
ENERGY_UNITS = {
    "Hartree": 1 / Hartree,
    "kcal/mol": mol / kcal,
    "kJ/mol": mol / kJ,
    "Rydberg": 1 / Rydberg,
    "meV": 1000.0,
}
FORCE_UNITS = {
    "Hartree/Bohr": Bohr / Hartree,
    "kcal/mol/Å": mol / kcal,
    "eV/Bohr": Bohr,
    "Rydberg/Bohr": Bohr / Rydberg,
    "kJ/mol/Å": mol / kJ,
    "kJ/mol/nm": nm * mol / kJ,
    "Hartree/Å": 1 / Hartree,
    "meV/Å": 1000.0,
}


def likely_units(
    slope: float, trust: float, stiffness: float | None, atoms: float | None
) -> list[str]:
    """Return in words the units that would give such a slope, the commonest first.

    Where the force constant `stiffness` of the bonds of hydrogen is known, it says which of the
    two are in another unit.
    """
    known = {f"energies in {unit}": factor for unit, factor in ENERGY_UNITS.items()}
    if atoms is not None and atoms > 1:
        known["energies per atom"] = 1 / atoms
    of_forces = {f"forces in {unit}": 1 / factor for unit, factor in FORCE_UNITS.items()}
    of_forces["energies in Hartree and forces in Hartree/Bohr"] = 1 / Bohr
    if stiffness is None:
        known |= of_forces
    elif not STIFFNESS[0] <= stiffness <= STIFFNESS[1]:
        known = of_forces
    return [
        f"{name} ({factor:.3g})"
        for name, factor in known.items()
        if abs(np.log(slope / factor)) < np.log(trust)
    ]
