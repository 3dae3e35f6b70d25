"""The packed data set, its batches and data objects."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from torch.utils.data import DataLoader, Subset

from amptorch.data.fingerprints import chunks_of_frames
from amptorch.dataset import AtomsDataset, DataCollater, construct_descriptor
from amptorch.descriptor.store import FingerprintStore
from amptorch.model import BPNN, CustomLoss, SingleNN
from amptorch.preprocessing import AtomsToData, FeatureScaler, TargetScaler
from tests.small_frames import FP_PARAMS, labelled, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(8)


@pytest.fixture(scope="module")
def dataset(frames):
    return AtomsDataset(frames, SETUP, verbose=False)


def loss_and_gradients(model, batch, targets):
    model.zero_grad()
    loss = CustomLoss(0.3, "mse")(model(batch), targets)
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def make_model(kind, **options):
    torch.manual_seed(0)
    return kind(["Cu", "O"], 18, num_nodes=7, num_layers=2, **options)


def test_attributes(dataset, frames):
    n_atoms = sum(map(len, frames))
    assert len(dataset) == len(frames)
    assert dataset.elements == ["Cu", "O"]
    assert dataset.input_dim == 18 == dataset.descriptor.n_features
    assert dataset.fingerprint.shape == (n_atoms, 18)
    assert dataset.fingerprint.dtype == torch.float64
    assert len(dataset.data_list) == len(frames)
    assert [data.image_idx for data in dataset.data_list[2:5]] == [2, 3, 4]


def test_targets_are_scaled_by_one_standard_deviation(dataset, frames):
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    forces = np.concatenate([atoms.get_forces() for atoms in frames])
    std = energies.std(ddof=1)
    np.testing.assert_allclose(dataset.energy, (energies - energies.mean()) / std, atol=1e-12)
    np.testing.assert_allclose(dataset.forces, forces / std, atol=1e-12)


def test_batch_has_the_rows_of_its_frames_in_order(dataset, frames):
    batch = dataset.batch([6, 1, 3])
    chosen = [frames[6], frames[1], frames[3]]
    counts = [len(atoms) for atoms in chosen]
    assert len(batch) == batch.num_images == 3
    assert batch.atomic_numbers.tolist() == np.concatenate([a.numbers for a in chosen]).tolist()
    assert batch.image_idx.tolist() == np.repeat([0, 1, 2], counts).tolist()
    objects = [dataset[k] for k in (6, 1, 3)]
    assert torch.equal(batch.fingerprint, torch.cat([d.fingerprint for d in objects]))
    assert torch.equal(batch.forces, torch.cat([d.forces for d in objects]))
    assert torch.equal(batch.energy, torch.stack([d.energy for d in objects]))
    for rows, number in zip(batch.element_rows, (29, 8), strict=True):
        assert (batch.atomic_numbers[rows] == number).all()
    assert sum(map(len, batch.element_rows)) == sum(counts)


@pytest.mark.parametrize("kind", [BPNN, SingleNN])
def test_back_ends_and_data_objects_give_one_loss_and_gradient(kind, dataset, frames):
    other = AtomsDataset(frames, SETUP, derivatives="recompute", verbose=False)
    indices = [5, 0, 2, 3]
    model = make_model(kind)
    collate = DataCollater()
    expected, gradients = loss_and_gradients(model, *collate(dataset.batch(indices)))
    assert any(gradient.abs().max() > 1e-6 for gradient in gradients)
    for data in (
        other.batch(indices),
        [dataset[k] for k in indices],
        [other[k] for k in indices],
    ):
        loss, found = loss_and_gradients(model, *collate(data))
        assert loss == pytest.approx(expected, rel=1e-10)
        for one, two in zip(found, gradients, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_scaled_as_the_data_objects_of_v1_are(dataset, frames):
    descriptor = construct_descriptor(SETUP)
    convert = AtomsToData(descriptor, r_energy=True, r_forces=True, save_fps=False)
    objects = convert.convert_all(frames, disable_tqdm=True)
    scaling = {"type": "normalize", "range": (0, 1), "elementwise": True}
    features = FeatureScaler(objects, True, scaling)
    targets = TargetScaler(objects, True)
    features.norm(objects, disable_tqdm=True)
    targets.norm(objects, disable_tqdm=True)
    for ours, theirs in zip(dataset.data_list, objects, strict=True):
        torch.testing.assert_close(ours.fingerprint, theirs.fingerprint, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.forces, theirs.forces)
        torch.testing.assert_close(ours.energy.reshape(()), theirs.energy.reshape(()))
        difference = (ours.fprimes.to_dense() - theirs.fprimes.to_dense()).abs().max()
        assert difference < 1e-10 * theirs.fprimes.to_dense().abs().max()


def test_data_loader_takes_whole_batches(dataset):
    loader = DataLoader(Subset(dataset, [7, 6, 5]), batch_size=2, collate_fn=DataCollater())
    batches = list(loader)
    assert [len(batch) for batch, _ in batches] == [2, 1]
    expected = torch.stack([dataset.energy[k] for k in (7, 6, 5)])
    assert torch.equal(torch.cat([targets[0] for _, targets in batches]), expected)


def test_collater_without_targets(dataset):
    batch = DataCollater(train=False)(dataset.batch([0]))
    assert batch.num_images == 1
    batch = DataCollater(train=False)([dataset[0], dataset[1]])
    assert batch.num_images == 2
    assert batch.energy is None


def test_collater_names_what_is_missing(dataset):
    second = dataset[1]
    del second.forces
    with pytest.raises(ValueError, match="data object 1 of the batch has no forces"):
        DataCollater()([dataset[0], second])


def test_scalers_can_be_given(dataset, frames):
    other = AtomsDataset(
        frames[:3],
        SETUP,
        feature_scaler=dataset.feature_scaler,
        target_scaler=dataset.target_scaler,
        verbose=False,
    )
    n_atoms = sum(len(atoms) for atoms in frames[:3])
    torch.testing.assert_close(other.fingerprint, dataset.fingerprint[:n_atoms])
    torch.testing.assert_close(other.energy, dataset.energy[:3])


def test_single_precision(frames):
    dataset = AtomsDataset(
        frames, SETUP, dtype=torch.float32, derivative_dtype="float32", verbose=False
    )
    assert dataset.fingerprint.dtype == dataset.forces.dtype == torch.float32
    assert dataset.derivatives.dtype == np.float32
    batch = dataset.batch([0, 1])
    assert batch.slope.dtype == torch.float32
    loss, gradients = loss_and_gradients(
        make_model(BPNN, dtype=torch.float32), batch, batch.targets
    )
    assert np.isfinite(loss)
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


def test_result_does_not_depend_on_the_number_of_threads(frames, dataset):
    other = AtomsDataset(frames, SETUP, cores=2, verbose=False)
    alone = AtomsDataset(frames, SETUP, cores=1, verbose=False)
    assert torch.equal(other.fingerprint, alone.fingerprint)
    assert torch.equal(other[1].fprimes.to_dense(), alone[1].fprimes.to_dense())


def test_chunks_do_not_show(frames, dataset, monkeypatch):
    monkeypatch.setattr(chunks_of_frames, "__defaults__", (10,))
    model = make_model(BPNN)
    for kind in ("stored", "recompute"):
        other = AtomsDataset(frames, SETUP, derivatives=kind, verbose=False)
        torch.testing.assert_close(other.fingerprint, dataset.fingerprint, rtol=1e-13, atol=1e-14)
        indices = [6, 0, 7]
        expected = model(dataset.batch(indices))
        for one, two in zip(model(other.batch(indices)), expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_energies_only_keeps_no_derivatives(frames):
    images = [labelled(a, a.get_potential_energy()) for a in frames]
    dataset = AtomsDataset(images, SETUP, forcetraining=False, verbose=False)
    batch, targets = DataCollater()(dataset.batch([0, 1]))
    assert dataset.derivatives is None
    assert batch.slope is None
    assert len(targets) == 1


def test_fingerprints_are_kept_and_taken_from_the_store(frames, tmp_path):
    store = FingerprintStore(tmp_path / "fingerprints.sqlite")
    options = {"forcetraining": False, "verbose": False}
    plain = AtomsDataset(frames, SETUP, **options)
    AtomsDataset(frames[:3], SETUP, store=store, **options)
    mixed = AtomsDataset(frames, SETUP, store=store, **options)

    def fail(*args):
        raise AssertionError("computed again")

    known = AtomsDataset(frames, SETUP, store=store, process=False, **options)
    known.descriptor.values = fail
    known.process()
    for dataset in (mixed, known):
        assert torch.equal(dataset.fingerprint, plain.fingerprint)


def test_store_serves_recomputed_derivatives(frames, tmp_path):
    store = FingerprintStore(tmp_path / "fingerprints.sqlite")
    options = {"derivatives": "recompute", "verbose": False}
    plain = AtomsDataset(frames, SETUP, **options)
    AtomsDataset(frames[:3], SETUP, store=store, **options)
    mixed = AtomsDataset(frames, SETUP, store=store, **options)
    torch.testing.assert_close(mixed.fingerprint, plain.fingerprint, rtol=1e-13, atol=1e-14)


def frame(symbols="Cu2", positions=((0, 0, 0), (2.3, 0, 0)), energy=0.0, forces=None):
    atoms = Atoms(symbols, positions)
    results = {} if energy is None else {"energy": energy}
    if forces is not None:
        results["forces"] = forces
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (frame(energy=1.0), "frame 8 .*forces"),
        (frame(energy=None, forces=np.zeros((2, 3))), "frame 8 .*energy"),
        (frame("CuAu", forces=np.zeros((2, 3))), r"frame 8, atom 1 \(Au\)"),
        (frame(positions=[(0, 0, 0), (0, 0, 1e-5)], forces=np.zeros((2, 3))), "frame 8.*one place"),
        (frame(positions=[(0, 0, np.nan), (0, 0, 1)], forces=np.zeros((2, 3))), "frame 8, atom 0"),
    ],
)
def test_unusable_frame_is_named_before_any_work(frames, bad, message):
    dataset = AtomsDataset([*frames, bad], SETUP, process=False, verbose=False)

    def fail(*args, **kwargs):
        raise AssertionError("work was done before the frames were checked")

    dataset.descriptor.values = dataset.descriptor.values_and_derivatives = fail
    with pytest.raises(ValueError, match=message):
        dataset.process()


def test_no_frames():
    with pytest.raises(ValueError, match="empty"):
        AtomsDataset([], SETUP)


@pytest.mark.parametrize(
    ("scheme", "message"), [("GMPs", "gmpordernorm"), ("gauss", "gaussian"), (None, "gaussian")]
)
def test_unknown_scheme(scheme, message):
    with pytest.raises(ValueError, match=message):
        construct_descriptor((scheme, *SETUP[1:]))


def test_unknown_back_end(frames):
    with pytest.raises(ValueError, match="'stored' or 'recompute'"):
        AtomsDataset(frames, SETUP, derivatives="keep")
