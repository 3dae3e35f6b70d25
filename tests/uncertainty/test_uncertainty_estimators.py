"""The estimators on trained potentials of both kinds: energies and forces, the calculator."""

from copy import deepcopy
from math import ceil

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from numpy.testing import assert_allclose

from amptorch import AtomsTrainer
from amptorch.data.from_store import StoreDataset
from amptorch.uncertainty import (
    ConformalPredictionFeatureSpace,
    ConformalPredictionLatentSpace,
    Ensemble,
    EnsembleSDEstimator,
    NegativeLeastLikelihoodFeatureSpace,
    NegativeLeastLikelihoodLatentSpace,
    train_ensemble,
)
from amptorch.uncertainty import bootstrap as members
from amptorch.uncertainty.points import FeatureSpace, training_points
from amptorch.uncertainty.utils import (
    ConformalPrediction,
    calc_dist,
    prepare_featureNerror_from_trainer,
    prepare_latentNerror_from_trainer,
)
from amptorch.v1.lmdb_file import write_lmdb
from tests.small_frames import config, labelled, mixed_frames
from tests.small_store import make

LATENT = [ConformalPredictionLatentSpace, NegativeLeastLikelihoodLatentSpace]
FEATURE = [ConformalPredictionFeatureSpace, NegativeLeastLikelihoodFeatureSpace]
CONFIDENCE = 0.8


def trained(frames, run_dir, **changes):
    trainer = AtomsTrainer(config(frames, run_dir, optim__epochs=3, **changes))
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def training():
    return mixed_frames(16)


@pytest.fixture(scope="module")
def calibration():
    return mixed_frames(24, seed=1)


@pytest.fixture(scope="module")
def images():
    return mixed_frames(6, seed=2)


@pytest.fixture(scope="module", params=["bpnn", "singlenn"])
def trainer(request, training, tmp_path_factory):
    return trained(training, tmp_path_factory.mktemp("run"), model__name=request.param)


@pytest.fixture(scope="module")
def energies_alone(training, tmp_path_factory):
    return trained(training, tmp_path_factory.mktemp("run"), model__get_forces=False)


def estimators(trainer):
    other = Ensemble([trainer, trainer.cp_dir])
    # The same potential twice would have no spread.
    for parameter in other.members[1].model.parameters():
        parameter.data *= 1.1
    return [*(kind(trainer) for kind in LATENT + FEATURE), EnsembleSDEstimator(other)]


def numbers_of(images):
    return np.concatenate([atoms.numbers for atoms in images])


