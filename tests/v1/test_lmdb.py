"""Data sets in LMDB files: those of v1.0's users, those made by hand, and ours."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from typer.testing import CliRunner

import amptorch
from amptorch.cli import app
from amptorch.data.from_store import StoreDataset
from amptorch.dataset import AtomsDataset, DataCollater
from amptorch.dataset_lmdb import (
    AtomsLMDBDataset,
    AtomsLMDBDatasetCache,
    AtomsLMDBDatasetPartialCache,
    PartialCacheSampler,
    get_lmdb_dataset,
)
from amptorch.descriptor.Gaussian import Gaussian, GaussianDescriptorSet
from amptorch.model import BPNN
from amptorch.preprocessing import AtomsToData, FeatureScaler, TargetScaler
from amptorch.trainer import AtomsTrainer
from amptorch.training.ranks import share_of
from amptorch.v1.lmdb_file import LMDBFile, write_lmdb
from amptorch.v1.lmdb_store import lmdb_to_store
from amptorch.v1.sparse import SparseDerivatives, blocks_from_coo
from tests.small_frames import FP_PARAMS, config, mixed_frames

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
OF_V1 = GOLDEN / "lmdb" / "cuco_gaussian.lmdb"
SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
CACHES = pytest.mark.parametrize("cache", ["no", "full", "partial"])
N_FRAMES = 10


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(N_FRAMES)


@pytest.fixture(scope="module")
def written(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("lmdb") / "frames.lmdb"
    write_lmdb(frames, path, config(None, "."), verbose=False)
    return path


@pytest.fixture(scope="module")
def parts(frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lmdb")
    paths = [folder / "a.lmdb", folder / "b.lmdb"]
    write_lmdb(frames, paths, config(None, "."), verbose=False)
    return paths


def settings(paths, folder, **changes):
    """As a script for v1.0 has them: nothing is said of the fingerprints."""
    result = config(None, folder, **{"optim__epochs": 4, "dataset__val_split": 0.2, **changes})
    del (
        result["dataset"]["fp_params"],
        result["dataset"]["fp_scheme"],
        result["dataset"]["raw_data"],
    )
    result["dataset"]["lmdb_path"] = [str(path) for path in paths]
    return result


def trained(paths, folder, **changes):
    trainer = AtomsTrainer(settings(paths, folder, **changes))
    trainer.train()
    return trainer


def test_raw_data_beside_files(frames, parts, tmp_path):
    """As in v1.0 the files are trained on; here with a word."""
    both = settings(parts, tmp_path, optim__epochs=1)
    both["dataset"]["raw_data"] = frames[:2]
    trainer = AtomsTrainer(both)
    with pytest.warns(UserWarning, match=r"raw_data is ignored.*lmdb_path"):
        trainer.train()
    assert len(trainer.train_dataset) == len(frames)


def same_batch(first, second, atol=1e-12):
    for name in ("fingerprint", "energy", "forces"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), atol=atol, rtol=0)
    rng = np.random.default_rng(0)
    g, v = rng.normal(size=first.fingerprint.shape), rng.normal(size=first.forces.shape)
    slopes = [torch.ones(()) if b.slope is None else b.slope for b in (first, second)]
    for rows in (None, np.arange(0, len(v), 3)):
        found = [
            b.derivatives.vjp(b.frame_ids, g * s.numpy(), rows=rows)
            for b, s in zip((first, second), slopes, strict=True)
        ]
        assert np.abs(found[0]).max() > 1e-3
        np.testing.assert_allclose(*found, atol=atol)
        moved = v if rows is None else v[rows]
        found = [
            b.derivatives.jvp(b.frame_ids, moved, rows=rows) * s.numpy()
            for b, s in zip((first, second), slopes, strict=True)
        ]
        np.testing.assert_allclose(*found, atol=atol)


# --- files of v1.0 ---


@CACHES
def test_a_file_of_v1_holds_what_our_descriptor_gives(cache):
    """Values and derivatives, scaled by v1.0, to 1e-10."""
    dataset = get_lmdb_dataset([OF_V1], cache)
    images = read(GOLDEN / "checkpoints" / "images.traj", ":20")
    memory = AtomsDataset(
        images,
        dataset.descriptor_setup,
        feature_scaler=dataset.feature_scaler,
        target_scaler=dataset.target_scaler,
        verbose=False,
    )
    assert len(dataset) == 20
    assert dataset.elements == ["C", "Cu", "O"]
    ids = np.arange(20)
    same_batch(dataset.batch(ids), memory.batch(ids), atol=1e-10)
    for index in (6, 16):
        entry, own = dataset[index], memory[index]
        np.testing.assert_allclose(entry.fingerprint, own.fingerprint, atol=1e-10)
        np.testing.assert_allclose(entry.fprimes.to_dense(), own.fprimes.to_dense(), atol=1e-10)


def test_training_on_a_file_of_v1(tmp_path):
    trainer = trained([OF_V1], tmp_path, dataset__cache="full")
    images = read(GOLDEN / "checkpoints" / "images.traj", ":5")
    expected = trainer.predict(images)
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    assert again.predict(images)["energy"] == expected["energy"]
    assert again.settings.dataset.fp_scheme == "gaussian"


# --- made by hand ---

BY_HAND = """
import pickle, sys
import lmdb
import numpy as np
from amptorch import AtomsTrainer
from amptorch.dataset import construct_descriptor
from amptorch.preprocessing import AtomsToData, FeatureScaler, TargetScaler
from tests.small_frames import FP_PARAMS, mixed_frames

