"""The ASE calculator."""

from typing import ClassVar

from ase.calculators.calculator import Calculator, all_changes

from amptorch.checks import number
from amptorch.distances import warn_of_lonely
from amptorch.frames import Frames
from amptorch.neighbors import VerletList
from amptorch.threads import use_threads


class AmpTorch(Calculator):
    """Energy (eV) and forces (eV/Å) of a trained `AtomsTrainer`, for ASE's optimisers and dynamics.

    skin : Å beyond the cutoff up to which neighbours are listed; the list is searched anew only
        when an atom has moved half of it, or the cell or the atoms have changed

    There is no stress. What it has computed is kept until the atoms change: after more training,
    call `reset()` or make another.

    Raises ValueError where skin is no number of at least 0; `calculate`, before any work, where an
    element is not one of the model's.
    """

    implemented_properties: ClassVar[list] = ["energy", "free_energy", "forces"]

    def __init__(self, trainer, skin=0.3, **kwargs):
        super().__init__(**kwargs)
        self.trainer = trainer
        skin = number(minimum=0)("skin", skin)
        self.neighbors = VerletList(trainer.potential.descriptor.cutoff, skin)
        self._lonely = False
        if not trainer.forcetraining:
            self.implemented_properties = ["energy", "free_energy"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        potential = self.trainer.potential
        frames = Frames.from_atoms([self.atoms], potential.elements)
        with use_threads(self.trainer.settings.cmd.threads):
            neighbors = self.neighbors.update(frames)
            if "numbers" in system_changes:
                potential.check_compositions(frames)
                self._lonely = False
            if not self._lonely:
                self._lonely = warn_of_lonely(frames, neighbors, potential.descriptor.cutoff)
            batch = potential.batch(frames, neighbors)
            self.results = self.evaluated(potential, batch)

    def evaluated(self, potential, batch):
        """ASE's results for the one frame in `batch`."""
        energies, forces = potential.evaluate(batch)
        results = {"energy": float(energies[0]), "free_energy": float(energies[0])}
        return {**results, "forces": forces} if self.trainer.forcetraining else results
