"""Training from a packed store, against the same frames in memory."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch
from ase.io import Trajectory

from amptorch.data.from_store import StoreDataset
from amptorch.data.loader import BatchLoader
from amptorch.dataset import AtomsDataset, DataCollater, construct_descriptor
from amptorch.datasets import iron_water
from amptorch.model import BPNN, CustomLoss, SingleNN
from amptorch.store import FrameStore, preprocess
from amptorch.trainer import AtomsTrainer
from tests.small_frames import FP_PARAMS, config, draw_forces, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
N_FRAMES = 22
SCALINGS = [
    {"type": "normalize", "range": (-1, 1), "elementwise": True},
    {"type": "standardize", "elementwise": True},
    {"type": "standardize", "elementwise": False},
]


@pytest.fixture(scope="module")
def images():
    return mixed_frames(N_FRAMES)


@pytest.fixture(scope="module")
def store(images, tmp_path_factory):
    """Shards of 5 frames, with derivatives of both types."""
    path = tmp_path_factory.mktemp("packed") / "store"
    for dtype in ("float64", "float32"):
        preprocess(
            images,
            construct_descriptor(SETUP),
            path,
            derivatives="stored",
            derivative_dtype=dtype,
            frames_per_shard=5,
            verbose=False,
        )
    return FrameStore(path)


def make_model(kind, **options):
    torch.manual_seed(0)
    return kind(["Cu", "O"], 18, num_nodes=7, num_layers=2, **options)


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = CustomLoss(force_coefficient=0.3)(model(batch), batch.targets)
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [BPNN, SingleNN])
@pytest.mark.parametrize("back_end", ["stored", "recompute"])
@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_one_loss_and_gradient_from_memory_and_disk(kind, back_end, fraction, images, store):
    memory = AtomsDataset(images, SETUP, verbose=False)
    packed = StoreDataset(store, SETUP, derivatives=back_end)
    model = make_model(kind)
    # In one shard, in several of them, and not in order.
    for frame_ids in ([1, 2, 4], [0, 6, 7, 21], [17, 3, 9]):
        one, two = memory.batch(frame_ids), packed.batch(frame_ids)
        if fraction < 1:
            one, two = (
                draw_forces(batch, fraction, np.random.default_rng(5)) for batch in (one, two)
            )
        expected, gradients = loss_and_gradients(model, one)
        loss, found = loss_and_gradients(model, two)
        assert loss == pytest.approx(expected, rel=1e-10)
        assert any(gradient.abs().max() > 1e-6 for gradient in gradients)
        for a, b in zip(found, gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_single_precision_derivatives_are_nearly_those(images, store):
    batches = [
        StoreDataset(store, SETUP, derivatives="stored", derivative_dtype=dtype).batch([3, 8])
        for dtype in ("float64", "float32")
    ]
    model = make_model(BPNN)
    (one, _), (two, _) = (loss_and_gradients(model, batch) for batch in batches)
    assert one == pytest.approx(two, rel=1e-5)
    assert one != two


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scalers_are_those_of_the_frames_in_memory(scaling, images, store, monkeypatch):
    monkeypatch.setattr("amptorch.data.from_store.CHUNK", 4)
    memory = AtomsDataset(images, SETUP, scaling=scaling, verbose=False)
    packed = StoreDataset(store, SETUP, scaling=scaling, derivatives="recompute")
    slopes = zip(
        memory.feature_scaler.slope_and_offset(),
        packed.feature_scaler.slope_and_offset(),
        strict=True,
    )
    for one, two in slopes:
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    one, two = packed.target_scaler.state(), memory.target_scaler.state()
    assert one.pop("compositions") == two.pop("compositions")
    assert one == pytest.approx(two, rel=1e-14)
    rows = packed.batch(range(N_FRAMES))
    torch.testing.assert_close(rows.fingerprint, memory.fingerprint, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rows.forces, memory.forces, rtol=1e-13, atol=1e-13)


def test_attributes_and_batches(images, store):
    dataset = StoreDataset(store.path, SETUP, dtype=torch.float32)
    assert len(dataset) == N_FRAMES
    assert dataset.elements == ["Cu", "O"]
    assert dataset.input_dim == 18 == dataset.descriptor.n_features
    assert dataset.counts.tolist() == [len(atoms) for atoms in images]
    assert dataset.shards.tolist() == (np.arange(N_FRAMES) // 5).tolist()
    batch = dataset[-1]
    assert batch.num_images == 1
    assert batch.fingerprint.dtype == batch.energy.dtype == batch.forces.dtype == torch.float32
    assert batch.atomic_numbers.tolist() == images[-1].numbers.tolist()
    with pytest.raises(IndexError, match="frame 22 of 22"):
        dataset[22]


def test_without_forces_there_are_no_derivatives(store):
    batch = StoreDataset(store, SETUP, forcetraining=False)[2]
    assert batch.derivatives is None
    assert batch.targets == [batch.energy]
    energy, forces = make_model(BPNN)(batch)
    assert (len(energy), len(forces)) == (1, 0)


def test_given_scalers_are_used(images, store):
    few = AtomsDataset(images[:4], SETUP, verbose=False)
    dataset = StoreDataset(
        store, SETUP, feature_scaler=few.feature_scaler, target_scaler=few.target_scaler
    )
    assert dataset.feature_scaler is few.feature_scaler
    torch.testing.assert_close(dataset[2].fingerprint, few.batch([2]).fingerprint)


def test_a_store_that_does_not_hold_what_is_asked_for(images, tmp_path, store):
    other = {"default": {**FP_PARAMS["default"], "cutoff": 4.0}}
    with pytest.raises(ValueError, match="no fingerprints of the set-up"):
        StoreDataset(store, ("gaussian", other, *SETUP[2:]), forcetraining=False)
    longer = {"default": {**FP_PARAMS["default"], "cutoff": 5.0}}
    with pytest.raises(ValueError, match=r"5.0 Å.*4.5 Å"):
        StoreDataset(store, ("gaussian", longer, *SETUP[2:]))
    descriptor = construct_descriptor(SETUP)
    preprocess(images[:3], descriptor, tmp_path / "energies", forces=False, verbose=False)
    with pytest.raises(ValueError, match="holds no forces"):
        StoreDataset(tmp_path / "energies", SETUP)
    preprocess(images[:3], descriptor, tmp_path / "plain", verbose=False)
    with pytest.raises(ValueError, match=r"no float64 derivatives[^{]*--derivatives float64"):
        StoreDataset(tmp_path / "plain", SETUP, derivatives="stored")


# --- through the trainer ---


def trained(settings):
    trainer = AtomsTrainer(settings)
    trainer.train()
    return trainer


def packed_config(store, run_dir, **changes):
    changes = {"dataset__elements": ["Cu", "O"], "dataset__store": str(store), **changes}
    settings = config(None, run_dir, **changes)
    del settings["dataset"]["raw_data"]
    return settings


@pytest.mark.slow
def test_both_back_ends_train_alike_whatever_the_threads(store, tmp_path):
    histories = []
    for derivatives, threads in (("stored", 1), ("recompute", 1), ("recompute", 2)):
        settings = packed_config(
            store.path,
            tmp_path,
            dataset__derivatives=derivatives,
            dataset__val_split=0.3,
            optim__force_fraction=0.5,
            cmd__threads=threads,
        )
        trainer = trained(settings)
        assert trainer.train_dataset.derivative_kind == derivatives
        histories.append(
            np.array(trainer.net.history[:, ("train_loss", "valid_loss", "val_forces_mae")])
        )
    assert histories[0][-1, 0] < histories[0][0, 0]
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-8)
    np.testing.assert_array_equal(histories[2], histories[1])


@pytest.mark.slow
def test_a_store_is_filled_and_trained_from_and_found_again(images, tmp_path, capsys):
    data, folder = tmp_path / "images.traj", tmp_path / "store"
    with Trajectory(data, "w") as trajectory:
        for atoms in images:
            trajectory.write(atoms)
    settings = config(
        str(data), tmp_path, dataset__store=str(folder), optim__epochs=2, cmd__verbose=True
    )
    first = trained(settings)
    assert first.elements == ["Cu", "O"]
    assert first.plan.derivatives == "stored"
    assert first.plan.stored_bytes == pytest.approx(
        FrameStore(folder).derivatives(first.descriptor.descriptor_setup_hash, "float64").nbytes,
        rel=0.15,
    )
    assert capsys.readouterr().out.count("memory plan for 22 frames") == 1
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    again = trained(settings)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")} == before
    assert again.plan.reason == "they are in the store already"
    data.unlink()
    alone = trained(packed_config(folder, tmp_path, optim__epochs=2))
    losses = [t.net.history[:, "train_loss"] for t in (first, again, alone)]
    assert losses[0] == losses[1] == losses[2]
    # The checkpoint does not say where its data were, and needs none of them.
    loaded = AtomsTrainer()
    loaded.load_pretrained(alone.cp_dir)
    assert loaded.train_dataset is None
    assert loaded.predict(images[:3])["energy"] == alone.predict(images[:3])["energy"]


@pytest.mark.slow
def test_predictions_of_the_net_come_in_the_order_of_the_frames(images, store, tmp_path):
    """Batches out of a store have their share of every part of it; predictions do not show it."""
    trainer = AtomsTrainer(packed_config(store.path, tmp_path, dataset__val_split=0.4))
    trainer.train()
    net, scaler = trainer.net, trainer.target_scaler
    expected = trainer.predict(images)
    energies = scaler.denorm(net.predict(trainer.train_dataset))
    np.testing.assert_allclose(energies, expected["energy"], atol=1e-8)
    energies, forces = net.forward(trainer.train_dataset)
    assert torch.equal(energies, torch.as_tensor(net.predict(trainer.train_dataset)))
    np.testing.assert_allclose(
        scaler.denorm(forces, "forces"), np.concatenate(expected["forces"]), atol=1e-8
    )
    chosen = [20, 3, 11, 0, 19, 7]
    part = torch.utils.data.Subset(trainer.train_dataset, chosen)
    np.testing.assert_allclose(
        scaler.denorm(net.predict(part)), np.array(expected["energy"])[chosen], atol=1e-8
    )


@pytest.mark.slow
def test_more_than_the_budget_is_recomputed(images, tmp_path):
    settings = config(
        images, tmp_path, dataset__store=str(tmp_path / "store"), dataset__memory_budget=1e-6
    )
    trainer = trained(settings)
    assert trainer.train_dataset.derivative_kind == "recompute"
    assert trainer.plan.reason == "more than dataset.memory_budget of 1e-06 GB"
    assert not list((tmp_path / "store").rglob("derivatives"))


def test_what_a_store_has_is_used_where_auto_may_choose(images, tmp_path):
    folder, descriptor = tmp_path / "store", construct_descriptor(SETUP)
    preprocess(images, descriptor, folder, verbose=False)
    trainer = AtomsTrainer(packed_config(folder, tmp_path))
    trainer.load()
    assert trainer.plan.derivatives == "recompute"
    assert trainer.plan.reason == "the store holds none"
    preprocess(images, descriptor, folder, "stored", "float32", verbose=False)
    trainer = AtomsTrainer(packed_config(folder, tmp_path))
    trainer.load()
    assert trainer.plan.derivatives == "stored"
    assert trainer.plan.dtype == "float32"


def test_a_bad_frame_is_named_before_anything_is_made(images, tmp_path):
    bad = [atoms.copy() for atoms in images]
    for atoms, good in zip(bad, images, strict=True):
        atoms.calc = good.calc
    bad[7].positions[0] = np.nan
    settings = config(bad, tmp_path, dataset__store=str(tmp_path / "store"))
    with pytest.raises(ValueError, match="images: frame 7, atom 0"):
        AtomsTrainer(settings).train()
    assert not list((tmp_path / "store").rglob("*.npy"))


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_a_store(store, tmp_path):
    settings = packed_config(store.path, tmp_path)
    first = trained(settings)
    second = AtomsTrainer(settings)
    second.load_pretrained(first.cp_dir)
    assert isinstance(second.train_dataset, StoreDataset)
    begun = len(second.net.history)
    assert begun > 0
    second.train()
    assert len(second.net.history) == begun + settings["optim"]["epochs"]


@pytest.mark.slow
def test_a_run_goes_on_with_its_store_elsewhere_but_not_with_other_shards(images, tmp_path):
    descriptor = construct_descriptor(SETUP)
    for name, frames_per_shard in (("one", 5), ("same", 5), ("other", 4)):
        preprocess(
            images,
            descriptor,
            tmp_path / name,
            frames_per_shard=frames_per_shard,
            verbose=False,
        )
    run = trained(packed_config(tmp_path / "one", tmp_path, optim__epochs=1)).cp_dir
    trainer = AtomsTrainer(packed_config(tmp_path / "other", tmp_path, optim__epochs=2))
    with pytest.raises(ValueError, match="a store with as many frames a shard"):
        trainer.train(resume=run)
    trainer = AtomsTrainer(packed_config(tmp_path / "same", tmp_path, optim__epochs=2))
    trainer.train(resume=run)
    assert len(trainer.net.history) == 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    """What an epoch of 192 frames allocates, and four of 48: what the network and the thread beside
    it hold at one time is chance, and the more of it the more batches there are."""
    monkeypatch.setattr("amptorch.data.from_store.CHUNK", 48)
    setup = (*SETUP[:3], ["Fe", "H", "O"])
    images, peaks = iron_water(48), []
    for copies in (1, 4):
        folder = tmp_path / f"store{copies}"
        descriptor = construct_descriptor(setup)
        preprocess(images * copies, descriptor, folder, frames_per_shard=24, verbose=False)
        model = BPNN(setup[-1], descriptor.n_features, num_nodes=7, num_layers=2)
        # Whatever is imported or compiled on the way.
        model(StoreDataset(folder, setup, derivatives="recompute")[0])
        tracemalloc.start()
        dataset = StoreDataset(folder, setup, derivatives="recompute")
        for _ in range(4 // copies):
            for batch, _ in BatchLoader(dataset, 8, DataCollater()):
                model(batch)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The neighbour lists of the 48 frames alone would take as much again.
    assert peaks[1] < 1.25 * peaks[0]


def test_batches_do_not_hold_what_they_were_made_of(store):
    batch = StoreDataset(store, SETUP, derivatives="recompute")[0]
    names = {field.name for field in dataclasses.fields(batch)}
    assert "force_rows" in names
    assert len(batch.derivatives.frames) == 1


@pytest.mark.parametrize("name", ["values.npy", "forces.npy"])
def test_a_flipped_bit_ends_the_training_and_names_the_file(name, images, tmp_path):
    folder = tmp_path / "store"
    preprocess(
        images, construct_descriptor(SETUP), folder, "stored", frames_per_shard=5, verbose=False
    )
    damaged = sorted(folder.rglob(name))[2]
    data = bytearray(damaged.read_bytes())
    data[-9] ^= 4
    damaged.write_bytes(data)
    trainer = AtomsTrainer(packed_config(folder, tmp_path, dataset__derivatives="auto"))
    with pytest.raises(ValueError, match=rf"{damaged} is damaged"):
        trainer.train()
