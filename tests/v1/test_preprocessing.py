"""Data objects, their making, sparse derivatives, PCA."""

import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import Trajectory, write

from amptorch.data.pca import PCAReducer as PCAReducerByOldPath
from amptorch.descriptor.base import STORE
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.preprocessing import (
    AtomsToData,
    Data,
    PCAReducer,
    SparseDerivatives,
    sparse_block_diag,
)
from amptorch.v1.atoms_to_data import AtomsToData as AtomsToDataByOldPath
from tests.small_frames import FP_PARAMS, mixed_frames

ELEMENTS = ["Cu", "O"]


@pytest.fixture(scope="module")
def descriptor():
    return Gaussian(FP_PARAMS, ELEMENTS)


@pytest.fixture(scope="module")
def images():
    return mixed_frames(5)


@pytest.fixture(scope="module")
def converter(descriptor):
    return AtomsToData(descriptor, r_energy=True, r_forces=True, save_fps=False)


def same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        if key == "fprimes":
            torch.testing.assert_close(first[key].to_dense(), second[key].to_dense())
        elif isinstance(first[key], torch.Tensor):
            torch.testing.assert_close(first[key], second[key])
        else:
            assert first[key] == second[key]


def test_old_paths_lead_to_the_same_classes():
    assert AtomsToDataByOldPath is AtomsToData
    assert PCAReducerByOldPath is PCAReducer


def test_a_data_object_holds_the_frame(converter, descriptor, images):
    atoms = images[2]
    data = converter.convert(atoms, 7)
    values, blocks = descriptor.values_and_derivatives(Frames.from_atoms([atoms]))
    np.testing.assert_array_equal(data.fingerprint, values)
    assert data.image_idx == 7
    assert data.num_nodes == len(atoms)
    assert data.atomic_numbers.tolist() == atoms.numbers.tolist()
    assert data.energy.dtype is torch.float64
    assert float(data.energy) == atoms.get_potential_energy()
    np.testing.assert_array_equal(data.forces, atoms.get_forces())
    (row, col), val, size = blocks.sparse(0)
    dense = np.zeros(size)
    dense[row, col] = val
    assert np.abs(dense).max() > 0.01
    np.testing.assert_array_equal(data.fprimes.to_dense(), dense)


def test_what_is_not_asked_for_is_not_there(descriptor, images):
    data = AtomsToData(descriptor, fprimes=False, save_fps=False).convert(images[0])
    assert data.keys() == ["fingerprint", "image_idx", "atomic_numbers", "num_nodes"]


def test_computed_values_are_kept_on_disk(descriptor, images, tmp_path, monkeypatch):
    """By default, where no derivatives are asked for."""
    monkeypatch.chdir(tmp_path)
    expected = AtomsToData(descriptor, fprimes=False, save_fps=False).convert_all(images, True)
    converter = AtomsToData(descriptor, fprimes=False)
    for _ in range(2):
        for first, second in zip(converter.convert_all(images, True), expected, strict=True):
            same(first, second)
        # They are read the second time.
        monkeypatch.setattr(Gaussian, "values", None)
    assert (tmp_path / "processed" / "fingerprints.sqlite").is_file()


@pytest.mark.parametrize("save_fps", [True, "kept/here.sqlite"])
def test_prepare_fingerprints_keeps_values(descriptor, images, save_fps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = descriptor.prepare_fingerprints(images)
    descriptor.prepare_fingerprints(images[:2], save_fps=save_fps)
    # A generator of images does, and of these two are known.
    prepared = descriptor.prepare_fingerprints(iter(images), save_fps=save_fps)
    for first, second in zip(prepared, expected, strict=True):
        np.testing.assert_array_equal(first["descriptors"], second["descriptors"])
    path = STORE if save_fps is True else save_fps
    assert [file.as_posix() for file in tmp_path.rglob("*.sqlite")] == [f"{tmp_path}/{path}"]


def test_derivatives_are_in_order_and_nobody_else_s(descriptor, images):
    fprimes = AtomsToData(descriptor, save_fps=False).convert(images[0]).fprimes
    assert fprimes.is_coalesced()
    again = torch.sparse_coo_tensor(
        fprimes.indices(), fprimes.values(), fprimes.shape, check_invariants=True
    ).coalesce()
    assert torch.equal(again.indices(), fprimes.indices())
    assert torch.equal(again.values(), fprimes.values())
    prepared = descriptor.prepare_fingerprints(images, calc_derivatives=True)
    arrays = [
        entry["descriptor_primes"][key] for entry in prepared for key in ("row", "col", "val")
    ]
    for k, first in enumerate(arrays):
        assert first.dtype == (np.float64 if k % 3 == 2 else np.int32)
        assert not any(np.shares_memory(first, second) for second in arrays[k + 1 :])


def test_large_pieces_of_memory_hold_the_same(descriptor, images, monkeypatch):
    """Those that begin where a huge page does."""
    _, blocks = descriptor.values_and_derivatives(Frames.from_atoms(images))
    expected = blocks.sparse(1)
    monkeypatch.setattr("amptorch.descriptor.blocks.HUGE_PAGE", 512)
    values = blocks.sparse(1)[1]
    assert values.ctypes.data % 512 == 0
    for first, second in zip(blocks.sparse(1), expected, strict=True):
        np.testing.assert_array_equal(first, second)


def test_atoms_without_neighbors_have_no_derivatives(descriptor):
    alone = Atoms("Cu")
    data = AtomsToData(descriptor, save_fps=False).convert_all([alone, alone], disable_tqdm=True)
    for one in data:
        assert one.fprimes.shape == (descriptor.n_features, 3)
        assert one.fprimes.values().numel() == 0


def test_indices_that_do_not_fit_are_an_error(descriptor, images):
    _, blocks = descriptor.values_and_derivatives(Frames.from_atoms(images))
    with pytest.raises(ValueError, match="rows of derivatives do not fit int8"):
        blocks.sparse(1, np.int8)


def test_every_kind_of_collection(converter, images, tmp_path):
    one_by_one = [converter.convert(atoms, k) for k, atoms in enumerate(images)]
    write(tmp_path / "frames.traj", images)
    with connect(tmp_path / "frames.db") as database:
        for atoms in images:
            database.write(atoms)
    with Trajectory(tmp_path / "frames.traj") as reader:
        for collection in (images, reader, connect(tmp_path / "frames.db")):
            converted = converter.convert_all(collection, disable_tqdm=True)
            for first, second in zip(converted, one_by_one, strict=True):
                same(first, second)


def test_a_frame_without_forces_is_named(converter, images):
    bare = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]])
    bare.calc = SinglePointCalculator(bare, energy=1.0)
    with pytest.raises(ValueError, match="frame 1 has no forces"):
        converter.convert_all([images[0], bare], disable_tqdm=True)


