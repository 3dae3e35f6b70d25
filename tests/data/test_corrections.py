"""Reference energies of the elements, targets that are not scaled, and weights of frames."""

import json
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from ase.build import molecule

from amptorch import AmpTorch
from amptorch.checkpoints.folder import load_checkpoint
from amptorch.data.from_store import StoreDataset
from amptorch.dataset import AtomsDataset, construct_descriptor
from amptorch.model import CustomLoss
from amptorch.preprocessing import AtomicCorrectionScaler, AtomsToData, TargetScaler
from amptorch.trainer import AtomsTrainer
from amptorch.training.kalman import observations
from amptorch.uncertainty import Ensemble
from tests.small_frames import FP_PARAMS, config, labelled, mixed_frames

# eV; EMT's energies of atoms are far smaller.
SHIFTS = {"Cu": -1000.0, "O": 350.0}
SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(8)


@pytest.fixture(scope="module")
def shifted(frames):
    return [
        labelled(atoms, atoms.get_potential_energy() + shift(atoms), atoms.get_forces())
        for atoms in frames
    ]


def shift(atoms):
    return sum(SHIFTS[symbol] for symbol in atoms.symbols)


def trained(images, folder, **changes):
    trainer = AtomsTrainer(config(images, folder, **{"optim__epochs": 3, **changes}))
    trainer.train()
    return trainer


def column(trainer, name="train_loss"):
    return trainer.net.history[:, name]


# --- mean energies of whole frames ---


@pytest.fixture(scope="module")
def alike():
    """Eight frames of one composition."""
    return mixed_frames(32)[::4]


def test_frames_of_different_compositions_are_warned_of(frames, tmp_path):
    with pytest.warns(UserWarning, match=r"4 different compositions .*dataset\.atomic_correction"):
        trained(frames, tmp_path)


