"""What every descriptor must do; a test class inherits it and says how to make one."""

import numpy as np
import pytest
from ase.build import make_supercell
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import coo_matrix
from scipy.spatial.transform import Rotation

from amptorch.descriptor.blocks import RecomputedDerivatives
from amptorch.frames import Frames
from amptorch.neighbors import neighbor_list
from tests.contracts import systems

# The molecule is the smallest, so it is the one for the runs without JIT.
SYSTEMS = [
    pytest.param(name, marks=pytest.mark.nojit if name == "molecule" else ())
    for name in systems.NAMES
]
every_system = pytest.mark.parametrize("name", SYSTEMS)
# The twins of the others take long.
SMALL = [system for system in SYSTEMS if system.values[0] in ("molecule", "skewed_cell")]
OTHERS = [pytest.param(*s.values, marks=pytest.mark.slow) for s in SYSTEMS if s not in SMALL]
every_twin = pytest.mark.parametrize("name", SMALL + OTHERS)
# Fourth-order central difference of a function at these multiples of the step.
STENCIL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
STEP = 1e-3  # Å, where the stencil's error and rounding are both below 1e-9


def dense(blocks, frame=0):
    """Derivatives of one frame as a dense matrix (n_atoms · n_features, 3 · n_atoms)."""
    (row, col), val, size = blocks.sparse(frame)
    return coo_matrix((val, (row, col)), shape=tuple(size)).toarray()


def close(actual, desired, rtol=1e-10):
    """Agreement relative to the largest number there is."""
    scale = np.abs(desired).max(initial=1e-3)
    assert_allclose(actual, desired, rtol=rtol, atol=rtol * scale)


