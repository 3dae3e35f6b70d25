"""Training on stresses: the loss, its gradient in every data set, and what the filter observes."""

import copy

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa
from numpy.testing import assert_allclose

import amptorch
from amptorch.data.from_store import StoreDataset
from amptorch.data.in_memory import MemoryDataset
from amptorch.descriptor.construct import construct_descriptor
from amptorch.metrics import Score
from amptorch.model import BPNN, CustomLoss, SingleNN
from amptorch.model.jacobian import jacobian
from amptorch.store import preprocess
from amptorch.training.kalman import observations
from amptorch.training.prepare import prepare

FUNCTIONS = {
    "default": {
        "G2": {"etas": [0.05, 0.4], "rs_s": [0.0, 1.5]},
        "G4": {"etas": [0.01], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
        "cutoff": 4.2,
    }
}
SETUP = ("gaussian", FUNCTIONS, {"cutoff_func": "Cosine"}, ["Cu", "O"])


def copper(seed, strain=0.02):
    """Strained copper with an oxygen atom, labelled by EMT, with its stress."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True) * (1, 1, 1 + seed % 2)
    atoms[0].symbol = "O"
    atoms.set_cell(
        atoms.cell.array @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True
    )
    atoms.rattle(0.08, rng=rng)
    atoms.calc = EMT()
    results = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture(scope="module")
def frames():
    """Frames with a stress, one without, and a molecule, which has none in no cell."""
    images = [copper(seed) for seed in range(4)]
    del images[1].calc.results["stress"]
    single = molecule("O2")
    single.calc = SinglePointCalculator(
        single, energy=-1.0, forces=np.zeros((2, 3)), stress=np.ones(6)
    )
    return [*images, single]


@pytest.fixture(scope="module")
def datasets(frames, tmp_path_factory):
    """The same frames in every kind of data set."""
    folder = tmp_path_factory.mktemp("store")
    descriptor = construct_descriptor(SETUP)
    options = {"derivatives": "stored", "derivative_dtype": "float64", "stress": True}
    store = preprocess(
        frames, descriptor, folder / "one", verbose=False, frames_per_shard=2, **options
    )
    some = {"stress": True, "scaling": {"type": "standardize"}}
    return {
        "stored": MemoryDataset(frames, SETUP, derivatives="stored", verbose=False, **some),
        "recompute": MemoryDataset(frames, SETUP, derivatives="recompute", verbose=False, **some),
        "components": MemoryDataset(
            frames, SETUP, verbose=False, pca={"num_pc": 5, "elementwise": True}, **some
        ),
        "stored on disk": StoreDataset(store, SETUP, derivatives="stored", **some),
        "recomputed from disk": StoreDataset(store, SETUP, derivatives="recompute", **some),
    }


def network(dataset, kind=BPNN):
    torch.manual_seed(0)
    model = kind(
        dataset.elements, dataset.input_dim, hidden_layers=[6, 5], activation=torch.nn.Tanh
    )
    return model.double()


ORDER = [3, 0, 1, 4, 2]


@pytest.mark.parametrize("kind", [BPNN, SingleNN])
def test_predicted_stress_is_the_slope_of_the_energy(datasets, frames, kind):
    for dataset in datasets.values():
        model = network(dataset, kind)
        settings = amptorch.config.Config.from_dict({"dataset": {"fp_params": FUNCTIONS}})
        potential = amptorch.potential.Potential(
            dataset.descriptor,
            model,
            dataset.feature_scaler,
            dataset.target_scaler,
            torch.float64,
            torch.device("cpu"),
            settings,
        )
        _, _, stress = model(dataset.batch([0, 2]))
        expected = potential.predict([frames[0], frames[2]], stress=True)
        unit = float(dataset.target_scaler.target_std)
        assert_allclose(unit * stress.detach(), expected["stress"], rtol=1e-9, atol=1e-12)
        assert np.abs(expected["stress"]).max() > 1e-5


def test_gradients_are_the_same_in_every_data_set(datasets):
    found = {}
    for name, dataset in datasets.items():
        if name == "components":
            continue
        model, batch = network(dataset), dataset.batch(ORDER)
        loss = CustomLoss(0.7, "mse", stress_coefficient=5.0)
        value = loss(model(batch), batch.targets, batch.counts)
        value.backward()
        parts = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
        found[name] = torch.cat([value.detach()[None], *parts])
    first = found.pop("stored")
    assert first.abs().max() > 1e-3
    for name, other in found.items():
        torch.testing.assert_close(other, first, rtol=1e-10, atol=1e-10, msg=name)


def test_gradient_of_the_loss_is_its_difference_quotient(datasets):
    for name, dataset in datasets.items():
        model, batch = network(dataset), dataset.batch(ORDER)
        loss = CustomLoss(0.3, "mse", stress_coefficient=1e4)

        def value(model=model, batch=batch, loss=loss):
            return loss(model(batch), batch.targets, batch.counts)

        value().backward()
        parameter = next(p for p in model.parameters() if p.requires_grad and p.numel() > 7)
        step = 1e-5
        for place in (0, 7):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[place] += sign * step
                values.append(value().item())
                with torch.no_grad():
                    parameter.view(-1)[place] -= sign * step
            numeric = (values[0] - values[1]) / (2 * step)
            assert_allclose(float(parameter.grad.view(-1)[place]), numeric, rtol=1e-6, err_msg=name)


def test_loss_of_stresses_by_hand(datasets):
    dataset = datasets["stored"]
    batch = dataset.batch(ORDER)
    known = ~torch.isnan(batch.stress[:, 0])
    # One frame has no label, and the molecule no cell, whatever its label says.
    assert known.tolist() == [True, True, False, False, True]
    prediction = [one.detach() for one in network(dataset)(batch)]
    without = CustomLoss(0.5, "mse")(prediction, batch.targets[:2])
    found = CustomLoss(0.5, "mse", stress_coefficient=3.0)(prediction, batch.targets)
    errors = (prediction[2] - batch.stress)[known].square().sum() / (6 * len(batch))
    assert float(found) == pytest.approx(float(without + 1.5 * errors), rel=1e-12)
    total, count = Score("stress", "mae").total(prediction, batch.targets, dataset.target_scaler)
    unit = float(dataset.target_scaler.target_std)
    assert count == 18
    assert total == pytest.approx(unit * float((prediction[2] - batch.stress)[known].abs().sum()))


@pytest.mark.parametrize("delta", [None, 1.5])
def test_the_filter_observes_stresses(datasets, delta):
    for dataset in datasets.values():
        model, batch = network(dataset), dataset.batch(ORDER)
        prediction = model(batch)
        options = (batch, [p.detach() for p in prediction], batch.targets, 2.0, 1, None, 5.0)
        directions, errors, variances = observations(*options, delta, 4.0)
        assert len(directions) == 2
        errors, variances = errors.view(5, 3), variances.view(5, 3)
        known = ~torch.isnan(batch.stress[:, 0])
        assert not errors[~known, 2].any()
        wrong = (batch.stress - prediction[2]).detach()[known]
        if delta is None:
            torch.testing.assert_close(errors[known, 2], wrong.norm(dim=1))
        else:
            assert (errors[known, 2] < wrong.norm(dim=1)).any()
        torch.testing.assert_close(variances[:, 2], torch.full((5,), 6 / (4.0 * 25)).double())
        rows = jacobian(model, batch, directions)
        u = torch.from_numpy(directions[1].u) * batch.volumes[:, None]
        parameters = list(rows)
        for frame in range(5):
            value = (prediction[2][frame] * u[frame]).sum()
            expected = torch.autograd.grad(
                value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for parameter, row in zip(parameters, expected, strict=True):
                torch.testing.assert_close(rows[parameter][frame, 2], row, rtol=1e-9, atol=1e-12)


def config(frames, **optim):
    return {
        "defaults": "recommended",
        "optim": {"epochs": 25, "batch_size": 5, **optim},
        "dataset": {
            "raw_data": copy.deepcopy(frames),
            "fp_params": FUNCTIONS,
            "val_split": 0.0,
        },
        "cmd": {"verbose": False},
    }


@pytest.mark.slow
@pytest.mark.parametrize("optim", [{}, {"optimizer": "Adam", "lr": 0.02, "epochs": 80}])
def test_stresses_are_learnt(optim):
    train, test = [copper(k) for k in range(12)], [copper(k) for k in range(20, 26)]
    errors = {}
    for weight in (0.05, None):
        optim = {**optim, "stress_per_mev": weight}
        potential = amptorch.fit(prepare(config(train, **optim)))
        predicted = potential.predict(test, stress=True)["stress"]
        labels = [atoms.get_stress() for atoms in test]
        errors[weight] = float(np.sqrt(np.mean((np.array(predicted) - labels) ** 2))) / GPa
    assert errors[0.05] < 0.8 * errors[None]
    assert errors[0.05] < 6


@pytest.mark.slow
def test_history_has_the_errors_of_stresses(frames, capsys):
    settings = config(frames, stress_per_mev=0.1, epochs=3, optimizer="LBFGS", lr=0.05)
    settings["cmd"]["verbose"] = True
    potential = amptorch.fit(prepare(settings))
    errors = potential.history[:, "train_stress_mae"]
    assert 0 < errors[-1] < errors[0]
    assert "train GPa MAE" in capsys.readouterr().out


def test_without_stresses(frames):
    none = [atoms for atoms in copy.deepcopy(frames) if "stress" not in atoms.calc.results]
    # What is recommended is for frames that have some.
    data = prepare(config(none, epochs=1))
    assert data.settings.optim.stress_coefficient == 0
    assert data.dataset.batch([0]).volumes is None
    with pytest.raises(ValueError, match="stress_coefficient is 3, but no frame has a stress"):
        prepare(config(none, stress_coefficient=3.0))
    with pytest.raises(ValueError, match="get_forces is False: stresses come with forces"):
        amptorch.config.Config.from_dict(
            {"model": {"get_forces": False}, "optim": {"stress_coefficient": 1.0}}
        )


def test_stresses_under_another_name_are_not_passed_over_in_silence(caplog):
    images = [copper(seed) for seed in range(4)]
    for atoms in images:
        atoms.info["REF_virial"] = -atoms.cell.volume * atoms.calc.results.pop("stress")
    data = prepare(config(images, stress_per_mev=0.1, energy_per_atom=True), images)
    assert data.settings.optim.stress_coefficient == 0
    assert "frame 0 has 'REF_virial': name one in dataset.stress_key" in caplog.text


def test_a_store_keeps_stresses_where_they_are_asked_for(frames, tmp_path):
    settings = config(frames, epochs=2)
    settings["dataset"] |= {"store": str(tmp_path / "new"), "derivatives": "stored"}
    data = prepare(settings)
    assert data.settings.optim.stress_coefficient > 0
    assert data.dataset.store.derivatives(
        data.descriptor.descriptor_setup_hash, "float32", strains=True
    )
    amptorch.fit(data)
    # One that was made without says so, and is trained on without where it is only recommended.
    descriptor = construct_descriptor(SETUP)
    preprocess(frames, descriptor, tmp_path / "old", verbose=False)
    settings["dataset"]["store"] = str(tmp_path / "old")
    assert prepare(settings).settings.optim.stress_coefficient == 0
    settings["optim"]["stress_coefficient"] = 1.0
    with pytest.raises(ValueError, match="no frame has a stress"):
        prepare(settings)
