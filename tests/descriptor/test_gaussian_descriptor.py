"""Gaussian symmetry functions against their slow twin and the contract of descriptors."""

import itertools
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.data import chemical_symbols
from hypothesis import assume, given
from hypothesis import strategies as st

from amptorch.datasets import iron_water
from amptorch.descriptor.Gaussian import GDS, Gaussian
from amptorch.descriptor.Gaussian.setup import CUTOFF_FUNCTIONS, WITHOUT_ALPHA, cutoff_function
from amptorch.frames import Frames
from amptorch.kernels.lanes import WIDTH
from amptorch.neighbors import neighbor_list
from tests.contracts import systems
from tests.contracts.descriptor import STENCIL, STEP, DescriptorContract, close, dense
from tests.reference import symmetry_functions

COSINE = {"cutoff_func": "Cosine"}
POLYNOMIAL = {"cutoff_func": "polynomial", "gamma": 3.4}


class GaussianContract(DescriptorContract):
    def reference(self, descriptor, atoms):
        cutoff = cutoff_function(self.cutoff_params)
        values = symmetry_functions.values(atoms, descriptor.descriptor_setup, cutoff)
        return values, *symmetry_functions.derivatives(atoms, descriptor.descriptor_setup, cutoff)


class TestCosine(GaussianContract):
    """One cutoff and two common functions of each type."""

    cutoff_params = COSINE

    def make(self, elements):
        fp_params = {
            "default": {
                "cutoff": 4.1,
                "G2": {"etas": [0.5, 4.0], "rs_s": [0.0]},
                "G4": {"etas": [0.05], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
            }
        }
        return Gaussian(fp_params, elements, self.cutoff_params)


class TestPolynomialMixed(GaussianContract):
    """All types, with cutoffs that differ between functions and between central elements,
    non-integer zeta, and gamma other than ±1."""

    cutoff_params = POLYNOMIAL

    def make(self, elements):
        functions = GDS(elements, cutoff=3.6, cutoff_params=self.cutoff_params)
        for place, center in enumerate(elements):
            rc = 3.3 + 0.25 * place
            for k, first in enumerate(elements):
                functions.add_g1(center, first, cutoff=rc, update=False)
                functions.add_g2(center, first, eta=2.0, rs=1.1, cutoff=rc - 0.4, update=False)
                functions.add_g2(center, first, eta=0.0, update=False)
                functions.add_g3(center, first, kappa=1.7, update=False)
                for second in elements[k:]:
                    three = (center, first, second)
                    functions.add_g4(*three, eta=0.3, zeta=2.5, gamma=0.7, cutoff=rc, update=False)
                    functions.add_g4(*three, eta=0.0, zeta=3.0, gamma=-1.0, update=False)
                    functions.add_g5(*three, eta=0.02, zeta=2.0, gamma=1.0, update=False)
                    functions.add_g5(*three, eta=0.1, zeta=1.3, gamma=-0.4, update=False)
        # A central element with one function more than the others, whose rows are padded.
        functions.add_g2(elements[-1], elements[0], eta=1.0)
        return Gaussian(functions, elements, self.cutoff_params)

    def test_rows_are_padded_with_zeros(self):
        atoms, frames, descriptor = self.setup_for("molecule")
        values, blocks = descriptor.values_and_derivatives(frames)
        for symbol, count in descriptor.num_descriptors.items():
            rows = [a for a, s in enumerate(atoms.symbols) if s == symbol]
            assert not values[rows, count:].any()
            jacobian = dense(blocks).reshape(*values.shape, -1)
            assert not jacobian[rows, count:].any()
        assert min(descriptor.num_descriptors.values()) < descriptor.n_features


class TestOwnWidths(GaussianContract):
    """Every function with a width and elements of its own, as a selection of functions has them,
    and a polynomial cutoff that is a series."""

    cutoff_params: ClassVar = {"cutoff_func": "polynomial", "gamma": 4.0}

    def make(self, elements):
        return Gaussian(own_widths(elements, 3.8), elements, self.cutoff_params)


def own_widths(elements, cutoff, n=14):
    """Functions in Amp's form, no two of one width, η Rc² from 0.05 to 200."""
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    etas = np.geomspace(0.05, 200, 2 * n)
    entries = [
        {"type": "G2", "element": elements[k % len(elements)], "eta": eta, "Rs": 0.2 * k}
        for k, eta in enumerate(etas[::2])
    ]
    for k, eta in enumerate(etas[1::2]):
        shape = {"zeta": (1.0, 2.0, 4.0, 3.0, 8.0)[k % 5], "gamma": (1.0, -1.0)[k % 2]}
        kind, rs = ("G5", 0.7) if k % 7 == 3 else ("G4", 0.9 * (k % 6 == 5))
        pair = list(pairs[k % len(pairs)])
        entries.append({"type": kind, "elements": pair, "eta": eta, "Rs": rs, **shape})
    return {"cutoff": cutoff, "default": entries}


@pytest.mark.parametrize("cutoff", [COSINE, {"cutoff_func": "tanh"}], ids=["cosine", "tanh"])
def test_more_neighbours_than_lanes(cutoff):
    """Gradients of unordered pairs in several blocks of lanes, against derivatives in blocks."""
    atoms = iron_water(1, min_water=2, max_water=2)[0]
    elements = ["Fe", "H", "O"]
    descriptor = Gaussian(own_widths(elements, 10.0, 6), elements, cutoff)
    frames = Frames.from_atoms([atoms])
    assert neighbor_list(frames, descriptor.cutoff).counts.max() > WIDTH
    values, blocks = descriptor.values_and_derivatives(frames)
    g = np.random.default_rng(3).normal(size=values.shape)
    close(descriptor.values(frames), values, 1e-12)
    close(descriptor.vjp(frames, g), blocks.vjp([0], g), 1e-12)
    for rows in ([0], [5, 17, 30], np.arange(1, len(atoms), 2)):
        expected = blocks.vjp([0], g)[np.asarray(rows)]
        close(descriptor.vjp(frames, g, rows=np.asarray(rows)), expected, 1e-12)


class TestWeighted(GaussianContract):
    """Functions of all neighbours, weighted by atomic numbers, and nothing else."""

    cutoff_params = COSINE

    def make(self, elements):
        angular = {"etas": [0.05], "zetas": [1.0, 2.5], "gammas": [1.0, -1.0]}
        fp_params = {
            "default": {
                "cutoff": 4.1,
                "G2W": {"etas": [0.5, 4.0], "rs_s": [0.0, 1.2]},
                "G4W": angular,
                "G5W": {**angular, "etas": [0.02]},
            }
        }
        return Gaussian(fp_params, elements, self.cutoff_params)

    def test_as_many_functions_for_any_number_of_elements(self):
        fe_o, many = self.make(["O", "Fe"]), self.make(chemical_symbols[1:51])
        frames = Frames.from_atoms([Atoms("FeO2", [[0, 0, 0], [0, 1.7, 0], [1.6, 0, 0.4]])])
        assert fe_o.n_features == many.n_features == 12
        values, blocks = many.values_and_derivatives(frames)
        close(values, fe_o.values(frames), 1e-14)
        close(dense(blocks), dense(fe_o.values_and_derivatives(frames)[1]), 1e-14)


class TestWeightedMixed(GaussianContract):
    """Weighted functions beside those of elements, angular shifts, several cutoffs."""

    cutoff_params = POLYNOMIAL

    def make(self, elements):
        functions = GDS(elements, cutoff=3.6, cutoff_params=self.cutoff_params)
        for place, center in enumerate(elements):
            rc = 3.3 + 0.25 * place
            functions.add_weighted("G2W", center, 2.0, 1.1, cutoff=rc)
            functions.add_weighted("G4W", center, 0.5, 3.0, 1.0, 0.7, cutoff=rc)
            functions.add_weighted("G5W", center, 0.1, 2.0, -1.0, 0.4)
            functions.add_g2(center, elements[0], eta=1.0, rs=0.3)
            functions.add_g4(center, elements[0], elements[-1], eta=0.5, zeta=2.0, rs=0.8)
            functions.add_g5(center, elements[-1], elements[-1], eta=0.2, zeta=4.0, rs=-0.3)
        functions.add_weighted("G4W", elements[-1], 0.5, 1.0, -1.0)
        return Gaussian(functions, elements, self.cutoff_params)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["G4", "G5", "G4W", "G5W"])
