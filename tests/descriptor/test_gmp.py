"""Gaussian multipole features against their slow twin and the contract of descriptors."""

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from numpy.polynomial import legendre

from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.GMP import GMP
from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm
from amptorch.descriptor.multipole.parameters import with_densities
from amptorch.descriptor.multipole.radial import radial_table, radial_terms
from amptorch.frames import Frames
from amptorch.kernels.gmp_radial import radial_functions
from amptorch.kernels.harmonics import gradient_coefficients, solid_harmonics
from amptorch.neighbors import neighbor_list
from tests.contracts import systems
from tests.contracts.descriptor import STENCIL, STEP, DescriptorContract, close, dense
from tests.reference import gmp

# Narrow enough to be nothing at the cutoff of the contract, where features are not smooth.
CUTOFF = 4.4
DENSITIES = {
    "C": [[2.3, 3.1]],
    "Cl": [[1.4, 3.2], [-0.9, 5.0]],
    "Cu": [[0.8, 3.2], [-0.6, 5.0], [0.6, 9.0]],
    "Fe": [[2.0, 2.9], [-1.2, 4.9]],
    "H": [[0.8, 2.9]],
    "Na": [[1.7, 2.9], [-1.1, 4.7]],
    "O": [[0.8, 3.3], [-0.7, 8.1]],
    "Pd": [[1.7, 3.0]],
}


def densities_of(elements):
    return {symbol: DENSITIES[symbol] for symbol in elements}


def order_norm(elements, **options):
    return GMPOrderNorm({"atom_gaussians": densities_of(elements), **options}, elements)


def amplitude(sigma, power):
    return (sigma * math.sqrt(2 * math.pi)) ** -power


def norm_feature(order, sigma, solid, form):
    """Every component of an order for the slow twin, each as often as the tensor has it."""
    exponents = gmp.tensor(order)
    weights = [math.factorial(order) / math.prod(math.factorial(n) for n in e) for e in exponents]
    return {
        "exponents": exponents,
        "weights": weights,
        "sigma": sigma,
        "amplitude": amplitude(sigma, 3),
        "solid": solid,
        "form": form,
    }


class GMPContract(DescriptorContract):
    def reference(self, descriptor, atoms):
        return gmp.fingerprints(atoms, self.features(), DENSITIES, CUTOFF)


class TestSolid(GMPContract):
    """The default: squares, solid harmonics; orders of different widths and not in order."""

    detailed = ((3, (0.4,)), (0, (0.3, 0.45)), (1, (0.45,)), (2, (0.45, 0.3)))

    def make(self, elements):
        entries = [{"order": order, "sigmas": list(s)} for order, s in self.detailed]
        return order_norm(elements, MCSHs_detailed_list=entries, cutoff=CUTOFF)

    def features(self):
        return [
            norm_feature(order, sigma, True, "square")
            for order, sigmas in self.detailed
            for sigma in sigmas
        ]


class TestSurfaceRoots(GMPContract):
    """Surface harmonics, whose features mix orders, and roots."""

    def make(self, elements):
        return order_norm(
            elements,
            MCSHs={"orders": [1, 2, 3], "sigmas": [0.3, 0.45]},
            cutoff=CUTOFF,
            solid_harmonics=False,
            square=False,
        )

    def features(self):
        return [
            norm_feature(order, sigma, False, "root")
            for order in (1, 2, 3)
            for sigma in (0.3, 0.45)
        ]


class TestGroups(GMPContract):
    """The scheme `gmp`, whose features stay the same in a rotation that permutes the axes."""

    rotation = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])

    def make(self, elements):
        orders = {
            "0": {"groups": [1], "sigmas": [0.45]},
            "2": {"groups": [2, 1], "sigmas": [0.3, 0.4]},
            "1": {"groups": [1], "sigmas": [0.35]},
            "3": {"groups": [1, 2, 3], "sigmas": [0.4]},
        }
        fp_params = {"MCSHs": orders, "cutoff": CUTOFF}
        return GMP({**fp_params, "atom_gaussians": densities_of(elements)}, elements)

    def features(self):
        listed = [(0, 1, 0.45), (1, 1, 0.35), (2, 2, 0.3), (2, 2, 0.4), (2, 1, 0.3), (2, 1, 0.4)]
        result = []
        for order, number, sigma in [*listed, (3, 1, 0.4), (3, 2, 0.4), (3, 3, 0.4)]:
            exponents = gmp.group(order, number)
            feature = norm_feature(order, sigma, False, "root")
            feature["exponents"], feature["weights"] = exponents, [1.0] * len(exponents)
            feature["amplitude"] = amplitude(sigma, 1)
            feature["form"] = "signed" if len(exponents) == 1 else "root"
            result.append(feature)
        return result


