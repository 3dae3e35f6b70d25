"""Several networks in one training, whose mean is one network."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from skorch.callbacks import Callback

import amptorch
from amptorch import AtomsTrainer
from amptorch.config import Config
from amptorch.ensemble import Ensemble
from amptorch.model import make_model
from amptorch.model.committee import join, part
from amptorch.training import committee
from tests.small_frames import mixed_frames

ELEMENTS = ["Cu", "O"]
FUNCTIONS = {
    "default": {
        "G2": {"etas": [0.05, 0.4], "rs_s": [0.0]},
        "G4": {"etas": [0.01], "zetas": [1.0], "gammas": [1.0, -1.0]},
        "cutoff": 4.0,
    }
}


@pytest.fixture(scope="module")
def images():
    return mixed_frames(12)


def settings(images, **optim):
    return {
        "defaults": "recommended",
        "model": {"members": 3, "hidden_layers": [4, 3]},
        "optim": {"epochs": 12, "batch_size": 4, **optim},
        "dataset": {"raw_data": copy.deepcopy(images), "fp_params": FUNCTIONS, "val_split": 0.2},
        "cmd": {"verbose": False},
    }


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    monkeypatch.setattr(committee, "FEWEST_EPOCHS", 2)


@pytest.mark.parametrize("name", ["bpnn", "singlenn"])
@pytest.mark.parametrize("hidden", [[5], [4, 3], []])
def test_the_mean_is_one_network(name, hidden):
    options = {"name": name, "hidden_layers": hidden, "num_layers": 2, "num_nodes": 3}
    single = Config.from_dict({"model": options}).model
    several = Config.from_dict({"model": {**options, "members": 4}}).model
    torch.manual_seed(0)
    members = [make_model(single, ELEMENTS, 6, torch.float64) for _ in range(4)]
    for member in members:
        for parameter in member.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter)
    model = make_model(several, ELEMENTS, 6, torch.float64)
    join(members, model)
    x = torch.randn(7, 6, dtype=torch.float64)
    networks = [
        (m.model,) if name == "singlenn" else tuple(m.elementwise_models) for m in (model, *members)
    ]
    for mean, *others in zip(*networks, strict=True):
        expected = torch.stack([other(x) for other in others]).mean(dim=0)
        torch.testing.assert_close(mean(x), expected, rtol=1e-12, atol=1e-12)
    back = make_model(single, ELEMENTS, 6, torch.float64)
    part(model, 2, 4, back)
    if not hidden:
        # One layer: nothing of a member is left in the mean.
        return
    for name, value in members[2].state_dict().items():
        # The constant of a mean is not that of one of its members.
        if name.endswith("bias") and value.shape == (1,):
            continue
        torch.testing.assert_close(back.state_dict()[name], value, rtol=1e-12, atol=1e-15)


@pytest.mark.slow
def test_a_training_gives_the_mean_of_its_networks(images, tmp_path, monkeypatch):
    ended = []
    original = committee.mean_of

    def spy(net, *arguments):
        ended.extend(dict(net.callbacks_)["committee"].parts_)
        return original(net, *arguments)

    monkeypatch.setattr("amptorch.training.fit.mean_of", spy)
    data = amptorch.prepare(settings(images))
    potential = amptorch.fit(data, folder=tmp_path / "kept")
    assert len(ended) == 3
    assert potential.settings.model.members == 3
    assert len(potential.history) == 12
    # Each has begun from weights of its own, and with a best epoch of its own.
    firsts = [next(iter(parameters.values())) for parameters in ended]
    assert not torch.equal(firsts[0], firsts[1])
    assert not torch.equal(firsts[1], firsts[2])
    best = [epoch["event_cp"] for epoch in potential.history]
    assert [best[k] for k in (0, 4, 8)] == [True] * 3
    members = []
    for parameters in ended:
        member = copy.deepcopy(potential)
        member.settings = committee.one_member(potential.settings)
        member.model = make_model(
            member.settings.model, potential.elements, data.dataset.input_dim, torch.float64
        )
        member.model.load_state_dict(parameters)
        members.append(member)
    expected = Ensemble(members).predict(images, stress="optional")
    for model in (potential, amptorch.load(tmp_path / "kept")):
        found = model.predict(images, stress="optional")
        for quantity in ("energy", "forces"):
            for one, other in zip(found[quantity], expected[quantity], strict=True):
                assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_trainer_resumes_goes_on_and_loads(images, tmp_path):
    config = settings(images)
    config["cmd"]["run_dir"] = str(tmp_path)
    whole = AtomsTrainer(config)
    whole.train()
    expected = whole.predict(images)
    assert whole.potential.settings.model.members == 3
    # A run that was ended in its second network.
    config["optim"]["epochs"] = 6
    begun = AtomsTrainer(config)
    with pytest.MonkeyPatch.context() as patch:
        # As in the whole run, networks change after four epochs.
        patch.setattr(
            "amptorch.training.progress.Progress.share", lambda self, _: self.epochs_ / 12
        )
        begun.train()
    config["optim"]["epochs"] = 12
    resumed = AtomsTrainer(config)
    resumed.train(resume=begun.cp_dir)
    again = resumed.predict(images)
    for one, other in zip(again["forces"], expected["forces"], strict=True):
        assert_allclose(one, other, rtol=1e-7, atol=1e-9)
    loaded = AtomsTrainer()
    loaded.load_pretrained(whole.cp_dir)
    np.testing.assert_allclose(loaded.predict(images)["energy"], expected["energy"], rtol=1e-12)
    # Every network goes on from its own parameters.
    starts = [start.copy() for start in loaded._starts]
    assert len(starts) == 3
    loaded.train(copy.deepcopy(images))
    assert loaded.potential.settings.model.members == 3


@pytest.mark.slow
def test_without_time_there_are_fewer(images, monkeypatch):
    monkeypatch.setattr(committee, "FEWEST_EPOCHS", 6)
    potential = amptorch.fit(amptorch.prepare(settings(images)))
    assert potential.settings.model.members == 2
    monkeypatch.setattr(committee, "FEWEST_EPOCHS", 8)
    potential = amptorch.fit(amptorch.prepare(settings(images)))
    assert potential.settings.model.members == 1
    assert len(potential.history) == 12


def test_the_first_is_a_potential_while_the_others_are_trained(images, tmp_path):
    class Stop(Exception):
        pass

    class Killed(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 6:
                raise Stop

    data = amptorch.prepare(settings(images))
    with pytest.raises(Stop):
        amptorch.fit(data, folder=tmp_path / "kept", callbacks=[("killed", Killed())])
    kept = amptorch.load(tmp_path / "kept")
    assert kept.settings.model.members == 1
    assert len(kept.history) <= 4
    assert np.isfinite(kept.predict(images)["energy"]).all()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"dropout": True}, "members is 2: set model.dropout to False"),
        ("model", {"hidden_layers": [3], "activation": ["Tanh", "Tanh"]}, "has no activation"),
        ("optim", {"recover": True}, "optim.recover is for one network"),
        ("optim", {"cp_metric": "loss"}, "model.members needs optim.cp_metric"),
    ],
)
def test_what_is_for_one_network_alone(section, values, message):
    config = {"model": {"members": 2}}
    config[section] = {**config.get(section, {}), **values}
    with pytest.raises(ValueError, match=message):
        Config.from_dict(config)