path, images = sys.argv[1], mixed_frames(6)
elements = np.array(["Cu", "O"])
setup = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, elements)
converter = AtomsToData(
    descriptor=construct_descriptor(setup),
    r_energy=True, r_forces=True, save_fps=False, fprimes=True, cores=1,
)
data_list = [converter.convert(image, idx) for idx, image in enumerate(images)]
feature_scaler = FeatureScaler(
    data_list, True, {"type": "normalize", "range": (0, 1), "elementwise": True}
)
target_scaler = TargetScaler(data_list, True)
feature_scaler.norm(data_list)
target_scaler.norm(data_list)
db = lmdb.open(path, map_size=1 << 30, subdir=False, meminit=False, map_async=True)
with db.begin(write=True) as txn:
    for idx, data in enumerate(data_list):
        txn.put(f"{idx}".encode("ascii"), pickle.dumps(data, protocol=-1))
    for name, value in {
        "feature_scaler": feature_scaler, "target_scaler": target_scaler,
        "length": len(data_list), "elements": elements, "descriptor_setup": setup,
    }.items():
        txn.put(name.encode("ascii"), pickle.dumps(value, protocol=-1))
db.sync()
db.close()

trainer = AtomsTrainer({
    "model": {"get_forces": True, "num_layers": 2, "num_nodes": 4},
    "optim": {"lr": 1e-2, "batch_size": 4, "epochs": 2, "force_coefficient": 0.1},
    "dataset": {"lmdb_path": [path], "cache": "full", "val_split": 0},
    "cmd": {"debug": True, "verbose": False, "run_dir": sys.argv[2]},
})
trainer.train()
predictions = trainer.predict(images)
assert np.isfinite(predictions["energy"]).all() and predictions["forces"][1].shape == (8, 3)
"""


def test_construction_by_hand(tmp_path, monkeypatch):
    """What users of v1.0 write."""
    monkeypatch.setattr(sys, "argv", ["script.py", str(tmp_path / "by-hand.lmdb"), str(tmp_path)])
    exec(compile(BY_HAND, "script.py", "exec"), {})  # our own text
    frames = mixed_frames(6)
    write_lmdb(frames, tmp_path / "ours.lmdb", config(None, "."), verbose=False)
    batches = [
        get_lmdb_dataset(tmp_path / name).batch(np.arange(6))
        for name in ("by-hand.lmdb", "ours.lmdb")
    ]
    same_batch(*batches)


def test_the_sets_go_into_a_torch_loader(written):
    loader = torch.utils.data.DataLoader(
        AtomsLMDBDatasetCache([written]), batch_size=4, collate_fn=DataCollater(True, True)
    )
    batches = [batch for batch, _ in loader]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    # As v1.0 does it, from the data objects.
    dataset = AtomsLMDBDataset([written])
    collated, targets = DataCollater(True, True)([dataset[k] for k in range(4)])
    same_batch(collated, batches[0])
    assert len(targets) == 2


# --- batches ---


@CACHES
def test_batches_are_those_of_the_frames(frames, parts, cache):
    memory = AtomsDataset(frames, SETUP, verbose=False)
    dataset = get_lmdb_dataset(parts, cache, memory_budget=3e5)
    assert dataset.lengths == [5, 5]
    for ids in ([7, 0, 3], np.arange(N_FRAMES)):
        same_batch(dataset.batch(ids), memory.batch(ids))
    if cache == "partial":
        assert len(set(dataset.shards.tolist())) > 4
        copy = pickle.loads(pickle.dumps(dataset))
        same_batch(copy.batch([7, 0, 3]), memory.batch([7, 0, 3]))


def test_kept_in_single_precision(written):
    single = AtomsLMDBDatasetCache([written], derivative_dtype="float32")
    double = AtomsLMDBDatasetCache([written])
    assert single._pack.derivatives.dtype == np.float32
    same_batch(single.batch([1, 2]), double.batch([1, 2]), atol=1e-5)


def test_energies_alone(frames, tmp_path):
    path = tmp_path / "energies.lmdb"
    write_lmdb(frames, path, config(None, ".", model__get_forces=False), verbose=False)
    batch = get_lmdb_dataset(path, "full").batch([0, 1])
    assert batch.forces is None
    assert batch.derivatives is None
    with pytest.raises(ValueError, match="entry 0 has no forces"):
        get_lmdb_dataset(path, "full", forcetraining=True)
    trained([path], tmp_path, model__get_forces=False)
    with pytest.raises(ValueError, match=r"set model\.get_forces to False"):
        trained([path], tmp_path)


@CACHES
def test_derivatives_that_v1_cut_off_stay_sparse(frames, written, tmp_path, cache):
    """Where the columns of an atom are not minus the sum of the others, as in v1.0's GMP."""
    path = tmp_path / "cut.lmdb"
    shutil.copy(written, path)
    import lmdb

    first = LMDBFile(written)[1]
    cut = first.fprimes.to_dense()
    cut[cut.abs() < 0.05] = 0
    first.fprimes = cut.to_sparse()
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"1", pickle.dumps(first))
    dataset = get_lmdb_dataset(path, cache, memory_budget=3e5)
    batch, whole = (d.batch([1, 2]) for d in (dataset, AtomsLMDBDataset(written)))
    assert isinstance(batch.derivatives, SparseDerivatives)
    n = len(first.fingerprint)
    g = np.random.default_rng(0).normal(size=batch.fingerprint.shape)
    forces = batch.derivatives.vjp(batch.frame_ids, g * batch.slope.numpy())
    expected = (cut.numpy().T @ g[:n].ravel()).reshape(n, 3)
    np.testing.assert_allclose(forces[:n], expected, atol=1e-12)
    intact = whole.derivatives.vjp(whole.frame_ids, g * whole.slope.numpy())
    np.testing.assert_allclose(forces[n:], intact[n:], atol=1e-12)
    with pytest.raises(ValueError, match="cannot be shared between processes"):
        batch.derivatives.vjp(batch.frame_ids, g[:n])