@pytest.mark.parametrize("order", [0, 1, 4, 9, 14])
def test_every_order_is_the_closed_form(order):
    """l! (2l−1)!! Σ_jk w_j w_k r_j^l r_k^l P_l(cosθ_jk); v1.0 ends at order 9."""
    atoms = molecule("CH3OH")
    atoms.rattle(0.1, seed=1)
    sigma = 0.9
    elements = ["C", "H", "O"]
    descriptor = order_norm(elements, MCSHs={"orders": [order], "sigmas": [sigma]}, cutoff=8.0)
    alpha = 1 / (2 * sigma**2)
    scale = math.factorial(order) * math.prod(range(2 * order - 1, 0, -2))
    expected = []
    for center in atoms.positions:
        vectors = atoms.positions - center
        r = np.linalg.norm(vectors, axis=1)
        weights = np.array(
            [
                sum(
                    amplitude(sigma, 3)
                    * b
                    * (np.pi / (alpha + beta)) ** 1.5
                    * np.exp(-alpha * beta / (alpha + beta) * distance**2)
                    * (beta / (alpha + beta)) ** order
                    for b, beta in DENSITIES[symbol]
                )
                for symbol, distance in zip(atoms.symbols, r, strict=True)
            ]
        )
        cosines = vectors @ vectors.T / np.where(np.outer(r, r) > 0, np.outer(r, r), 1)
        polynomial = legendre.legval(cosines, np.eye(order + 1)[order])
        expected.append(
            scale * np.einsum("j,k,jk", weights * r**order, weights * r**order, polynomial)
        )
    values, blocks = descriptor.values_and_derivatives(Frames.from_atoms([atoms]))
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-11)
    g = np.ones_like(values) / np.abs(values).max()
    v = np.random.default_rng(2).normal(size=(len(atoms), 3))
    energies = []
    for multiple in STENCIL:
        moved = atoms.copy()
        moved.positions += multiple * STEP * v
        energies.append(np.vdot(g, descriptor.values(Frames.from_atoms([moved]))))
    numeric = np.dot(energies, list(STENCIL.values())) / STEP
    assert np.vdot(blocks.vjp([0], g), v) == pytest.approx(numeric, rel=1e-7)


def test_harmonics_and_their_gradients():
    rng = np.random.default_rng(0)
    order, n = 7, 5
    first, second = rng.normal(size=(2, 3, n))

    def harmonics(vectors):
        y = np.zeros(((order + 1) ** 2, n))
        solid_harmonics(np.vstack((vectors, (vectors**2).sum(axis=0))), y, order, n)
        return y

    ours, theirs = harmonics(first), harmonics(second)
    lengths = np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=0)
    for l in range(order + 1):  # noqa: E741
        m = (np.arange(2 * l + 1) + 1) // 2
        norms = np.array(
            [(2 - (k == 0)) * math.factorial(l - k) * math.factorial(l + k) for k in m]
        )
        rows = slice(l * l, (l + 1) ** 2)
        cosine = (first * second).sum(axis=0) / (lengths[0] * lengths[1])
        expected = (lengths[0] * lengths[1]) ** l * legendre.legval(cosine, np.eye(l + 1)[l])
        np.testing.assert_allclose(norms @ (ours[rows] * theirs[rows]), expected, rtol=1e-12)
        if l == 0:
            continue
        b, e = rng.normal(size=2 * l + 1), np.zeros((3, 2 * order + 1))
        gradient_coefficients(b, 0, 1, l, e)
        lower = harmonics(first)[(l - 1) ** 2 : l * l]
        for axis in range(3):
            step = np.zeros((3, 1))
            step[axis] = 1e-3
            numeric = sum(c * (b @ harmonics(first + k * step)[rows]) for k, c in STENCIL.items())
            np.testing.assert_allclose(e[axis, : 2 * l - 1] @ lower, numeric / 1e-3, rtol=1e-7)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
