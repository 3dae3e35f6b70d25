"""Principal components of the fingerprints in training and prediction."""

import numpy as np
import pytest
import torch

from amptorch.data.from_store import StoreDataset
from amptorch.dataset import AtomsDataset
from amptorch.frames import Frames
from amptorch.model import BPNN
from amptorch.model.jacobian import Direction, jacobian
from amptorch.preprocessing import AtomsToData, FeatureScaler, PCAReducer
from amptorch.store import preprocess
from amptorch.trainer import AtomsTrainer
from tests.small_frames import FP_PARAMS, config, labelled, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
KINDS = pytest.mark.parametrize("elementwise", [False, True])


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(8)


def dataset_of(frames, elementwise, **options):
    pca = {"num_pc": 4, "elementwise": elementwise}
    return AtomsDataset(frames, SETUP, verbose=False, pca=pca, **options)


def settings(frames, folder, elementwise=False, **changes):
    pca = {"num_pc": 4, "elementwise": elementwise}
    return config(frames, folder, **{"dataset__pca": pca, "optim__epochs": 3, **changes})


def trained(*args, **changes):
    trainer = AtomsTrainer(settings(*args, **changes))
    trainer.train()
    return trainer


@KINDS
def test_components_are_those_of_the_covariance(frames, elementwise):
    dataset = dataset_of(frames, elementwise)
    values = dataset.descriptor.values(dataset.frames)
    plain = FeatureScaler.from_state({**dataset.feature_scaler.state(), "pca": None})
    scaled = plain.transform_rows(values, dataset.frames.numbers)
    for number in (29, 8) if elementwise else (None,):
        rows = slice(None) if number is None else dataset.frames.numbers == number
        centred = scaled[rows] - scaled[rows].mean(axis=0)
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        found = dataset.fingerprint[rows].numpy()
        np.testing.assert_allclose(np.abs(found), np.abs(centred @ axes[:4].T), atol=1e-10)
        np.testing.assert_allclose(np.linalg.norm(found, axis=0), singular[:4], atol=1e-10)


def test_chunks_and_their_order_do_not_matter(frames):
    rng = np.random.default_rng(0)
    rows = 5 + rng.normal(size=(40, 6)) * [9, 4, 2, 1, 0.5, 0]
    numbers = rng.choice([8, 29], 40)
    setting = {"num_pc": 6, "elementwise": True}
    whole = PCAReducer.from_chunks([(rows, numbers)], setting)
    parts = [(rows[k : k + 7], numbers[k : k + 7]) for k in range(0, 40, 7)][::-1]
    chunks = PCAReducer.from_chunks(parts, setting)
    for number in (8, 29):
        torch.testing.assert_close(whole.components[number][1], chunks.components[number][1])
        # A feature that never varied has no say, and gives no direction by chance.
        assert not whole.components[number][1][5].any()
        assert not whole.components[number][1][:, 5].any()
    again = PCAReducer.from_state(whole.state())
    np.testing.assert_array_equal(
        again.transform_rows(rows, numbers), whole.transform_rows(rows, numbers)
    )


@KINDS
@pytest.mark.parametrize("derivatives", ["stored", "recompute"])
def test_forces_are_the_derivative_of_the_energy(frames, tmp_path, elementwise, derivatives):
    trainer = trained(frames, tmp_path, elementwise, dataset__derivatives=derivatives)
    atoms = frames[1]
    forces = trainer.predict([atoms])["forces"][0]
    step, moved = 1e-4, []
    for axis in range(3):
        for sign in (1, -1):
            copy = atoms.copy()
            copy.positions[2, axis] += sign * step
            moved.append(copy)
    energies = np.array(trainer.predict(moved)["energy"]).reshape(3, 2)
    numeric = -(energies[:, 0] - energies[:, 1]) / (2 * step)
    assert np.abs(forces[2]).max() > 1e-3
    np.testing.assert_allclose(forces[2], numeric, atol=1e-7)
    # What training sees is what prediction gives.
    batch = trainer.train_dataset.batch([1])
    assert batch.fingerprint.shape[1] == 4
    np.testing.assert_allclose(trainer.potential.evaluate(batch)[1], forces, atol=1e-12)


@KINDS
def test_the_gradient_of_a_force_loss(frames, elementwise):
    """The derivative of a loss on forces with respect to the weights, against differences."""
    batch = dataset_of(frames, elementwise).batch([1, 2])
    torch.manual_seed(0)
    model = BPNN(elements=["Cu", "O"], input_dim=4, num_nodes=3, num_layers=2, dtype=torch.float64)

    def loss():
        energy, forces = model(batch)
        return energy.sum() + (forces**2).sum()

    loss().backward()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        value = parameter.data.view(-1)
        place = int(parameter.grad.abs().argmax())
        found, step = [], 1e-5
        for sign in (1, -1):
            value[place] += sign * step
            found.append(float(loss().detach()))
            value[place] -= sign * step
        numeric = (found[0] - found[1]) / (2 * step)
        analytic = float(parameter.grad.view(-1)[place])
        assert analytic == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@KINDS