def test_blocks_out_of_a_sparse_matrix(frames):
    descriptor = Gaussian(FP_PARAMS, ["Cu", "O"])
    for data in AtomsToData(descriptor, save_fps=False).convert_all(frames[:4], disable_tqdm=True):
        # In another order of the elements, and without a bond the matrix is empty.
        blocks = blocks_from_coo(data.fprimes, data.atomic_numbers.numpy(), [8, 6, 29])
        (row, col), val, size = blocks.sparse(0)
        dense = np.zeros(size)
        dense[row, col] = val
        np.testing.assert_allclose(dense, data.fprimes.to_dense(), atol=1e-12)
    empty = torch.zeros((2 * 5, 6), dtype=torch.float64).to_sparse()
    blocks = blocks_from_coo(empty, np.array([8, 29]), [8, 29])
    assert not blocks.vjp([0], np.ones((2, 5))).any()


# --- training ---


@pytest.mark.slow
@CACHES
def test_every_cache_trains_alike(frames, parts, tmp_path, cache):
    """Validation split, forces, predictions and metrics; the same numbers as from the frames."""
    trainer = trained(parts, tmp_path, dataset__cache=cache)
    history = trainer.net.history
    assert {"val_energy_mae", "val_forces_mae", "valid_loss"} <= history[-1].keys()
    if cache != "partial":
        # Batches are those that the loader of frames draws where it draws some of the forces.
        other = config(frames, tmp_path, optim__epochs=4, dataset__val_split=0.2)
        other["optim"]["force_fraction"] = 1 - 1e-9
        reference = AtomsTrainer(other)
        reference.train()
        for name in ("train_loss", "valid_loss", "val_forces_mae"):
            np.testing.assert_allclose(history[:, name], reference.net.history[:, name], rtol=1e-8)
        np.testing.assert_allclose(
            trainer.predict(frames)["energy"], reference.predict(frames)["energy"], rtol=1e-8
        )
    prediction = trainer.predict(frames)
    assert np.isfinite(prediction["energy"]).all()
    assert prediction["forces"][0].shape == (len(frames[0]), 3)


