"""Training of potentials."""

from amptorch.trainer.atoms_trainer import AtomsTrainer

__all__ = ["AtomsTrainer"]
