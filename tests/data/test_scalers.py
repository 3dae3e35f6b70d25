"""Scaling of features and targets, against v1.0's scalers and against plain formulas."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from amptorch.checkpoints.folder import load_checkpoint
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.preprocessing import AtomicCorrectionScaler, Data, FeatureScaler, TargetScaler
from amptorch.preprocessing.utils import FeatureScaler as FeatureScalerByOldPath

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoints"
SCALINGS = [
    {"type": "normalize", "range": (-1, 3)},
    {"type": "standardize"},
    {"type": "normalize", "elementwise": False},
    {"type": "standardize", "elementwise": False},
]


def rows(n=40, seed=0):
    """Fingerprints of oxygen and copper; feature 3 is constant, feature 4 is padding."""
    rng = np.random.default_rng(seed)
    fingerprints = rng.normal(size=(n, 5)) * [1, 10, 0.1, 0, 0] + [0, 3, -1, 7, 0]
    numbers = np.where(np.arange(n) % 3 == 0, 29, 8)
    fingerprints[:, 1] += numbers
    return fingerprints, numbers


@pytest.mark.parametrize(
    "name",
    [
        "bpnn_forces_cosine_normalize",
        "bpnn_energy_standardize_batchnorm",
        "singlenn_forces_not_elementwise",
    ],
)
def test_fitting_gives_the_scalers_of_v1(name):
    images = read(GOLDEN / "images.traj", ":")
    checkpoint = load_checkpoint(GOLDEN / name)
    dataset = checkpoint.config["dataset"]
    frames = Frames.from_atoms(images, energies=True)
    values = Gaussian(dataset["fp_params"], checkpoint.elements).values(frames)
    fitted = FeatureScaler.from_arrays(values, frames.numbers, dataset["scaling"])
    for ours, theirs in zip(
        fitted.slope_and_offset(), checkpoint.feature_scaler.slope_and_offset(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    target = TargetScaler.from_arrays(frames.energies)
    assert float(target.target_mean) == pytest.approx(float(checkpoint.target_scaler.target_mean))
    assert float(target.target_std) == pytest.approx(float(checkpoint.target_scaler.target_std))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaled_features_are_what_the_scaling_promises(scaling):
    fingerprints, numbers = rows()
    scaled = FeatureScaler.from_arrays(fingerprints, numbers, scaling).transform_rows(
        fingerprints, numbers
    )
    assert np.isfinite(scaled).all()
    elementwise = scaling.get("elementwise", True)
    for group in [numbers == 29, numbers == 8] if elementwise else [numbers > 0]:
        varied = scaled[group][:, :3]
        if scaling["type"] == "normalize":
            low, high = scaling.get("range", (0, 1))
            np.testing.assert_allclose(varied.min(axis=0), low, atol=1e-12)
            np.testing.assert_allclose(varied.max(axis=0), high, atol=1e-12)
        else:
            np.testing.assert_allclose(varied.mean(axis=0), 0, atol=1e-12)
            np.testing.assert_allclose(varied.std(axis=0), 1, atol=1e-12)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_slope_is_the_derivative(scaling):
    fingerprints, numbers = rows()
    scaler = FeatureScaler.from_arrays(fingerprints, numbers, scaling)
    step = scaler.transform_rows(fingerprints + 1e-3, numbers)
    numeric = (step - scaler.transform_rows(fingerprints - 1e-3, numbers)) / 2e-3
    np.testing.assert_allclose(scaler.slope_rows(numbers), numeric, rtol=1e-8)
    slope, intercept = scaler.slope_and_offset()
    index = scaler.element_index(numbers)
    np.testing.assert_allclose(
        fingerprints * slope[index].numpy() + intercept[index].numpy(),
        scaler.transform_rows(fingerprints, numbers),
        atol=1e-12,
    )


@pytest.mark.parametrize("scaling", SCALINGS)
def test_state_is_json_and_exact(scaling):
    fingerprints, numbers = rows()
    scaler = FeatureScaler.from_arrays(fingerprints, numbers, scaling)
    again = FeatureScaler.from_state(json.loads(json.dumps(scaler.state())))
    assert again.state() == scaler.state()
    np.testing.assert_array_equal(
        again.transform_rows(fingerprints, numbers), scaler.transform_rows(fingerprints, numbers)
    )


def data_objects(n_frames=6, seed=0):
    rng = np.random.default_rng(seed)
    objects = []
    for n_atoms in rng.integers(2, 5, size=n_frames):
        fingerprint = torch.from_numpy(rng.normal(size=(n_atoms, 3)))
        objects.append(
            Data(
                fingerprint=fingerprint,
                atomic_numbers=torch.tensor([8, 29, 8, 29][:n_atoms]),
                num_nodes=int(n_atoms),
                energy=torch.tensor(rng.normal() * 3 + 10, dtype=torch.float64),
                forces=torch.from_numpy(rng.normal(size=(n_atoms, 3))),
                fprimes=torch.from_numpy(rng.normal(size=(n_atoms * 3, n_atoms * 3))).to_sparse(),
            )
        )
    return objects


@pytest.mark.parametrize("scaling", SCALINGS)
def test_norm_of_data_objects_is_the_array_way(scaling):
    objects, untouched = data_objects(), data_objects()
    scaler = FeatureScalerByOldPath(objects, True, scaling)
    assert scaler.norm(objects, disable_tqdm=True) is objects
    for data, raw in zip(objects, untouched, strict=True):
        expected = scaler.transform_rows(raw.fingerprint, raw.atomic_numbers)
        torch.testing.assert_close(data.fingerprint, expected)
        slope = scaler.slope_rows(raw.atomic_numbers).reshape(-1, 1)
        torch.testing.assert_close(data.fprimes.to_dense(), raw.fprimes.to_dense() * slope)


def test_an_element_that_was_not_there_is_named():
    fingerprints, numbers = rows()
    scaler = FeatureScaler.from_arrays(fingerprints, numbers)
    with pytest.raises(ValueError, match=r"element C was not in the training frames .*O, Cu"):
        scaler.transform_rows(fingerprints[:1], np.array([6]))
    assert torch.isnan(scaler.slope_rows(np.array([6]))).all()


def test_single_precision_stays_single():
    fingerprints, numbers = rows()
    scaler = FeatureScaler.from_arrays(fingerprints, numbers)
    single = scaler.transform_rows(torch.tensor(fingerprints, dtype=torch.float32), numbers)
    assert single.dtype is torch.float32
    np.testing.assert_allclose(
        single.numpy(), scaler.transform_rows(fingerprints, numbers), atol=1e-5
    )


def test_unknown_scaling_keys_are_named():
    fingerprints, numbers = rows()
    with pytest.raises(ValueError, match="'rnage', did you mean 'range'"):
        FeatureScaler.from_arrays(fingerprints, numbers, {"rnage": (0, 1)})


def test_targets_there_and_back():
    objects = data_objects()
    energies = torch.stack([data.energy for data in objects])
    forces = objects[0].forces.clone()
    scaler = TargetScaler(objects, True)
    assert float(scaler.target_std) == pytest.approx(np.std(energies.numpy(), ddof=1))
    scaler.norm(objects, disable_tqdm=True)
    scaled = torch.stack([data.energy for data in objects])
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-12)
    assert float(scaled.std()) == pytest.approx(1)
    torch.testing.assert_close(scaler.denorm(scaled, pred="energy"), energies)
    torch.testing.assert_close(objects[0].forces, forces / float(scaler.target_std))
    torch.testing.assert_close(scaler.denorm(objects[0].forces, pred="forces"), forces)
    again = TargetScaler.from_state(json.loads(json.dumps(scaler.state())))
    assert again.state() == scaler.state()
    with pytest.raises(ValueError, match="'energy' or 'forces', got 'stress'"):
        scaler.denorm(scaled, pred="stress")


@pytest.mark.parametrize("energies", [[-7.25], [0.1 + 0.2] * 7])
def test_targets_without_a_spread_are_left_alone(energies):
    scaler = TargetScaler.from_arrays(np.array(energies))
    assert (float(scaler.target_mean), float(scaler.target_std)) == (0, 1)


def test_atomic_corrections_find_the_energies_of_the_elements():
    objects = data_objects(n_frames=8)
    for data in objects:
        oxygen = float((data.atomic_numbers == 8).sum())
        data.energy = torch.tensor(-2.0 * oxygen - 3.5 * (data.num_nodes - oxygen))
    energies = [float(data.energy) for data in objects]
    scaler = AtomicCorrectionScaler(objects)
    assert scaler.reference_energies == pytest.approx({8: -2.0, 29: -3.5})
    scaler.norm(objects, disable_tqdm=True)
    corrected = [float(data.energy) for data in objects]
    np.testing.assert_allclose(corrected, 0, atol=1e-10)
    np.testing.assert_allclose(scaler.denorm(corrected, objects), energies)
    with pytest.raises(ValueError, match="element C"):
        scaler.correction([6])