@pytest.mark.slow
@CACHES
def test_the_checkpoint_knows_the_domain_of_the_frames(frames, parts, tmp_path, cache):
    path = trained(parts, tmp_path, dataset__cache=cache, optim__epochs=1).cp_dir
    reference = AtomsTrainer(config(frames, tmp_path, optim__epochs=1))
    reference.train()
    found, expected = (
        amptorch.load(folder).predict(frames, extrapolation=True)
        for folder in (path, reference.cp_dir)
    )
    assert np.concatenate(expected["extrapolation"]).max() > 0.5
    for name in ("extrapolation", "range_excess"):
        for row, other in zip(found[name], expected[name], strict=True):
            np.testing.assert_allclose(row, other, rtol=1e-6, atol=1e-7)


def test_every_frame_is_read_once_an_epoch_with_partial(written, tmp_path, monkeypatch):
    reads = []
    get = LMDBFile.__getitem__
    monkeypatch.setattr(LMDBFile, "__getitem__", lambda self, k: (reads.append(k), get(self, k))[1])
    dataset = AtomsLMDBDatasetPartialCache([written], memory_budget=1)
    assert dataset.shards.tolist() == list(range(N_FRAMES))
    reads.clear()
    for index in PartialCacheSampler(dataset):
        dataset.batch([index])
    assert sorted(reads) == list(range(N_FRAMES))
    kept = AtomsLMDBDatasetPartialCache([written], memory_budget=1e9)
    reads.clear()
    for _ in range(2):
        kept.batch(np.arange(N_FRAMES))
    assert sorted(reads) == list(range(N_FRAMES))


def test_the_order_of_the_partial_sampler():
    sampler = PartialCacheSampler([4, 3, 5], val_frac=0.25, seed=1)
    first, second = list(sampler), list(sampler)
    assert len(sampler) == len(first) == 3 + 2 + 3
    assert sorted(first) == sorted(second) == [0, 1, 2, 4, 5, 7, 8, 9]
    assert first != second
    shards = np.searchsorted([4, 7], first, side="right")
    assert len(np.flatnonzero(np.diff(shards))) == 2