@pytest.mark.parametrize(
    "changes", [{"dataset__atomic_correction": True}, {"dataset__target_scaling": False}]
)
def test_what_has_no_mean_of_frames_needs_no_warning(frames, tmp_path, changes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(frames, tmp_path, **changes).predict([frames[0] * (2, 1, 1)])


def test_a_composition_that_was_not_trained_on_is_warned_of(alike, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = trained(alike, tmp_path)
        trainer.predict(alike)
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    ensemble = Ensemble([trainer, again])
    larger = alike[0] * (2, 1, 1)
    for predict in (again.predict, ensemble.predict):
        with pytest.warns(UserWarning, match=r"composition Cu8 \(they had Cu4\).*wrong"):
            predict([*alike, larger])
    larger.calc = AmpTorch(again, extrapolation="ignore")
    with pytest.warns(UserWarning, match=r"no training frame had the composition"):
        larger.get_potential_energy()
    # Once, not in every step of dynamics.
    larger.rattle(0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        larger.get_potential_energy()


def test_scalers_of_data_objects_know_the_compositions(frames):
    descriptor = construct_descriptor(SETUP)
    with pytest.warns(UserWarning, match="4 different compositions"):
        scaler = TargetScaler(AtomsToData(descriptor, True, True).convert_all(frames), True)
    found = {tuple(sorted(Counter(atoms.numbers.tolist()).items())) for atoms in frames}
    assert scaler.compositions == found
    assert TargetScaler.from_state(json.loads(json.dumps(scaler.state()))).compositions == found


# --- reference energies ---


@pytest.mark.slow
def test_training_does_not_see_a_shift_of_the_elements(frames, shifted, tmp_path):
    before = trained(frames, tmp_path / "a", dataset__atomic_correction=True)
    after = trained(shifted, tmp_path / "b", dataset__atomic_correction=True)
    np.testing.assert_allclose(column(after), column(before), rtol=1e-6)
    np.testing.assert_allclose(
        column(after, "train_energy_mae"), column(before, "train_energy_mae"), rtol=1e-6
    )
    first, second = before.predict(frames), after.predict(frames)
    difference = np.subtract(second["energy"], first["energy"])
    np.testing.assert_allclose(difference, [shift(atoms) for atoms in frames], atol=1e-6)
    np.testing.assert_allclose(second["forces"][0], first["forces"][0], atol=1e-6)
    # Without it the shift is most of what is to be learnt.
    assert float(trained(shifted, tmp_path / "c").target_scaler.target_std) > 100
    assert float(after.target_scaler.target_std) < 10


def test_given_reference_energies(frames, shifted, tmp_path):
    trainer = trained(shifted, tmp_path, dataset__atomic_correction=SHIFTS)
    assert trainer.target_scaler.atomic.reference_energies == {29: -1000.0, 8: 350.0}
    plain = trained(frames, tmp_path)
    np.testing.assert_allclose(column(trainer), column(plain), rtol=1e-6)
    assert trainer.settings.dataset.atomic_correction == SHIFTS


def test_the_checkpoint_keeps_them(shifted, tmp_path):
    trainer = trained(shifted, tmp_path, dataset__atomic_correction=True)
    expected = trainer.predict(shifted)["energy"]
    state = load_checkpoint(trainer.cp_dir).target_scaler.state()
    assert state == trainer.target_scaler.state()
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    assert again.predict(shifted)["energy"] == expected
    atoms = shifted[2].copy()
    atoms.calc = AmpTorch(again, extrapolation="ignore")
    assert atoms.get_potential_energy() == pytest.approx(expected[2], abs=1e-9)
    energies, _ = again.potential.gradient(again.potential.batch(_frames(shifted)))
    np.testing.assert_allclose(energies, expected, atol=1e-9)


def _frames(images):
    from amptorch.frames import Frames

    return Frames.from_atoms(images)


def test_least_norm_where_compositions_do_not_tell():
    water = [labelled(molecule("H2O"), -14.0, np.zeros((3, 3)))] * 3
    setup = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["H", "O"])
    dataset = AtomsDataset(water, setup, verbose=False, atomic_correction=True)
    # The shortest solution of 2 e_H + e_O = −14 is a multiple of (2, 1).
    energies = dataset.target_scaler.atomic.reference_energies
    assert energies == pytest.approx({1: -5.6, 8: -2.8})
    np.testing.assert_allclose(dataset.energy, 0, atol=1e-12)


def test_an_element_without_reference_energy_is_named(frames, tmp_path):
    with pytest.raises(ValueError, match="no reference energy for element O"):
        trained(frames, tmp_path, dataset__atomic_correction={"Cu": -3.0})
    with pytest.raises(ValueError, match="'Xx' is not a chemical symbol"):
        trained(frames, tmp_path, dataset__atomic_correction={"Xx": -3.0})
    with pytest.raises(TypeError, match="atomic_correction must be True, False, or energies"):
        trained(frames, tmp_path, dataset__atomic_correction="fit")


def test_data_objects_are_scaled_alike(shifted):
    from amptorch.preprocessing import AtomsToData

    dataset = AtomsDataset(shifted, SETUP, verbose=False, atomic_correction=True)
    objects = AtomsToData(dataset.descriptor, True, True, save_fps=False).convert_all(
        shifted, disable_tqdm=True
    )
    scaler = TargetScaler.from_state(dataset.target_scaler.state())
    energies = [float(data.energy) for data in scaler.norm(objects, disable_tqdm=True)]
    np.testing.assert_allclose(energies, dataset.energy, atol=1e-12)
    assert AtomicCorrectionScaler(objects).reference_energies.keys() == {8, 29}


# --- targets that are not scaled ---


def test_targets_are_left_alone_where_asked(frames, tmp_path):
    trainer = trained(frames, tmp_path, dataset__target_scaling=False)
    energies = [atoms.get_potential_energy() for atoms in frames]
    np.testing.assert_allclose(trainer.train_dataset.energy, energies)
    np.testing.assert_allclose(
        trainer.train_dataset.forces, np.concatenate([atoms.get_forces() for atoms in frames])
    )
    assert float(trainer.target_scaler.target_std) == 1
    expected = trainer.predict(frames)["energy"]
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    assert again.predict(frames)["energy"] == expected


# --- weights ---


def test_the_loss_is_the_mean_of_weighted_errors(frames):
    weights = np.arange(1.0, 9.0)
    dataset = AtomsDataset(frames, SETUP, verbose=False, weights=weights)
    batch = dataset.batch([5, 2])
    counts = [len(frames[5]), len(frames[2])]
    rng = np.random.default_rng(0)
    energy, forces = (rng.normal(size=tensor.shape) for tensor in (batch.energy, batch.forces))
    for loss, power in (("mse", 2), ("mae", 1)):
        found = CustomLoss(0.3, loss)((torch.tensor(energy), torch.tensor(forces)), batch.targets)
        of_energy = np.mean([6.0, 3.0] * np.abs(energy - batch.energy.numpy()) ** power)
        of_atoms = np.repeat([6.0, 3.0], counts)[:, None]
        of_forces = np.mean(of_atoms * np.abs(forces - batch.forces.numpy()) ** power)
        assert float(found) == pytest.approx(0.5 * (of_energy + 0.3 * of_forces))


@pytest.mark.slow
def test_weights_of_one_change_nothing_and_others_do(frames, tmp_path):
    plain = trained(frames, tmp_path)
    ones = trained(frames, tmp_path, dataset__weights=np.ones(8))
    np.testing.assert_allclose(column(ones), column(plain), rtol=1e-12)
    heavy = trained(frames, tmp_path, dataset__weights=[1, 1, 1, 1, 1, 1, 1, 50])
    assert column(heavy)[0] != pytest.approx(column(plain)[0], rel=0.1)
    # Scores are not weighted: those of the first batch, before any step, are the same.
    first = [t.net.get_params()["batch_size"] for t in (plain, heavy)]
    assert first == [4, 4]
    assert "weights" not in load_checkpoint(heavy.cp_dir).config["dataset"]


def test_scores_are_of_all_frames_alike(frames, tmp_path):
    """With no step taken, errors in eV are the same whatever the weights are; the loss is not."""
    found = [
        trained(frames, tmp_path, optim__lr=1e-12, optim__epochs=1, **weights)
        for weights in ({}, {"dataset__weights": np.linspace(1, 9, 8)})
    ]
    for name in ("train_energy_mae", "train_forces_mae"):
        np.testing.assert_allclose(column(found[1], name), column(found[0], name), rtol=1e-9)
    assert column(found[1])[0] > 2 * column(found[0])[0]


def test_weights_out_of_the_frames(frames, tmp_path):
    weights = np.linspace(1, 2, 8)
    marked = []
    for atoms, weight in zip(frames, weights, strict=True):
        marked.append(labelled(atoms, atoms.get_potential_energy(), atoms.get_forces()))
        marked[-1].info["weight"] = weight
    named = trained(marked, tmp_path, dataset__weights="weight")
    listed = trained(frames, tmp_path, dataset__weights=weights)
    np.testing.assert_array_equal(column(named), column(listed))
    del marked[3].info["weight"]
    with pytest.raises(ValueError, match=r"frame 3 has no info\['weight'\]"):
        trained(marked, tmp_path, dataset__weights="weight")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 7, "7 weights for 8 frames"),
        ([1.0] * 7 + [0.0], r"weights\[7\] is 0.0; weights must be positive"),
        ([1.0] * 7 + [np.nan], r"weights\[7\] is nan"),
    ],
)
def test_weights_are_checked(frames, tmp_path, weights, message):
    with pytest.raises(ValueError, match=message):
        trained(frames, tmp_path, dataset__weights=weights)