@pytest.mark.parametrize("gamma", [1.0, -1.0, 0.5, -1.5])
def test_every_integer_zeta(kind, gamma):
    atoms = molecule("CH3OH")
    atoms.rattle(0.1, seed=1)
    angular = {"etas": [0.03], "zetas": list(range(1, 17)), "gammas": [gamma]}
    fp_params = {"default": {"cutoff": 3.5, kind: angular}}
    descriptor = Gaussian(fp_params, ["C", "H", "O"], COSINE)
    values, blocks = descriptor.values_and_derivatives(Frames.from_atoms([atoms]))
    cutoff = ("cosine", 0.0)
    close(values, symmetry_functions.values(atoms, descriptor.descriptor_setup, cutoff))
    jacobian, _ = symmetry_functions.derivatives(atoms, descriptor.descriptor_setup, cutoff)
    close(dense(blocks), jacobian.reshape(values.size, -1))


@pytest.mark.parametrize("zeta", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("gamma", [1.0, -1.0])
def test_atoms_in_a_line_have_finite_derivatives(zeta, gamma):
    """(1 ± cos θ) is 0 within rounding there, and its power must not become NaN."""
    atoms = Atoms("CO2", [[0, 0, 0], [0, 0, 1.16], [0, 0, -1.17]])
    angular = {"etas": [0.03], "zetas": [zeta], "gammas": [gamma]}
    fp_params = {"default": {"cutoff": 4.0, "G4": angular, "G5": angular}}
    descriptor = Gaussian(fp_params, ["C", "O"], COSINE)
    values, blocks = descriptor.values_and_derivatives(Frames.from_atoms([atoms]))
    close(
        values, symmetry_functions.values(atoms, descriptor.descriptor_setup, ("cosine", 0.0)), 1e-9
    )
    assert np.isfinite(dense(blocks)).all()


@pytest.mark.parametrize("kind", ["G2", "G4", "G5", "G4W"])
def test_a_function_that_is_there_twice(kind):
    frames = Frames.from_atoms(iron_water(1, max_water=3))
    elements = ["Fe", "H", "O"]
    if kind == "G2":
        rows = [{"type": kind, "element": "O", "eta": eta, "Rs": 1.0} for eta in (2.0, 2.0, 4.0)]
    elif kind == "G4W":
        rows = [{"type": kind, "eta": 0.5, "zeta": zeta, "gamma": 1.0} for zeta in (2.0, 2.0, 1.0)]
    else:
        rows = [
            {"type": kind, "elements": pair, "eta": 0.5, "zeta": 2.0, "gamma": 1.0}
            for pair in (["H", "O"], ["O", "H"], ["O", "O"], ["H", "O"])
        ]
    several = Gaussian({"cutoff": 5.0, "default": rows}, elements)
    values, derivatives = several.values_and_derivatives(frames)
    for column, row in enumerate(several.descriptor_setup["H"]):
        same = np.flatnonzero((several.descriptor_setup["H"] == row).all(axis=1))
        assert values[:, column].any()
        assert np.array_equal(values[:, column], values[:, same[0]])
        g = np.zeros_like(values)
        g[:, column] = 1.0
        first = np.zeros_like(values)
        first[:, same[0]] = 1.0
        forces = derivatives.vjp([0], g)
        assert forces.any()
        close(forces, derivatives.vjp([0], first))
        close(forces, several.vjp(frames, g))


def test_an_atom_without_neighbours_has_zeros():
    atoms = Atoms("HO", [[0, 0, 0], [0, 0, 20.0]])
    fp_params = {"default": {"cutoff": 4.0, "G2": {"etas": [1.0], "rs_s": [0.0]}}}
    descriptor = Gaussian(fp_params, ["H", "O"], COSINE)
    values, blocks = descriptor.values_and_derivatives(Frames.from_atoms([atoms]))
    assert not values.any()
    assert not dense(blocks).any()
    g = np.ones_like(values)
    assert not blocks.vjp([0], g).any()
    assert not descriptor.vjp(Frames.from_atoms([atoms]), g).any()


def test_a_neighbour_at_the_cutoff_counts_as_none():
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 4.0]])
    fp_params = {"default": {"cutoff": 4.0, "G2": {"etas": [0.0], "rs_s": [0.0]}}}
    for cutoff_params in (COSINE, POLYNOMIAL):
        descriptor = Gaussian(fp_params, ["H"], cutoff_params)
        assert not descriptor.values(Frames.from_atoms([atoms])).any()