@pytest.mark.slow
def test_going_on_from_a_checkpoint_whose_scalers_differ(frames, parts, tmp_path):
    """A potential of other frames is trained on with LMDB files: their entries are scaled anew."""
    before = AtomsTrainer(config(frames[:6], tmp_path, dataset__elements=["Cu", "O"]))
    before.train()
    trainer = AtomsTrainer(settings(parts, tmp_path, dataset__cache="full"))
    trainer.load_pretrained(before.cp_dir)
    assert trainer.target_scaler.state() == before.target_scaler.state()
    memory = AtomsDataset(
        frames,
        SETUP,
        feature_scaler=before.feature_scaler,
        target_scaler=before.target_scaler,
        verbose=False,
    )
    ids = np.arange(N_FRAMES)
    same_batch(trainer.train_dataset.batch(ids), memory.batch(ids), atol=1e-10)
    expected = before.predict(frames)["energy"]
    np.testing.assert_allclose(trainer.predict(frames)["energy"], expected, rtol=1e-12)
    epochs = len(trainer.net.history)
    trainer.train()
    assert len(trainer.net.history) == epochs + 4


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["full", "partial"])
def test_resuming(parts, tmp_path, cache):
    whole = trained(parts, tmp_path / "whole", dataset__cache=cache)
    begun = trained(parts, tmp_path / "part", dataset__cache=cache, optim__epochs=2)
    again = AtomsTrainer(settings(parts, tmp_path / "part", dataset__cache=cache))
    again.train(resume=begun.cp_dir)
    for name in ("train_loss", "valid_loss"):
        assert again.net.history[:, name] == whole.net.history[:, name]
    other = AtomsTrainer(settings(parts[:1], tmp_path / "part", dataset__cache=cache))
    with pytest.raises(ValueError, match="the same frames"):
        other.train(resume=begun.cp_dir)


def test_atomic_correction_in_a_file(frames, tmp_path):
    path = tmp_path / "corrected.lmdb"
    references = {"Cu": -50.0, "O": 20.0}
    options = config(None, ".", dataset__atomic_correction=references)
    write_lmdb(frames, path, options, verbose=False)
    dataset = get_lmdb_dataset(path, "full", weights=np.arange(1.0, 11.0))
    memory = AtomsDataset(frames, SETUP, verbose=False, atomic_correction=references)
    batch = dataset.batch([4, 2])
    torch.testing.assert_close(batch.energy, memory.batch([4, 2]).energy)
    assert batch.weights.tolist() == [5, 3]
    model = BPNN(["Cu", "O"], batch.fingerprint.shape[1], 4, 2, dtype=torch.float64)
    assert torch.isfinite(model(batch)[1]).all()


@pytest.mark.parametrize("cache", ["full", "partial"])
def test_processes_can_share_a_batch(parts, cache):
    """Each evaluates some of the frames, as under torchrun."""
    dataset = get_lmdb_dataset(parts, cache, memory_budget=3e5)
    batch = dataset.batch([7, 0, 3, 5])
    torch.manual_seed(0)
    model = BPNN(["Cu", "O"], batch.fingerprint.shape[1], 4, 2, dtype=torch.float64)
    whole = model(batch)
    split = [model(share_of(batch, rank, 2).part) for rank in range(2)]
    for k in range(2):
        torch.testing.assert_close(torch.cat([part[k] for part in split]), whole[k])


