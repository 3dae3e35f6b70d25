"""Networks evaluated by numpy against autograd, their slow twin."""

import numpy as np
import pytest
import torch
from torch import nn

from amptorch.data.batch import Batch
from amptorch.model import BPNN, SingleNN
from amptorch.model.arrays import ACTIVATIONS, energies_and_gradient
from amptorch.recommended import recommended

NUMBERS = np.array([1, 29, 29, 1, 8, 1, 29])


@pytest.fixture(autouse=True)
def _same_weights():
    """Draw the same weights in any order of tests: exp(−x) overflows with one in ten others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def batch_of(n_features=5, dtype=torch.float64):
    """Atoms of three elements in two frames, with fingerprints from far below 0 to far above."""
    x = torch.from_numpy(np.random.default_rng(0).normal(scale=3.0, size=(7, n_features))).to(dtype)
    frame = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    return Batch(x, torch.from_numpy(NUMBERS), frame, 2)


def by_autograd(model, batch):
    model.eval()
    x = batch.fingerprint.clone().requires_grad_()
    energies = model.atomic_energies(batch, x)
    (gradient,) = torch.autograd.grad(energies.sum(), x)
    return energies.detach().numpy(), gradient.numpy()


def perturbed(model):
    """The model with random biases and running statistics, as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                tensor.normal_(generator=generator)
            if name.endswith(("running_var", "model_net.1.weight")):
                tensor.uniform_(0.5, 2.0, generator=generator)
    return model


def check(model, batch):
    energies, gradient = energies_and_gradient(model, batch)
    expected, slope = by_autograd(model, batch)
    assert np.abs(expected).max() > 1e-3
    assert np.abs(slope).max() > 1e-3
    np.testing.assert_allclose(energies, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gradient, slope, rtol=1e-11, atol=1e-12 * np.abs(slope).max())


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_every_activation(activation):
    check(perturbed(BPNN(["Cu", "H", "O"], 5, 4, 2, activation=activation)), batch_of())


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_layers": [6, 3, 2]},
        {"num_layers": 0},
        {"batchnorm": True, "dropout": True},
        {"num_layers": 2, "activation": [nn.Tanh, nn.ReLU, nn.Sigmoid]},
    ],
    ids=["widths", "linear", "batchnorm", "output"],
)
@pytest.mark.parametrize("kind", [BPNN, SingleNN])
def test_every_option(kind, options):
    options = {"num_nodes": 4, "num_layers": 2, **options}
    check(perturbed(kind(["Cu", "H", "O"], 5, **options)), batch_of())


def test_the_activation_that_is_recommended():
    activation = recommended()["model"]["activation"]
    batch = batch_of()
    # Beyond 20, where torch's Softplus is another function, too.
    batch.fingerprint *= 10
    check(perturbed(BPNN(["Cu", "H", "O"], 5, 4, 2, activation=getattr(nn, activation))), batch)


def test_parameters_of_now_are_taken():
    model, batch = perturbed(SingleNN(["Cu", "H", "O"], 5, 4, 2)), batch_of()
    before = energies_and_gradient(model, batch)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    check(model, batch)
    assert np.abs(energies_and_gradient(model, batch)[0] - before).max() > 1e-3


def test_what_is_not_known_is_left_to_autograd():
    batch = batch_of()
    assert energies_and_gradient(SingleNN(["H"], 5, 4, 2, activation=nn.GELU), batch) is None
    single = SingleNN(["H"], 5, 4, 2, dtype=torch.float32)
    assert energies_and_gradient(single, batch_of(dtype=torch.float32)) is None
    mixed = BPNN(["Cu", "H", "O"], 5, 4, 2)
    state = mixed.state_dict()
    state["element_mask.mask.weight"][29] = 0.3
    mixed.load_state_dict(state)
    assert energies_and_gradient(mixed, batch) is None