class TestPredict:
    @pytest.mark.slow
    def test_calibrated_on_what_it_saw(self, trainer, calibration):
        """⌈(n + 1) c⌉ of the n errors that it was calibrated on are within, for frames and for the
        atoms of each element."""
        for estimator in estimators(trainer):
            found = estimator.fit(calibration).predict(calibration, CONFIDENCE)
            reference = np.array([atoms.get_potential_energy() for atoms in calibration])
            widths = np.array(found["energy_uncertainty"]) * (1 + 1e-12)
            inside = np.abs(found["energy"] - reference) <= widths
            assert inside.sum() == ceil(25 * CONFIDENCE)
            forces = np.concatenate([atoms.get_forces() for atoms in calibration])
            lengths = np.linalg.norm(np.concatenate(found["forces"]) - forces, axis=1)
            inside = lengths <= np.concatenate(found["forces_uncertainty"]) * (1 + 1e-12)
            numbers = numbers_of(calibration)
            for number in (8, 29):
                n = (numbers == number).sum()
                # The two atoms of a molecule have one error, and are within together.
                assert inside[numbers == number].sum() - ceil((n + 1) * CONFIDENCE) in (0, 1)

    @pytest.mark.slow
    def test_predictions_are_those_of_the_model(self, trainer, calibration, images):
        for estimator in estimators(trainer):
            found = estimator.fit(calibration).predict(images, CONFIDENCE)
            expected = estimator.model.predict(images)
            assert_allclose(found["energy"], expected["energy"], rtol=1e-12)
            for one, two in zip(found["forces"], expected["forces"], strict=True):
                assert_allclose(one, two, atol=1e-12)
            counts = np.array([len(atoms) for atoms in images])
            assert [len(values) for values in found["forces_uncertainty"]] == counts.tolist()
            per_atom = np.array(found["energy_uncertainty_per_atom"])
            assert_allclose(found["energy_uncertainty"], per_atom * counts)
            assert (per_atom > 0).all()
            wider = estimator.predict(images, 0.9)
            assert (np.array(wider["energy_uncertainty_per_atom"]) >= per_atom).all()
            assert (
                estimator.predict(images, CONFIDENCE)["energy_uncertainty"]
                == (found["energy_uncertainty"])
            )

    @pytest.mark.slow
    @pytest.mark.parametrize("space", ["latent", "feature"])
    def test_by_hand(self, trainer, training, calibration, images, space):
        """The helpers, one after the other, give what the estimators do."""
        prepare, kind = {
            "latent": (prepare_latentNerror_from_trainer, ConformalPredictionLatentSpace),
            "feature": (prepare_featureNerror_from_trainer, ConformalPredictionFeatureSpace),
        }[space]
        estimator = kind(trainer, num_nearest_neighbors=3).fit(calibration)
        found = estimator.predict(images, CONFIDENCE)
        train, _ = prepare(trainer, training)
        points, errors = prepare(trainer, calibration)
        by_hand = ConformalPrediction(0.1).fit(errors, calc_dist(train, points, 3))
        distances = calc_dist(train, prepare(trainer, images)[0], 3)
        assert_allclose(
            found["energy_uncertainty_per_atom"], by_hand.predict(distances, CONFIDENCE), rtol=1e-9
        )

        train, _ = prepare(trainer, training, quantity="forces")
        points, errors = prepare(trainer, calibration, quantity="forces")
        new, _ = prepare(trainer, images, quantity="forces")
        for number in (8, 29):
            of_train, of_calib, of_new = (
                rows == number for rows in map(numbers_of, (training, calibration, images))
            )
            distances = calc_dist(train[of_train], points[of_calib], 3)
            by_hand = ConformalPrediction(0.1).fit(errors[of_calib], distances)
            widths = by_hand.predict(calc_dist(train[of_train], new[of_new], 3), CONFIDENCE)
            of_all = np.concatenate(found["forces_uncertainty"])
            assert_allclose(of_all[of_new], widths, rtol=1e-9)

    def test_a_strange_frame_is_uncertain(self, trainer, calibration, images):
        strange = images[0].copy()
        strange.positions[0] += [1.0, 0.0, 0.0]
        for kind in (ConformalPredictionLatentSpace, ConformalPredictionFeatureSpace):
            found = kind(trainer).fit(calibration).predict([images[0], strange])
            assert found["energy_uncertainty"][1] > 1.1 * found["energy_uncertainty"][0]
            assert found["forces_uncertainty"][1][0] > 1.3 * found["forces_uncertainty"][0][0]

    @pytest.mark.slow
    def test_normal_quantile(self, trainer, calibration, images):
        for kind in (NegativeLeastLikelihoodLatentSpace, NegativeLeastLikelihoodFeatureSpace):
            widths = [
                kind(trainer, quantile=quantile).fit(calibration).predict(images)
                for quantile in ("normal", "calibrated")
            ]
            assert widths[0]["energy_uncertainty"] != widths[1]["energy_uncertainty"]

    def test_energies_alone(self, energies_alone, calibration, images):
        for estimator in estimators(energies_alone):
            found = estimator.fit(calibration).predict(images, CONFIDENCE)
            assert [rows.shape for rows in found["forces"]] == [(0, 3)] * len(images)
            assert [rows.shape for rows in found["forces_uncertainty"]] == [(0,)] * len(images)
            assert np.isfinite(found["energy_uncertainty"]).all()
            assert set(estimator.metrics(calibration, [0.5, 0.9])) == {"energy"}
            atoms = images[0].copy()
            atoms.calc = estimator.get_calc(CONFIDENCE)
            atoms.get_potential_energy()
            assert atoms.calc.results["energy_uncertainty"] == pytest.approx(
                found["energy_uncertainty"][0]
            )
            assert "forces_uncertainty" not in atoms.calc.results

    def test_element_that_was_not_calibrated(self, trainer, images):
        """Copper in molecules alone: whatever the error of copper's forces, it cannot be told."""
        oxygen = [
            labelled(Atoms("O2", [[0, 0, 0], [0, 0, 1.1 + 0.02 * k]]), -3.0 + k, np.ones((2, 3)))
            for k in range(12)
        ]
        estimator = ConformalPredictionFeatureSpace(trainer).fit(oxygen)
        found = estimator.predict(images[2:4], CONFIDENCE)
        for atoms, widths in zip(images[2:4], found["forces_uncertainty"], strict=True):
            assert (np.isinf(widths) == (atoms.numbers == 29)).all()

    def test_element_of_lone_atoms(self, trainer, calibration, images):
        """Without force and so without error; what copper's is elsewhere cannot be told."""
        oxygen = [atoms for atoms in calibration if 29 not in atoms.numbers]
        lone = [labelled(Atoms("Cu"), 0.1 * k, np.zeros((1, 3))) for k in range(4)]
        for estimator in estimators(trainer):
            widths = estimator.fit(oxygen + lone).predict(images[2:4], 0.5)["forces_uncertainty"]
            for atoms, of_atoms in zip(images[2:4], widths, strict=True):
                assert (np.isinf(of_atoms) == (atoms.numbers == 29)).all()

    def test_metrics(self, trainer, calibration):
        estimator = ConformalPredictionLatentSpace(trainer).fit(calibration)
        found = estimator.metrics(calibration, levels=[0.4, 0.8])
        # The frame at the end of an interval may be on either side of it, by rounding.
        coverage = found["energy"]["coverage"].tolist()
        assert coverage == pytest.approx([10 / 24, 20 / 24], abs=1.01 / 24)
        # Of either element one more than the share; atoms that symmetry makes alike come together.
        coverage = found["forces"]["coverage"]
        assert (coverage >= [0.4, 0.8]).all()
        assert coverage == pytest.approx([0.4, 0.8], abs=0.08)