# --- into a store ---


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_store_out_of_lmdb_files(frames, parts, tmp_path, dtype):
    store = lmdb_to_store(parts, tmp_path / "store", dtype, frames_per_shard=4, verbose=False)
    assert (store.n_frames, store.n_shards, store.elements) == (N_FRAMES, 3, ["Cu", "O"])
    assert not store.has_structures
    packed = StoreDataset(store, SETUP, derivatives="stored", derivative_dtype=dtype)
    memory = AtomsDataset(frames, SETUP, verbose=False)
    atol = 1e-10 if dtype == "float64" else 1e-5
    for ids in ([0, 3, 7], np.arange(N_FRAMES)):
        same_batch(packed.batch(ids), memory.batch(ids), atol)
    with pytest.raises(ValueError, match="holds no structures"):
        StoreDataset(store, SETUP, derivatives="recompute")
    with pytest.raises(FileExistsError, match="there is a store"):
        lmdb_to_store(parts, tmp_path / "store", verbose=False)


@pytest.mark.slow
def test_training_on_a_store_out_of_lmdb_files(frames, parts, tmp_path):
    lmdb_to_store(parts, tmp_path / "store", frames_per_shard=4, verbose=False)
    options = config(None, tmp_path, dataset__store=str(tmp_path / "store"))
    trainer = AtomsTrainer(options)
    trainer.train()
    assert trainer.plan is None
    losses = trainer.net.history[:, "train_loss"]
    assert losses[-1] < losses[0]
    assert np.isfinite(trainer.predict(frames)["energy"]).all()
    options["dataset"]["derivatives"] = "recompute"
    with pytest.raises(ValueError, match="holds no structures"):
        AtomsTrainer(options).train()


def test_a_killed_conversion_begins_anew(parts, tmp_path, monkeypatch):
    get = LMDBFile.__getitem__

    def fail(self, index):
        if index == 4:
            raise RuntimeError("power cut")
        return get(self, index)

    monkeypatch.setattr(LMDBFile, "__getitem__", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        lmdb_to_store(parts, tmp_path / "store", frames_per_shard=2, verbose=False)
    monkeypatch.setattr(LMDBFile, "__getitem__", get)
    store = lmdb_to_store(parts, tmp_path / "store", frames_per_shard=4, verbose=False)
    assert store.n_shards == 3


def test_the_command_line_trains_on_lmdb_files(parts, tmp_path):
    options = settings(parts, tmp_path, dataset__cache="full", optim__epochs=1)
    (tmp_path / "config.json").write_text(json.dumps(options))
    result = CliRunner().invoke(app, ["train", str(tmp_path / "config.json")])
    assert result.exit_code == 0, result.output
    assert "checkpoint:" in result.output


def test_a_descriptor_set_in_a_file(frames, tmp_path):
    functions = GaussianDescriptorSet(["Cu", "O"], cutoff=4.5)
    functions.batch_add_descriptors(2, [0.5, 12.0], [0.0, 0.0], None)
    functions.add_g5("Cu", "O", "O", eta=0.1)
    path = tmp_path / "set.lmdb"
    options = config(None, ".", dataset__fp_params=functions, dataset__elements=["Cu", "O"])
    write_lmdb(frames, path, options, verbose=False)
    assert LMDBFile(path).descriptor_setup[1] == functions
    trainer = trained([path], tmp_path, dataset__cache="full")
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    assert again.predict(frames)["energy"] == trainer.predict(frames)["energy"]


# --- writing ---


def test_a_file_is_whole_or_not_there(frames, tmp_path, monkeypatch):
    path = tmp_path / "frames.lmdb"
    calls = []

    def fail(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("power cut")

    monkeypatch.setattr(TargetScaler, "norm", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        write_lmdb(frames, path, config(None, "."), verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_scalers_pickle_for_everyone(frames):
    data = AtomsToData(Gaussian(FP_PARAMS, ["Cu", "O"]), True, True, save_fps=False).convert_all(
        frames, disable_tqdm=True
    )
    for scaler in (FeatureScaler(data, True), TargetScaler(data, True)):
        assert pickle.loads(pickle.dumps(scaler)).state() == scaler.state()