def test_an_atom_on_a_cell_face():
    """v1.0 writes outside its arrays there."""
    atoms = systems.make("tiny_cell")
    descriptor = TestCosine().make(["Cu", "O"])
    expected = descriptor.values(Frames.from_atoms([atoms]))
    for face in (atoms.cell.array[0], atoms.cell.array.sum(axis=0)):
        moved = atoms.copy()
        moved.positions += face - atoms.positions[0]
        close(descriptor.values(Frames.from_atoms([moved])), expected)


@st.composite
def structures(draw):
    """Up to four atoms at least 0.8 Å apart, periodic or not, in a cell of any shape."""
    number = st.floats(-1, 1, allow_subnormal=False)
    n = draw(st.integers(1, 4))
    symbols = draw(st.lists(st.sampled_from(["H", "Cu"]), min_size=n, max_size=n))
    cell = np.diag([3.4, 3.0, 2.8]) + 0.9 * np.array(
        draw(st.lists(st.tuples(number, number, number), min_size=3, max_size=3))
    )
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    scaled = draw(st.lists(st.tuples(number, number, number), min_size=n, max_size=n))
    assume(abs(np.linalg.det(cell)) > 12)
    atoms = Atoms(symbols, scaled_positions=scaled, cell=cell, pbc=pbc)
    # Distances with all periodic images, the atom's own too.
    repeated = atoms.repeat([3 if periodic else 1 for periodic in pbc])
    distances = repeated.get_all_distances()[np.triu_indices(len(repeated), 1)]
    assume(distances.min(initial=9.0) > 0.8)
    return atoms