def test_derivatives_of_single_predictions(frames, elementwise):
    """The rows of the Kalman filter are those that autograd finds."""
    batch = dataset_of(frames, elementwise).batch([1])
    torch.manual_seed(0)
    model = BPNN(elements=["Cu", "O"], input_dim=4, num_nodes=3, num_layers=2, dtype=torch.float64)
    v = np.random.default_rng(0).normal(size=(len(batch.forces), 3))
    rows = jacobian(model, batch, [Direction(np.arange(len(v)), v)])
    _, forces = model(batch)
    (forces * torch.from_numpy(v)).sum().backward()
    for parameter, of_parameter in rows.items():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(of_parameter[0, 1], expected, atol=1e-12, rtol=1e-9)


@pytest.mark.slow
@KINDS
def test_the_checkpoint_keeps_them(frames, tmp_path, elementwise):
    trainer = trained(frames, tmp_path, elementwise)
    expected = trainer.predict(frames, get_descriptor=True)
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    found = again.predict(frames, get_descriptor=True)
    assert found["energy"] == expected["energy"]
    assert found["descriptors"][0].shape == (4,)
    # A configuration that does not say so takes them from the checkpoint and trains on.
    plain = settings(frames, tmp_path, optim__epochs=2)
    del plain["dataset"]["pca"]
    going_on = AtomsTrainer(plain)
    going_on.load_pretrained(trainer.cp_dir)
    going_on.train()
    assert len(going_on.net.history) == 5
    other = AtomsTrainer(settings(frames, tmp_path, not elementwise))
    with pytest.raises(ValueError, match=r"dataset\.pca"):
        other.load_pretrained(trainer.cp_dir)


@pytest.mark.slow
def test_a_run_is_gone_on_with(frames, tmp_path):
    begun = trained(frames, tmp_path)
    going_on = AtomsTrainer(settings(frames, tmp_path, optim__epochs=5))
    going_on.train(resume=begun.cp_dir)
    whole = trained(frames, tmp_path / "other", optim__epochs=5)
    assert going_on.net.history[:, "train_loss"] == whole.net.history[:, "train_loss"]


@KINDS
@pytest.mark.parametrize("derivatives", ["stored", "recompute"])
def test_a_store_gives_the_same(frames, tmp_path, elementwise, derivatives):
    dataset = dataset_of(frames, elementwise)
    store = preprocess(
        frames,
        dataset.descriptor,
        tmp_path / "store",
        derivatives="stored",
        derivative_dtype="float64",
        verbose=False,
        frames_per_shard=3,
    )
    packed = StoreDataset(
        store, SETUP, derivatives=derivatives, pca={"num_pc": 4, "elementwise": elementwise}
    )
    assert packed.input_dim == dataset.input_dim == 4
    model = BPNN(elements=["Cu", "O"], input_dim=4, num_nodes=3, num_layers=2, dtype=torch.float64)
    results = [model(d.batch(np.array([0, 2, 5]))) for d in (packed, dataset)]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


@KINDS
def test_data_objects_are_what_the_model_sees(frames, elementwise):
    dataset = dataset_of(frames, elementwise)
    objects = AtomsToData(dataset.descriptor, True, True, save_fps=False).convert_all(
        frames[:3], disable_tqdm=True
    )
    dataset.feature_scaler.norm(objects, disable_tqdm=True)
    for data, own in zip(objects, dataset.data_list[:3], strict=True):
        torch.testing.assert_close(data.fingerprint, own.fingerprint)
        torch.testing.assert_close(data.fprimes.to_dense(), own.fprimes.to_dense())
        assert own.fprimes.shape == (4 * len(own.fingerprint), 3 * len(own.fingerprint))


def test_what_does_not_fit_is_refused(frames, tmp_path):
    with pytest.raises(ValueError, match=r"pca.num_pc must be between 1 and the \d+ features"):
        trained(frames, tmp_path, dataset__pca={"num_pc": 1000})
    with pytest.raises(ValueError, match=r"dataset\.pca\.num_pc must be an integer at least 1"):
        trained(frames, tmp_path, dataset__pca={"num_pc": 0})
    with pytest.raises(ValueError, match=r"dataset\.pca has no key 'n_pc'"):
        trained(frames, tmp_path, dataset__pca={"n_pc": 3})
    copper = [atoms for atoms in frames if set(atoms.symbols) == {"Cu"}]
    trainer = trained(copper, tmp_path, True, dataset__elements=["Cu", "O"])
    with pytest.raises(ValueError, match="not in elements"):
        trainer.predict(frames[1:2])
    scaling = {"type": "standardize", "elementwise": False}
    trainer = trained(
        copper, tmp_path, True, dataset__elements=["Cu", "O"], dataset__scaling=scaling
    )
    with pytest.raises(ValueError, match="not in elements"):
        trainer.predict([labelled(frames[1])])


def test_frames_to_reduced_rows_by_hand(frames):
    dataset = dataset_of(frames, True)
    part = Frames.from_atoms(frames[:1])
    rows = dataset.feature_scaler.transform_rows(dataset.descriptor.values(part), part.numbers)
    np.testing.assert_allclose(rows, dataset.fingerprint[: part.n_atoms], atol=1e-12)