class TestCalculator:
    @pytest.mark.slow
    def test_same_as_predict(self, trainer, calibration, images):
        for estimator in estimators(trainer):
            found = estimator.fit(calibration).predict(images, CONFIDENCE)
            for which in (0, 3):
                atoms = images[which].copy()
                atoms.calc = estimator.get_calc(CONFIDENCE)
                assert atoms.get_potential_energy() == pytest.approx(found["energy"][which])
                assert_allclose(atoms.get_forces(), found["forces"][which], atol=1e-12)
                results = atoms.calc.results
                expected = found["energy_uncertainty"][which]
                assert results["energy_uncertainty"] == pytest.approx(expected, rel=1e-9)
                widths = atoms.calc.get_property("forces_uncertainty", atoms)
                assert_allclose(widths, found["forces_uncertainty"][which], rtol=1e-9)

    def test_not_calibrated(self, trainer, calibration):
        estimator = ConformalPredictionLatentSpace(trainer)
        with pytest.raises(ValueError, match="call fit"):
            estimator.get_calc()
        with pytest.raises(ValueError, match="call fit"):
            estimator.predict(calibration)
        with pytest.raises(ValueError, match="between 0 and 1"):
            estimator.fit(calibration).get_calc(95)


class TestFiles:
    def test_saved_and_loaded(self, trainer, calibration, images, tmp_path):
        for number, estimator in enumerate(estimators(trainer)):
            path = tmp_path / f"{number}.npz"
            estimator.fit(calibration).save(path)
            loaded = type(estimator).load(path, estimator.model)
            one, two = (some.predict(images, CONFIDENCE) for some in (estimator, loaded))
            assert one["energy_uncertainty"] == two["energy_uncertainty"]
            for widths in zip(one["forces_uncertainty"], two["forces_uncertainty"], strict=True):
                np.testing.assert_array_equal(*widths)
            assert vars(loaded).keys() == vars(estimator).keys()

    def test_for_a_potential_from_its_folder(self, trainer, calibration, images, tmp_path):
        estimator = NegativeLeastLikelihoodLatentSpace(
            trainer, get_latent=0, num_nearest_neighbors=3, quantile="normal"
        )
        estimator.fit(calibration).save(tmp_path / "estimator.npz")
        again = AtomsTrainer()
        again.load_pretrained(trainer.cp_dir)
        loaded = NegativeLeastLikelihoodLatentSpace.load(tmp_path / "estimator.npz", again)
        assert (loaded.num_nearest_neighbors, loaded.space.layer, loaded.quantile) == (
            3,
            0,
            "normal",
        )
        calculator = loaded.get_calc(CONFIDENCE)
        expected = estimator.predict(images, CONFIDENCE)["energy_uncertainty"]
        found = [calculator.get_property("energy_uncertainty", atoms) for atoms in images]
        assert_allclose(found, expected, rtol=1e-9)

    def test_energies_alone(self, energies_alone, calibration, images, tmp_path):
        estimator = ConformalPredictionFeatureSpace(energies_alone).fit(calibration)
        estimator.save(str(tmp_path / "estimator"))
        loaded = ConformalPredictionFeatureSpace.load(tmp_path / "estimator", energies_alone)
        assert loaded.forces_calibrators_ == {}
        one, two = (some.predict(images) for some in (loaded, estimator))
        assert one["energy_uncertainty"] == two["energy_uncertainty"]

    def test_refused(self, trainer, energies_alone, calibration, tmp_path):
        estimator, path = ConformalPredictionFeatureSpace(trainer), tmp_path / "estimator.npz"
        with pytest.raises(ValueError, match="not calibrated"):
            estimator.save(path)
        with pytest.raises(FileNotFoundError):
            ConformalPredictionFeatureSpace.load(path, trainer)
        estimator.fit(calibration).save(path)
        with pytest.raises(ValueError, match=r"ConformalPredictionFeatureSpace\.load"):
            ConformalPredictionLatentSpace.load(path, trainer)
        with pytest.raises(ValueError, match="other parameters"):
            ConformalPredictionFeatureSpace.load(path, energies_alone)
        whole = path.read_bytes()
        for content in (b"", b"something else", whole[: len(whole) // 2]):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="damaged, or no estimator"):
                ConformalPredictionFeatureSpace.load(path, trainer)
        state = estimator.state()
        np.savez(path, **{name: state[name] for name in ("kind", "model")})
        with pytest.raises(ValueError, match="does not hold all"):
            ConformalPredictionFeatureSpace.load(path, trainer)
        np.savez(path, kind=np.array([{}], dtype=object), model=0)
        with pytest.raises(ValueError, match="damaged, or no estimator"):
            ConformalPredictionFeatureSpace.load(path, trainer)


class TestTrainingFrames:
    @pytest.mark.slow
    def test_of_a_checkpoint(self, trainer, training, calibration, images):
        loaded = AtomsTrainer()
        loaded.load_pretrained(trainer.cp_dir)
        with pytest.raises(ValueError, match="give them as train_images"):
            ConformalPredictionLatentSpace(loaded)
        for kind in (ConformalPredictionLatentSpace, ConformalPredictionFeatureSpace):
            one = kind(loaded, train_images=training).fit(calibration).predict(images)
            two = kind(trainer).fit(calibration).predict(images)
            assert_allclose(one["energy_uncertainty"], two["energy_uncertainty"], rtol=1e-9)
            for widths in zip(one["forces_uncertainty"], two["forces_uncertainty"], strict=True):
                assert_allclose(*widths, rtol=1e-9)

    def test_of_a_file(self, trainer, training, calibration, tmp_path):
        write(tmp_path / "train.traj", training)
        path = str(tmp_path / "train.traj")
        for one, two in (
            (
                training_points(trainer, FeatureSpace(), path),
                training_points(trainer, FeatureSpace()),
            ),
        ):
            assert_allclose(one[0], two[0], atol=1e-12)

    def test_at_most_so_many(self, trainer, training):
        frames, atoms = training_points(trainer, FeatureSpace(), most=5)
        assert len(frames) == 5
        assert {number: len(rows) for number, rows in atoms.items()} == {8: 5, 29: 5}
        every, all_atoms = training_points(trainer, FeatureSpace())
        assert len(every) == len(training)
        assert sum(map(len, all_atoms.values())) == len(numbers_of(training))
        for part, whole in ((frames, every), (atoms[8], all_atoms[8]), (atoms[29], all_atoms[29])):
            assert calc_dist(whole, part, 1).max() == 0
        drawn = [training_points(trainer, FeatureSpace(), most=5, seed=s)[1][29] for s in (0, 0, 1)]
        assert_allclose(drawn[0], drawn[1])
        assert not np.allclose(drawn[0], drawn[2])

    def test_of_a_store(self, trainer, training, tmp_path, monkeypatch):
        make(training, tmp_path / "store", trainer.descriptor)
        scalers = {
            "feature_scaler": trainer.feature_scaler,
            "target_scaler": trainer.target_scaler,
        }
        expected = training_points(trainer, FeatureSpace())
        stored = StoreDataset(tmp_path / "store", trainer.descriptor_setup(), **scalers)
        monkeypatch.setattr(trainer, "train_dataset", stored)
        found = training_points(trainer, FeatureSpace())
        assert_allclose(found[0], expected[0], atol=1e-10)
        assert_allclose(found[1][29], expected[1][29], atol=1e-10)

    @pytest.mark.slow
    def test_of_lmdb_files(self, training, tmp_path):
        path = str(tmp_path / "train.lmdb")
        settings = config(training, tmp_path, optim__epochs=1)
        in_memory = AtomsTrainer(settings)
        in_memory.train()
        write_lmdb(training, path, settings, verbose=False)
        trainer = trained(None, tmp_path, dataset__lmdb_path=[path])
        found, expected = (training_points(t, FeatureSpace()) for t in (trainer, in_memory))
        assert_allclose(found[0], expected[0], atol=1e-10)
        assert_allclose(found[1][8], expected[1][8], atol=1e-10)

    def test_frame_without_labels_is_named(self, trainer, calibration):
        bare = [*calibration[:3], calibration[3].copy()]
        with pytest.raises(ValueError, match="frame 3 has no energy"):
            ConformalPredictionLatentSpace(trainer).fit(bare)
        with pytest.raises(ValueError, match="frame 0, atom 0"):
            ConformalPredictionLatentSpace(trainer).fit([molecule("H2")])

    def test_prepare_wrong(self, trainer, energies_alone, calibration):
        with pytest.raises(ValueError, match="quantity must be one of"):
            prepare_latentNerror_from_trainer(trainer, calibration, quantity="force")
        with pytest.raises(ValueError, match="gives no forces"):
            prepare_featureNerror_from_trainer(energies_alone, calibration, quantity="forces")

    def test_layer(self, trainer, calibration):
        for layer, width in ((0, 6), (-2, 6), (-1, 1)):
            points, _ = prepare_latentNerror_from_trainer(trainer, calibration, layer)
            assert points.shape == (len(calibration), width)
        expected = trainer.predict(calibration, get_latent=3)["latent"]
        points, errors = prepare_latentNerror_from_trainer(trainer, calibration)
        assert_allclose(points, expected, atol=1e-12)
        energies = [atoms.get_potential_energy() for atoms in calibration]
        counts = [len(atoms) for atoms in calibration]
        expected = (np.array(trainer.predict(calibration)["energy"]) - energies) / counts
        assert_allclose(errors, expected)


class TestTrainedEnsemble:
    @pytest.fixture
    def trainings(self, monkeypatch):
        """(data set, folder) of the members' trainings, as they come."""
        trainings, fit = [], members.fit

        def followed(data, folder=None):
            trainings.append((data.dataset, folder))
            return fit(data, folder=folder)

        monkeypatch.setattr(members, "fit", followed)
        return trainings

    @pytest.mark.slow
    @pytest.mark.parametrize("bootstrap", [True, False])
    def test_members(self, training, tmp_path, trainings, bootstrap):
        settings = config(training, tmp_path, optim__epochs=1)
        before = deepcopy({k: v for k, v in settings.items() if k != "dataset"})
        ensemble = train_ensemble(settings, 3, bootstrap)
        assert {k: v for k, v in settings.items() if k != "dataset"} == before
        assert settings["dataset"]["raw_data"] is training
        assert "elements" not in settings["dataset"]
        assert len({folder for _, folder in trainings}) == 3
        assert all((folder / "params.pt").is_file() for _, folder in trainings)
        assert [member.settings.cmd.seed for member in ensemble.members] == [3, 4, 5]
        seen = [
            [sum(atoms is frame for atoms in dataset.images) for frame in training]
            for dataset, _ in trainings
        ]
        assert all(sum(counts) == len(training) for counts in seen)
        assert all((max(counts) > 1) == bootstrap for counts in seen)
        assert (seen[0] != seen[1]) == bootstrap
        weights = [next(iter(m.model.parameters())) for m in ensemble.members]
        assert not np.allclose(*(w.detach().numpy() for w in weights[:2]))

    @pytest.mark.slow
    @pytest.mark.parametrize("named", [True, False])
    def test_weights_go_with_their_frames(self, training, tmp_path, trainings, named):
        weights = np.linspace(1, 2, len(training))
        images = [atoms.copy() for atoms in training]
        for atoms, original, weight in zip(images, training, weights, strict=True):
            atoms.calc, atoms.info["weight"] = original.calc, weight
        given = "weight" if named else weights.tolist()
        settings = config(images, tmp_path, optim__epochs=1, dataset__weights=given)
        train_ensemble(settings, 2)
        for dataset, _ in trainings:
            expected = [atoms.info["weight"] for atoms in dataset.images]
            np.testing.assert_array_equal(dataset.weights, expected)
        settings["dataset"]["weights"] = [1.0]
        with pytest.raises(ValueError, match="1 weights for 16 frames"):
            train_ensemble(settings, 2)

    def test_in_one_call(self, training, calibration, images, tmp_path):
        estimator = EnsembleSDEstimator.train(config(training, tmp_path, optim__epochs=1), 2)
        found = estimator.fit(calibration).predict(images)
        assert (np.array(found["energy_uncertainty"]) > 0).all()

    def test_wrong(self, training, tmp_path):
        with pytest.raises(ValueError, match="n_members is 1"):
            train_ensemble(config(training, tmp_path), 1)
        with pytest.raises(ValueError, match="raw_data"):
            train_ensemble(config(None, tmp_path), 2)