@pytest.mark.slow
@given(structures())
def test_any_structure_agrees_with_the_twin(atoms):
    fp_params = {
        "default": {
            "cutoff": 3.2,
            "G2": {"etas": [1.0], "rs_s": [0.5]},
            "G4": {"etas": [0.1], "zetas": [2.0], "gammas": [-1.0]},
            "G5": {"etas": [0.1], "zetas": [1.0], "gammas": [1.0]},
            "G2W": {"etas": [2.0], "rs_s": [0.5]},
            "G4W": {"etas": [0.3], "zetas": [1.0], "gammas": [-1.0], "rs_s": [0.4]},
        }
    }
    descriptor = Gaussian(fp_params, ["Cu", "H"], COSINE)
    frames = Frames.from_atoms([atoms])
    values = symmetry_functions.values(atoms, descriptor.descriptor_setup, ("cosine", 0.0))
    close(descriptor.values(frames), values)
    jacobian, _ = symmetry_functions.derivatives(
        atoms, descriptor.descriptor_setup, ("cosine", 0.0)
    )
    g = np.linspace(-1, 1, values.size).reshape(values.shape)
    close(descriptor.vjp(frames, g), np.einsum("is,isjk->jk", g, jacobian))


def full_set_up(dtype=np.float64):
    """The 36 functions an atom of v1.0's examples, and the iron-water frame they are timed on."""
    fp_params = {
        "default": {
            "cutoff": 6.5,
            "G2": {"etas": np.logspace(np.log10(0.05), np.log10(5.0), 4), "rs_s": [0.0]},
            "G4": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
        }
    }
    frames = Frames.from_atoms(iron_water(1, min_water=44))
    assert frames.n_atoms == 164
    return Gaussian(fp_params, ["Fe", "H", "O"], COSINE, dtype=dtype), frames


