"""What every potential must do; a test class inherits it and says which network."""

import numpy as np
import pytest
import torch
from ase.build import make_supercell
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from amptorch.datasets import iron_water
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.potential import Potential
from amptorch.preprocessing import FeatureScaler, TargetScaler
from tests.contracts import systems
from tests.contracts.descriptor import STENCIL, STEP

FP_PARAMS = {
    "default": {
        "cutoff": 5.0,
        "G2": {"etas": [0.5, 4.0], "rs_s": [0.0, 1.0]},
        "G4": {"etas": [0.05], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
    }
}
every_system = pytest.mark.parametrize("name", systems.NAMES)


class PotentialContract:
    """A subclass has `network(elements, input_dim)`, with parameters of its own choice."""

    def potential_for(self, atoms):
        descriptor = Gaussian(FP_PARAMS, systems.elements_of(atoms))
        # Scalers as they are fitted to a few frames of a data set.
        images = [atoms.copy() for _ in range(6)]
        for seed, image in enumerate(images):
            noise = np.random.default_rng(seed).normal(scale=0.3, size=image.positions.shape)
            image.positions += noise
        frames = Frames.from_atoms(images)
        values = descriptor.values(frames)
        features = FeatureScaler.from_arrays(values, frames.numbers, {"type": "standardize"})
        targets = TargetScaler.from_arrays(np.random.default_rng(0).normal(-40, 3.0, 6))
        network = self.network(descriptor.elements, descriptor.n_features)
        return Potential(descriptor, network, features, targets, torch.float64)

    def evaluate(self, potential, images):
        return potential.evaluate(potential.batch(Frames.from_atoms(images)))

    def forces_agree(self, atoms, moves, step=STEP):
        """Forces along `moves`, pairs (atom, axis), against differences of the energy."""
        potential = self.potential_for(atoms)
        _, forces = self.evaluate(potential, [atoms])
        moved = []
        for atom, axis in moves:
            for multiple in STENCIL:
                image = atoms.copy()
                image.positions[atom, axis] += multiple * step
                moved.append(image)
        energies, _ = self.evaluate(potential, moved)
        slopes = energies.reshape(-1, len(STENCIL)) @ list(STENCIL.values()) / step
        scale = np.abs(forces).max()
        assert scale > 1e-3 or len(atoms) == 1
        expected = [-forces[atom, axis] for atom, axis in moves]
        assert_allclose(slopes, expected, rtol=1e-7, atol=1e-7 * max(scale, 1.0))

    @every_system
    def test_forces_are_the_slope_of_the_energy(self, name):
        atoms = systems.make(name)
        self.forces_agree(atoms, [(a, axis) for a in range(len(atoms)) for axis in range(3)])

    def test_forces_of_164_atoms(self):
        atoms = iron_water(1, seed=3, min_water=44)[0]
        assert len(atoms) == 164
        rng = np.random.default_rng(0)
        moves = [(rng.integers(164), rng.integers(3)) for _ in range(12)]
        # Among so many pairs a longer step would carry one across its cutoff, where the second
        # derivative of the cosine cutoff jumps.
        self.forces_agree(atoms, moves, step=1e-5)

    @every_system
    def test_invariances(self, name):
        atoms = systems.make(name)
        potential = self.potential_for(atoms)
        energies, forces = self.evaluate(potential, [atoms])
        energy, scale = energies[0], max(np.abs(forces).max(), 1.0)

        def same(image, turn=None, order=slice(None)):
            e, f = self.evaluate(potential, [image])
            assert_allclose(e[0], energy, rtol=1e-10)
            expected = forces if turn is None else forces @ turn.T
            assert_allclose(f, expected[order], atol=1e-10 * scale)

        translated = atoms.copy()
        translated.positions += [0.7, -11.3, 5.1]
        same(translated)

        turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
        rotated = atoms.copy()
        rotated.set_cell(atoms.cell.array @ turn.T)
        rotated.positions = atoms.positions @ turn.T
        same(rotated, turn)

        wrapped = atoms.copy()
        wrapped.wrap()
        same(wrapped)

        order = np.random.default_rng(4).permutation(len(atoms))
        same(atoms[order], order=order)

        complete = atoms.copy()
        complete.set_cell(atoms.cell.complete())
        doubled = make_supercell(complete, np.diag(np.where(atoms.pbc, 2, 1)))
        per_atom = (self.evaluate(potential, [doubled])[0][0] - potential.mean) / len(doubled)
        assert_allclose(per_atom, (energy - potential.mean) / len(atoms), rtol=1e-10, atol=1e-10)