class DescriptorContract:
    """A subclass has `make(elements)`, the descriptor, and `reference(descriptor, atoms)`: values
    (n, S), derivatives (n, S, n, 3) and strain derivatives (n, S, 3, 3) by its slow twin.

    `rotation` is one that changes nothing: any, unless the subclass says otherwise.
    """

    rotation = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()

    def setup_for(self, name, seed=0):
        atoms = systems.make(name, seed)
        return atoms, Frames.from_atoms([atoms]), self.make(systems.elements_of(atoms))

    def batch(self):
        """Frames of different sizes, cells and periodicity, and a descriptor for all of them."""
        images = [systems.make(name) for name in ("molecule", "chain", "outside_the_cell")]
        elements = sorted({symbol for atoms in images for symbol in systems.elements_of(atoms)})
        return Frames.from_atoms(images), self.make(elements)

    @every_twin
    def test_agrees_with_the_slow_twin(self, name):
        atoms, frames, descriptor = self.setup_for(name)
        values, jacobian, strain = self.reference(descriptor, atoms)
        n, features = values.shape
        fast, blocks = descriptor.values_and_derivatives(frames)
        close(fast, values)
        close(descriptor.values(frames), values)
        close(dense(blocks), jacobian.reshape(n * features, 3 * n))
        if n > 1:
            assert np.abs(dense(blocks)).max() > 1e-3
        g = np.random.default_rng(1).normal(size=values.shape)
        close(descriptor.vjp(frames, g), np.einsum("is,isjk->jk", g, jacobian))
        neighbors = neighbor_list(frames, descriptor.cutoff)
        gradients = descriptor.pair_gradients(frames, g, neighbors)
        virial = np.einsum("pa,pb->ab", gradients, neighbors.vectors)
        of_atoms = np.einsum("is,isab->iab", g, strain)
        close(virial, of_atoms.sum(axis=0))
        _, virials = descriptor.vjp_and_virials(frames, g, neighbors)
        symmetric = (of_atoms + of_atoms.transpose(0, 2, 1)) / 2
        close(virials, symmetric[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]])
        assert np.abs(virial).max() > 1e-3
        half = (strain + strain.swapaxes(2, 3)) / 2
        close(
            descriptor.strain_derivatives(frames, neighbors),
            half[:, :, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        )

    @every_system
    def test_strains_are_adjoint_and_equal_in_all_back_ends(self, name):
        _, frames, descriptor = self.setup_for(name)
        frames = frames.select([0, 0])
        _, blocks = descriptor.values_and_derivatives(frames)
        blocks.strains = descriptor.strain_derivatives(frames)
        rng = np.random.default_rng(8)
        g = rng.normal(size=(frames.n_atoms, descriptor.n_features))
        v, strain = rng.normal(size=(frames.n_atoms, 3)), rng.normal(size=(2, 6))
        neighbors = neighbor_list(frames, descriptor.cutoff)
        recomputed = RecomputedDerivatives(descriptor, frames, neighbors)
        rows = np.arange(0, frames.n_atoms, 2)
        moved = descriptor.jvp(frames, v, neighbors, strain=strain)
        gradient, virials = descriptor.vjp_and_virials(frames, g, neighbors)
        virials = np.add.reduceat(virials, frames.offsets[:-1])
        close(np.vdot(g, moved), np.vdot(gradient, v) + np.vdot(virials, strain))
        for backend in (blocks, recomputed):
            close(backend.jvp([0, 1], v, strain=strain), moved)
            for found, expected in zip(
                backend.vjp_and_virials([0, 1], g, rows), (gradient[rows], virials), strict=True
            ):
                close(found, expected)
            close(
                backend.jvp([1], v[rows[: len(rows) // 2]], rows[: len(rows) // 2], strain[:1]),
                descriptor.jvp(
                    frames[1],
                    v[rows[: len(rows) // 2]],
                    rows=rows[: len(rows) // 2],
                    strain=strain[:1],
                ),
            )

    @every_system
    def test_contractions_are_adjoint_and_equal_the_blocks(self, name):
        _, frames, descriptor = self.setup_for(name)
        _, blocks = descriptor.values_and_derivatives(frames)
        n, features = frames.n_atoms, descriptor.n_features
        rng = np.random.default_rng(2)
        g, v = rng.normal(size=(n, features)), rng.normal(size=(n, 3))
        jacobian = dense(blocks)
        expected_vjp = (g.ravel() @ jacobian).reshape(n, 3)
        expected_jvp = (jacobian @ v.ravel()).reshape(n, features)
        neighbors = neighbor_list(frames, descriptor.cutoff)
        recomputed = RecomputedDerivatives(descriptor, frames, neighbors)
        for vjp, jvp in [
            (descriptor.vjp(frames, g), descriptor.jvp(frames, v)),
            (blocks.vjp([0], g), blocks.jvp([0], v)),
            (recomputed.vjp([0], g), recomputed.jvp([0], v)),
        ]:
            close(vjp, expected_vjp)
            close(jvp, expected_jvp)
            close(np.vdot(g, jvp), np.vdot(vjp, v))
        # One atom, some, and most: the kernels take different ways.
        for size in {1, max(1, n // 3), n - 1}:
            rows = np.sort(rng.choice(n, size, replace=False))
            alone = np.zeros((n, 3))
            alone[rows] = v[rows]
            expected = (jacobian @ alone.ravel()).reshape(n, features)
            for backend in (blocks, recomputed):
                close(backend.vjp([0], g, rows), expected_vjp[rows])
                close(backend.jvp([0], v[rows], rows), expected)

    @pytest.mark.parametrize("name", systems.NAMES)
    def test_gradient_is_the_central_difference(self, name):
        atoms, frames, descriptor = self.setup_for(name)
        g = np.random.default_rng(3).normal(size=(len(atoms), descriptor.n_features))
        moved = []
        for atom in range(len(atoms)):
            for axis in range(3):
                for multiple in STENCIL:
                    image = atoms.copy()
                    image.positions[atom, axis] += multiple * STEP
                    moved.append(image)
        values = descriptor.values(Frames.from_atoms(moved)).reshape(-1, *g.shape)
        energies = np.einsum("mis,is->m", values, g).reshape(-1, len(STENCIL))
        numeric = (energies @ list(STENCIL.values())).reshape(-1, 3) / STEP
        assert_allclose(descriptor.vjp(frames, g), numeric, rtol=1e-7, atol=1e-7)

    @pytest.mark.parametrize("name", systems.NAMES)
    def test_invariances(self, name):
        atoms, frames, descriptor = self.setup_for(name)
        values = descriptor.values(frames)

        def values_of(image):
            return descriptor.values(Frames.from_atoms([image]))

        translated = atoms.copy()
        translated.positions += [0.7, -11.3, 5.1]
        close(values_of(translated), values)

        rotation = self.rotation
        rotated = atoms.copy()
        rotated.set_cell(atoms.cell.array @ rotation.T)
        rotated.positions = atoms.positions @ rotation.T
        close(values_of(rotated), values)

        wrapped = atoms.copy()
        wrapped.wrap()
        close(values_of(wrapped), values)

        order = np.random.default_rng(4).permutation(len(atoms))
        close(values_of(atoms[order]), values[order])

        repeats = np.diag(np.where(atoms.pbc, 2, 1))
        # ASE's supercell needs three cell vectors; those of free directions mean nothing.
        complete = atoms.copy()
        complete.set_cell(atoms.cell.complete())
        doubled = make_supercell(complete, repeats, order="cell-major")
        close(values_of(doubled), np.tile(values, (len(doubled) // len(atoms), 1)))

    def test_rotated_gradient(self):
        atoms, frames, descriptor = self.setup_for("skewed_cell")
        rotation = self.rotation
        rotated = atoms.copy()
        rotated.set_cell(atoms.cell.array @ rotation.T, scale_atoms=True)
        g = np.random.default_rng(5).normal(size=(len(atoms), descriptor.n_features))
        gradient = descriptor.vjp(frames, g)
        assert np.abs(gradient).max() > 1e-3
        close(descriptor.vjp(Frames.from_atoms([rotated]), g), gradient @ rotation.T)
        # No net force, because nothing changes when all atoms move together.
        close(gradient.sum(axis=0), np.zeros(3))

    def test_a_batch_is_its_frames_one_by_one(self):
        frames, descriptor = self.batch()
        values, blocks = descriptor.values_and_derivatives(frames)
        rng = np.random.default_rng(6)
        g, v = rng.normal(size=values.shape), rng.normal(size=(frames.n_atoms, 3))
        vjp, jvp = descriptor.vjp(frames, g), descriptor.jvp(frames, v)
        parts = []
        for f in range(len(frames)):
            atoms = slice(frames.offsets[f], frames.offsets[f + 1])
            one, part = descriptor.values_and_derivatives(frames[f])
            parts.append(part)
            assert_array_equal(values[atoms], one)
            assert_array_equal(dense(blocks, f), dense(part))
            assert_array_equal(vjp[atoms], descriptor.vjp(frames[f], g[atoms]))
            assert_array_equal(jvp[atoms], descriptor.jvp(frames[f], v[atoms]))
        joined = type(blocks).concatenate(parts)
        picked = np.array([1, 2, 0])
        rows = frames.atom_rows(picked)
        neighbors = neighbor_list(frames, descriptor.cutoff)
        recomputed = RecomputedDerivatives(descriptor, frames, neighbors)
        for backend in (blocks, joined, recomputed):
            close(backend.vjp(picked, g[rows]), vjp[rows])
            close(backend.jvp(picked, v[rows]), jvp[rows])

    def test_same_bits_on_one_thread_and_two(self, monkeypatch):
        frames, descriptor = self.batch()
        frames = frames.select([0, 1, 2, 0, 1, 2])
        rng = np.random.default_rng(7)
        g = rng.normal(size=(frames.n_atoms, descriptor.n_features))
        v = rng.normal(size=(frames.n_atoms, 3))
        results = []
        for threads in ("1", "2"):
            monkeypatch.setenv("AMPTORCH_NUM_THREADS", threads)
            values, blocks = descriptor.values_and_derivatives(frames)
            every = np.arange(len(frames))
            results.append(
                (
                    values,
                    descriptor.values(frames),
                    *(dense(blocks, f) for f in every),
                    blocks.vjp(every, g),
                    blocks.jvp(every, v),
                    descriptor.vjp(frames, g),
                    descriptor.jvp(frames, v),
                )
            )
        for one, two in zip(*results, strict=True):
            assert_array_equal(one, two)

    def test_single_precision(self):
        frames, descriptor = self.batch()
        values, blocks = descriptor.values_and_derivatives(frames)
        single_values, single = descriptor.values_and_derivatives(frames, dtype=np.float32)
        close(single_values, values, rtol=1e-5)
        for f in range(len(frames)):
            close(dense(single, f), dense(blocks, f), rtol=1e-5)
        assert single.nbytes < 0.75 * blocks.nbytes

    def test_neighbours_of_a_longer_cutoff_change_nothing(self):
        frames, descriptor = self.batch()
        longer = neighbor_list(frames, descriptor.cutoff + 1.5)
        g = np.random.default_rng(8).normal(size=(frames.n_atoms, descriptor.n_features))
        close(descriptor.values(frames, longer), descriptor.values(frames))
        close(descriptor.vjp(frames, g, longer), descriptor.vjp(frames, g))

    def test_prepare_fingerprints_has_v1_layout(self):
        images = [systems.make("molecule"), systems.make("molecule", seed=1)]
        descriptor = self.make(systems.elements_of(images[0]))
        values, blocks = descriptor.values_and_derivatives(Frames.from_atoms(images))
        prepared = descriptor.prepare_fingerprints(
            images, calc_derivatives=True, save_fps=False, verbose=False, cores=1, log=None
        )
        n = len(images[0])
        for f, entry in enumerate(prepared):
            assert entry["num_atoms"] == n
            assert_array_equal(entry["atomic_numbers"], images[f].numbers)
            close(entry["descriptors"], values[f * n : (f + 1) * n])
            assert entry["num_descriptors"] == descriptor.num_descriptors
            primes = entry["descriptor_primes"]
            shape = (n * descriptor.n_features, 3 * n)
            assert tuple(primes["size"]) == shape
            matrix = coo_matrix((primes["val"], (primes["row"], primes["col"])), shape=shape)
            close(matrix.toarray(), dense(blocks, f))

    def test_an_unknown_element_is_an_error(self):
        descriptor = self.make(["H", "O"])
        images = [systems.make("molecule")]
        with pytest.raises(ValueError, match=r"frame 0.*C.*\['H', 'O'\]"):
            descriptor.prepare_fingerprints(
                images, calc_derivatives=False, save_fps=False, verbose=False, cores=1, log=None
            )