def test_an_unknown_element_is_named(converter, images):
    with pytest.raises(ValueError, match=r"frame 3, atom 0 \(Pt\)"):
        converter.convert(Atoms("Pt"), 3)


def test_data_objects_pickle_and_move(converter, images):
    data = converter.convert(images[2])
    same(pickle.loads(pickle.dumps(data)), data)
    same(data.to("cpu"), data)
    assert "energy" in data
    assert dict(data)["num_nodes"] == data["num_nodes"] == data.num_nodes
    assert "energy" not in Data(num_nodes=1)
    assert "fingerprint=[3, " in repr(data)


def random_matrices(seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=shape)) for shape in [(4, 3), (8, 6), (12, 9)]]


def test_block_diagonal_is_the_dense_one():
    matrices = random_matrices()
    expected = torch.block_diag(*matrices)
    result = sparse_block_diag([matrix.to_sparse() for matrix in matrices])
    torch.testing.assert_close(result.to_dense(), expected)
    with pytest.raises(ValueError, match="at least one matrix"):
        sparse_block_diag([])


def test_sparse_derivatives_contract_like_the_dense_matrix():
    matrices = random_matrices()
    dense = torch.block_diag(*matrices).numpy()
    backend = SparseDerivatives(sparse_block_diag([matrix.to_sparse() for matrix in matrices]))
    rng = np.random.default_rng(1)
    g, v = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    frames = np.arange(3)
    np.testing.assert_allclose(backend.vjp(frames, g), (dense.T @ g.ravel()).reshape(6, 3))
    np.testing.assert_allclose(backend.jvp(frames, v), (dense @ v.ravel()).reshape(6, 4))


@pytest.mark.parametrize("elementwise", [False, True])
def test_all_principal_components_keep_distances(converter, images, elementwise):
    data_list = converter.convert_all(images, disable_tqdm=True)
    before = [data.fingerprint.clone() for data in data_list]
    n_features = before[0].shape[1]
    setting = {"num_pc": n_features, "elementwise": elementwise}
    PCAReducer(data_list, True, setting).reduce(data_list)
    for data, raw in zip(data_list, before, strict=True):
        copper = data.atomic_numbers == 29
        torch.testing.assert_close(
            torch.cdist(data.fingerprint[copper], data.fingerprint[copper]),
            torch.cdist(raw[copper], raw[copper]),
            atol=1e-6,
            rtol=1e-6,
        )


@pytest.mark.parametrize("elementwise", [False, True])
def test_reduced_derivatives_are_those_of_the_reduced_values(converter, images, elementwise):
    setting = {"num_pc": 4, "elementwise": elementwise}
    data_list = converter.convert_all(images, disable_tqdm=True)
    reducer = PCAReducer(data_list, True, setting)
    step = 1e-4
    moved = []
    for sign in (1, -1):
        atoms = images[2].copy()
        atoms.positions[1, 0] += sign * step
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((3, 3)))
        (data,) = reducer.reduce([converter.convert(atoms)])
        moved.append(data.fingerprint)
    (data,) = reducer.reduce([converter.convert(images[2])])
    assert data.fingerprint.shape == (3, 4)
    numeric = ((moved[0] - moved[1]) / (2 * step)).reshape(-1)
    torch.testing.assert_close(data.fprimes.to_dense()[:, 3], numeric, rtol=1e-6, atol=1e-7)


def test_the_number_of_components_is_checked(converter, images):
    with pytest.raises(ValueError, match="num_pc must be between 1 and the"):
        PCAReducer(converter.convert_all(images, disable_tqdm=True), False, {"num_pc": 1000})