@pytest.mark.parametrize("rank", [4, 0])
def test_radial_table_is_exact(sigma, rank):
    """Each channel within 2e-13 of what stands around it, for narrow and broad functions."""
    gaussians = np.array([[0.7, 0.6], [-1.3, 12.0], [2.0, 80.0]])
    channel = (4, rank, sigma, 1.0)
    cutoff = 6.0
    table = radial_table([channel], [gaussians], cutoff)
    r = np.linspace(0, cutoff * (1 - 1e-12), 400)
    near = np.zeros((7, 400))
    near[3] = r * r
    rho, slope = np.zeros((2, table.n_channels, 400))
    piece = np.zeros((16, table.n_channels))
    radial_functions(table, np.zeros(400, np.int64), near, 400, True, piece, rho, slope)
    terms = radial_terms(*channel, gaussians, r * r)
    size = np.abs(terms).sum(axis=0)
    around = np.maximum(size, np.interp(r - 0.1, r, size)) + 1e-20 * size.max()
    assert (np.abs(rho[0] - terms.sum(axis=0)) < 2e-13 * around).all()
    # dρ/ds by the complex step.
    exact = radial_terms(*channel, gaussians, r * r + 1e-30j).sum(axis=0).imag / 1e-30
    steepest = np.abs(exact) + np.interp(r - 0.1, r, np.abs(exact)) + 1e-20 * np.abs(exact).max()
    inner = r > 0.2
    assert (np.abs(slope[0] - exact)[inner] < 1e-10 * (steepest + around)[inner]).all()


def test_too_narrow_for_a_table():
    with pytest.raises(ValueError, match=r"too fast.*sigma"):
        radial_table([(0, 0, 1e-6, 1.0)], [np.array([[1.0, 1e9]])], 8.0)


@pytest.mark.parametrize("solid", [True, False])
def test_roots_have_finite_derivatives_at_symmetric_sites(solid):
    """Odd orders vanish there; v1.0 gives derivatives up to 1e95."""
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True)
    mcshs = {"orders": [0, 1, 2, 3], "sigmas": [0.4, 0.8]}
    roots = order_norm(["Fe"], MCSHs=mcshs, cutoff=5.0, square=False, solid_harmonics=solid)
    squares = order_norm(["Fe"], MCSHs=mcshs, cutoff=5.0, solid_harmonics=solid)
    frames = Frames.from_atoms([atoms])
    values, blocks = roots.values_and_derivatives(frames)
    close(values**2, squares.values(frames))
    odd = dense(blocks).reshape(2, 8, -1)[:, [2, 3, 6, 7]]
    assert not odd.any()
    assert np.abs(values[:, [2, 3, 6, 7]]).max() < 1e-12
    g = np.ones_like(values)
    assert np.isfinite(roots.vjp(frames, g)).all()
    assert np.isfinite(roots.jvp(frames, g[:, :3])).all()


def test_a_lone_atom_is_its_own_density():
    """The central atom is one of the atoms, and contributes to order 0 alone."""
    frames = Frames.from_atoms([Atoms("H")])
    descriptor = order_norm(["H"], MCSHs={"orders": [0, 1, 2], "sigmas": [0.5]})
    ((b, beta),) = DENSITIES["H"]
    expected = amplitude(0.5, 3) * b * (np.pi / (2.0 + beta)) ** 1.5
    values, blocks = descriptor.values_and_derivatives(frames)
    close(values, [[expected**2, 0, 0]])
    assert not dense(blocks).any()


def test_an_atom_at_the_cutoff_within_rounding():
    """Whether it counts may depend on the compiler; its place in the blocks must be there."""
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 4.0]])
    for cutoff in np.nextafter(4.0, [0, 9]):
        descriptor = order_norm(["H"], MCSHs={"orders": [0], "sigmas": [0.5]}, cutoff=cutoff)
        frames = Frames.from_atoms([atoms])
        listed = neighbor_list(frames, 4.1)
        values, blocks = descriptor.values_and_derivatives(frames, listed)
        assert np.isfinite(values).all()
        assert np.abs(dense(blocks)).max() < 1e-8


def test_default_cutoff_is_where_the_widest_probe_ends():
    elements = ["H"]
    assert order_norm(elements, MCSHs={"orders": [0], "sigmas": [0.3, 2.0]}).cutoff == 11.6
    narrow = {"MCSHs": {"1": {"groups": [1], "sigmas": [0.5]}}}
    expected = round(math.sqrt(-0.5 * math.log(1e-8 * 0.5 * math.sqrt(2 * math.pi))), 2)
    assert GMP({**narrow, "atom_gaussians": densities_of(elements)}, elements).cutoff == expected


def test_forms_of_densities(tmp_path):
    """A file, rows, an array; the set-up's hash knows the numbers and not where they came from."""
    path = tmp_path / "H.g"
    path.write_text("0.8\t3.9\n")
    mcshs = {"orders": [0, 1], "sigmas": [0.5]}
    given = [str(path), path, [[0.8, 3.9]], np.array([[0.8, 3.9]])]
    hashes = {
        order_norm(["H"], MCSHs=mcshs, atom_gaussians={"H": one}).descriptor_setup_hash
        for one in given
    }
    assert len(hashes) == 1
    other = order_norm(["H"], MCSHs=mcshs, atom_gaussians={"H": [[0.8, 4.0]]})
    assert other.descriptor_setup_hash not in hashes
    inlined = with_densities({"MCSHs": mcshs, "atom_gaussians": {"H": path}}, ["H"])
    assert inlined == {"MCSHs": mcshs, "atom_gaussians": {"H": [[0.8, 3.9]]}}


