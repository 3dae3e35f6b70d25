"""v1.0's import path of what makes data objects."""

from amptorch.descriptor.descriptor_calculator import DescriptorCalculator
from amptorch.v1.atoms_to_data import AtomsToData

__all__ = ["AtomsToData", "DescriptorCalculator"]