def test_gradient_of_164_atoms_is_the_central_difference():
    descriptor, frames = full_set_up()
    # Some of the 30,000 distances cross the cutoff on the way, where the second derivative of fc
    # jumps: an error that grows with the square of the step.
    step = STEP / 100
    rng = np.random.default_rng(9)
    g = rng.normal(size=(164, descriptor.n_features))
    v = rng.normal(size=(164, 3))
    energies = [
        np.vdot(g, descriptor.values(replace(frames, positions=frames.positions + m * step * v)))
        for m in STENCIL
    ]
    numeric = np.dot(energies, list(STENCIL.values())) / step
    values, blocks = descriptor.values_and_derivatives(frames)
    close(values, descriptor.values(frames), rtol=1e-13)
    for gradient in (descriptor.vjp(frames, g), blocks.vjp([0], g)):
        np.testing.assert_allclose(np.vdot(gradient, v), numeric, rtol=1e-7)
    for directional in (descriptor.jvp(frames, v), blocks.jvp([0], v)):
        np.testing.assert_allclose(np.vdot(g, directional), numeric, rtol=1e-7)


@pytest.mark.slow  # compiles every kernel once more
def test_kernels_in_single_precision():
    double, frames = full_set_up()
    single, _ = full_set_up(np.float32)
    g = np.random.default_rng(10).normal(size=(164, double.n_features))
    values = double.values(frames)
    assert single.values(frames).dtype == np.float32
    np.testing.assert_allclose(single.values(frames), values, rtol=1e-3, atol=1e-4)
    close(single.vjp(frames, g), double.vjp(frames, g), rtol=1e-4)
    close(single.jvp(frames, g[:, :3]), double.jvp(frames, g[:, :3]), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.45])
@pytest.mark.parametrize("name", [name for name in CUTOFF_FUNCTIONS if name != "polynomial"])
def test_every_cutoff_function_agrees_with_the_twin(name, alpha):
    if alpha and name in WITHOUT_ALPHA:
        pytest.skip("has no inner radius")
    angular = {"etas": [0.4], "zetas": [2.0], "gammas": [-1.0], "rs_s": [0.0, 0.6]}
    fp_params = {"default": {"cutoff": 3.3, "G2W": {"etas": [1.0]}, "G4": angular, "G5": angular}}
    atoms = systems.make("molecule")
    frames = Frames.from_atoms([atoms])
    cutoff_params = {"cutoff_func": name, "alpha": alpha}
    descriptor = Gaussian(fp_params, ["C", "H", "O"], cutoff_params)
    values, blocks = descriptor.values_and_derivatives(frames)
    arguments = (atoms, descriptor.descriptor_setup, cutoff_function(cutoff_params))
    close(values, symmetry_functions.values(*arguments))
    jacobian, _ = symmetry_functions.derivatives(*arguments)
    close(dense(blocks), jacobian.reshape(values.size, -1))
    assert np.abs(jacobian).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "cutoff", [COSINE, POLYNOMIAL, {"cutoff_func": "poly2"}], ids=["cosine", "polynomial", "poly2"]
)
@pytest.mark.parametrize("eta", [0.0, 0.005, 0.5, 5.0, 80.0, 600.0])
def test_broad_and_narrow_functions(eta, cutoff):
    """From a constant to a Gaussian narrower than any distance, each column on its own scale."""
    atoms = systems.make("molecule")
    angular = {"etas": [eta], "zetas": [1.0, 2.0], "gammas": [-1.0]}
    fp_params = {
        "default": {
            "cutoff": 6.0,
            "G2": {"etas": [eta], "rs_s": [0.0, 1.5]},
            "G4": angular,
            "G5": {**angular, "etas": [eta / 36]},
        }
    }
    descriptor = Gaussian(fp_params, ["C", "H", "O"], cutoff)
    values, blocks = descriptor.values_and_derivatives(Frames.from_atoms([atoms]))
    arguments = (atoms, descriptor.descriptor_setup, cutoff_function(cutoff))
    expected = symmetry_functions.values(*arguments)
    jacobian, _ = symmetry_functions.derivatives(*arguments)
    actual = dense(blocks).reshape(jacobian.shape)
    for s in range(descriptor.n_features):
        scale = np.abs(expected[:, s]).max()
        np.testing.assert_allclose(values[:, s], expected[:, s], rtol=1e-9, atol=1e-9 * scale)
        scale = np.abs(jacobian[:, s]).max()
        np.testing.assert_allclose(actual[:, s], jacobian[:, s], rtol=1e-9, atol=1e-9 * scale)