@pytest.mark.parametrize(
    "change",
    [
        {"square": False},
        {"solid_harmonics": False},
        {"cutoff": 5.0},
        {"MCSHs": {"orders": [1, 0], "sigmas": [0.5]}},
        {"MCSHs": {"orders": [0, 1], "sigmas": [0.6]}},
    ],
)
def test_hash_knows_every_option(change):
    base = {"MCSHs": {"orders": [0, 1], "sigmas": [0.5]}, "cutoff": 6.0}
    hashes = [order_norm(["H"], **{**base, **one}).descriptor_setup_hash for one in ({}, change)]
    assert hashes[0] != hashes[1]


MCSHS = {"orders": [0, 1], "sigmas": [0.5]}
GROUPS = {"2": {"groups": [1, 2], "sigmas": [0.5]}}


@pytest.mark.parametrize(
    ("scheme", "fp_params", "message"),
    [
        ("gmpordernorm", {}, "'MCSHs_detailed_list'"),
        ("gmpordernorm", {"MCSHs": MCSHS, "MCSHs_detailed_list": []}, "one of"),
        ("gmpordernorm", {"MCSHs": MCSHS, "cutof": 5}, "did you mean 'cutoff'"),
        ("gmpordernorm", {"MCSHs": MCSHS, "cutoff": -1}, "cutoff.*above 0"),
        ("gmpordernorm", {"MCSHs": {**MCSHS, "orders": [1.5]}}, r"orders.*\[0\].*integer"),
        ("gmpordernorm", {"MCSHs": {**MCSHS, "sigmas": []}}, "sigmas.*empty"),
        ("gmpordernorm", {"MCSHs": {**MCSHS, "sigmas": [0.0]}}, "sigmas.*above 0"),
        ("gmpordernorm", {"MCSHs": MCSHS, "square": "yes"}, "square.*True or False"),
        ("gmpordernorm", {"MCSHs": MCSHS, "atom_gaussians": {"O": [[1, 1]]}}, "no 'H'"),
        ("gmpordernorm", {"MCSHs": MCSHS, "atom_gaussians": {"H": [1, 1]}}, "'H'.*two columns"),
        ("gmpordernorm", {"MCSHs": MCSHS, "atom_gaussians": {"H": [[1, -1]]}}, "'H'.*positive"),
        ("gmpordernorm", {"MCSHs": MCSHS, "atom_gaussians": {"H": "no.g"}}, "'H'.*no.g"),
        ("gmpordernorm", {"MCSHs_detailed_list": [{"order": 1}]}, r"\[0\].*sigmas.*empty"),
        ("gmp", {}, "MCSHs"),
        ("gmp", {"MCSHs": {}}, "at least one order"),
        ("gmp", {"MCSHs": {"x": GROUPS["2"]}}, "integer"),
        ("gmp", {"MCSHs": {**GROUPS, 2: GROUPS["2"]}}, r"an order twice: \['2', 2\]"),
        ("gmp", {"MCSHs": {"2": {"groups": [3], "sigmas": [0.5]}}}, "groups.*at most 2"),
        ("gmp", {"MCSHs": GROUPS, "square": True}, "'square'"),
        ("gmp", [], "dictionary"),
    ],
)
def test_what_is_wrong_is_named(scheme, fp_params, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        construct_descriptor((scheme, fp_params, None, ["H"]))


def test_an_element_without_density_names_its_frame():
    descriptor = order_norm(["H"], MCSHs=MCSHS)
    with pytest.raises(ValueError, match=r"frame 1, atom 0.*\['H'\]"):
        descriptor.values(Frames.from_atoms([molecule("H2"), molecule("OH")]))


def test_only_groups_change_in_a_rotation():
    """The norm of an order is that of all its groups, each as often as the tensor has it."""
    atoms = systems.make("molecule")
    elements = systems.elements_of(atoms)
    frames = Frames.from_atoms([atoms])
    common = {"cutoff": CUTOFF, "atom_gaussians": densities_of(elements)}
    groups = GMP({"MCSHs": GROUPS, **common}, elements).values(frames)
    mcshs = {"orders": [2], "sigmas": [0.5]}
    norm = GMPOrderNorm({"MCSHs": mcshs, "solid_harmonics": False, **common}, elements)
    probes = (amplitude(0.5, 3) / amplitude(0.5, 1)) ** 2
    close(norm.values(frames)[:, 0], probes * (groups[:, 0] ** 2 + 2 * groups[:, 1] ** 2))