def test_weights_divide_the_variances_of_the_kalman_filter(frames):
    batches = [
        AtomsDataset(frames, SETUP, verbose=False, weights=weights).batch([0, 2])
        for weights in (None, [4.0, 1, 2, 1, 1, 1, 1, 1])
    ]
    prediction = torch.zeros(2), torch.zeros_like(batches[0].forces)
    plain, weighted = (observations(b, prediction, b.targets, 10.0, 1)[2] for b in batches)
    np.testing.assert_allclose(plain / weighted, [4, 4, 2, 2])


@pytest.mark.slow
def test_a_run_goes_on_with_its_weights_alone(frames, tmp_path):
    weights = np.linspace(1, 2, 8)
    trainer = trained(frames, tmp_path, dataset__weights=weights)
    settings = config(frames, tmp_path, optim__epochs=5, dataset__weights=weights)
    again = AtomsTrainer(settings)
    again.train(resume=trainer.cp_dir)
    assert len(again.net.history) == 5
    settings["dataset"]["weights"] = weights[::-1]
    with pytest.raises(ValueError, match="weights"):
        AtomsTrainer(settings).train(resume=trainer.cp_dir)


# --- in a store ---


@pytest.mark.slow
def test_a_store_gives_the_same(shifted, tmp_path):
    changes = {
        "dataset__atomic_correction": True,
        "dataset__weights": np.linspace(1, 3, 8),
        "dataset__store": str(tmp_path / "store"),
        "optim__force_fraction": 0.5,
    }
    packed = trained(shifted, tmp_path, **changes)
    changes["dataset__store"] = None
    held = trained(shifted, tmp_path, **changes)
    assert isinstance(packed.train_dataset, StoreDataset)
    assert packed.target_scaler.state() == held.target_scaler.state()
    ids = np.array([1, 4, 6])
    first, second = (t.train_dataset.batch(ids) for t in (packed, held))
    for one, other in zip(first.targets, second.targets, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    share = packed.train_dataset.share(ids, 0, 5, lambda n: np.array([0, 2]))
    np.testing.assert_allclose(share.targets[3], second.force_weights[[0, 2]])
    changes |= {"dataset__store": str(tmp_path / "store"), "dataset__weights": "weight"}
    with pytest.raises(ValueError, match="a store does not hold"):
        trained(None, tmp_path, **changes)
