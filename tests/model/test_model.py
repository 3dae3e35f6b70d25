"""Networks, forces through derivative back ends, loss."""

import copy
import pickle

import numpy as np
import pytest
import torch

from amptorch.data.batch import Batch
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.model import BPNN, MLP, CustomLoss, ElementMask, SingleNN
from amptorch.model.forces import Forces
from amptorch.preprocessing import FeatureScaler
from tests.small_frames import FP_PARAMS, mixed_frames

ELEMENTS = ["Cu", "O"]
MODELS = [BPNN, SingleNN]


class DenseDerivatives:
    """The back end of one dense J (n·S, 3n)."""

    def __init__(self, n_atoms, n_features, seed=0):
        rng = np.random.default_rng(seed)
        self.matrix = rng.normal(size=(n_atoms * n_features, 3 * n_atoms))

    def vjp(self, frame_ids, g, rows=None):
        result = (self.matrix.T @ g.ravel()).reshape(-1, 3)
        return result if rows is None else result[rows]

    def jvp(self, frame_ids, v, rows=None):
        if rows is not None:
            some, v = v, np.zeros((self.matrix.shape[1] // 3, 3))
            v[rows] = some
        return (self.matrix @ v.ravel()).reshape(len(v), -1)


def batch_of(n_frames=4, n_features=5, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, size=n_frames)
    n_atoms = int(counts.sum())
    return Batch(
        fingerprint=torch.tensor(rng.normal(size=(n_atoms, n_features)), dtype=dtype),
        atomic_numbers=torch.from_numpy(rng.permutation(np.resize([29, 8], n_atoms))),
        image_idx=torch.from_numpy(np.repeat(np.arange(n_frames), counts)),
        num_images=n_frames,
        slope=torch.tensor(rng.uniform(0.5, 2, size=(n_atoms, n_features)), dtype=dtype),
        derivatives=DenseDerivatives(n_atoms, n_features, seed),
        frame_ids=np.arange(n_frames),
    )


def model_of(kind, **options):
    torch.manual_seed(0)
    model = kind(ELEMENTS, 5, num_nodes=6, num_layers=2, **options)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.ndim == 1:
            torch.nn.init.normal_(parameter)
    return model


def displaced(batch, displacement):
    """The batch after its atoms have moved by (n, 3), to first order: G + J·displacement."""
    moved = copy.copy(batch)
    change = torch.from_numpy(batch.derivatives.jvp(None, displacement))
    moved.fingerprint = batch.fingerprint + change * batch.slope
    return moved


# --- networks ---


def test_layers_are_in_v1s_order():
    mlp = MLP(4, hidden_layers=[3, 2], batchnorm=True, dropout=True, activation=torch.nn.GELU)
    names = [type(layer).__name__ for layer in mlp.model_net]
    hidden = ["Linear", "BatchNorm", "GELU", "Dropout"]
    assert names == [*hidden, *hidden, "Linear"]
    assert mlp(torch.ones(7, 4, dtype=torch.float64)).shape == (7,)


def test_state_names_and_shapes_of_v1():
    state = {name: tuple(value.shape) for name, value in model_of(BPNN).state_dict().items()}
    expected = {"element_mask.mask.weight": (100, 2)}
    for k in range(2):
        for layer, shape in [(0, (6, 5)), (2, (6, 6)), (4, (1, 6))]:
            expected[f"elementwise_models.{k}.model_net.{layer}.weight"] = shape
            expected[f"elementwise_models.{k}.model_net.{layer}.bias"] = shape[:1]
    assert state == expected
    assert "model.model_net.4.bias" in model_of(SingleNN).state_dict()


def test_initialization():
    zero = MLP(4, initialization="zero")
    assert all(not parameter.detach().any() for parameter in zero.parameters())
    torch.manual_seed(1)
    layer = MLP(40, hidden_layers=[60], initialization="xavier").model_net[0]
    bound = (6 / (40 + 60)) ** 0.5
    assert 0.95 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert not layer.bias.detach().any()
    with pytest.raises(ValueError, match=r"'xavier', 'zero', 'small'.*got 'ones'"):
        MLP(4, initialization="ones")


def test_small_initialization_scales_the_output_layer_alone():
    torch.manual_seed(0)
    xavier = MLP(4, initialization="xavier").state_dict()
    torch.manual_seed(0)
    small = MLP(4, initialization="small").state_dict()
    last = list(small)[-2]
    for name, values in xavier.items():
        expected = 0.01 * values if name == last else values
        torch.testing.assert_close(small[name], expected)


@pytest.mark.parametrize("kind", MODELS)
def test_precision_follows_dtype_and_nothing_else(kind):
    model = kind(ELEMENTS, 5, dtype=torch.float32)
    energy, forces = model(batch_of(dtype=torch.float32))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert energy.dtype is forces.dtype is torch.float32
    assert torch.get_default_dtype() is torch.float32
    assert next(kind(ELEMENTS, 5).parameters()).dtype is torch.float64


def test_energies_are_sums_over_atoms_of_their_own_network():
    model, batch = model_of(BPNN), batch_of()
    energy, _ = model(batch)
    expected = torch.zeros(4, dtype=torch.float64)
    for x, number, frame in zip(
        batch.fingerprint, batch.atomic_numbers, batch.image_idx, strict=True
    ):
        network = model.elementwise_models[{29: 0, 8: 1}[int(number)]]
        expected[frame] += network(x[None])[0]
    torch.testing.assert_close(energy, expected)
    batch.element_rows = [(batch.atomic_numbers == number).nonzero()[:, 0] for number in (29, 8)]
    torch.testing.assert_close(model(batch)[0], expected)


def test_every_network_sees_only_its_own_atoms():
    model, batch = model_of(BPNN), batch_of()
    seen = []
    for network in model.elementwise_models:
        network.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    model(batch)
    assert seen == [int((batch.atomic_numbers == number).sum()) for number in (29, 8)]


def test_an_element_without_a_network_is_named():
    batch = batch_of()
    batch.atomic_numbers[3] = 6
    with pytest.raises(ValueError, match="no network for element C, only Cu, O"):
        model_of(BPNN)(batch)


def test_elements_beyond_v1s_mask():
    model = BPNN(["Cu", "Lr"], 5)
    batch = batch_of()
    batch.atomic_numbers[batch.atomic_numbers == 8] = 103
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    assert model.element_mask.one_hot
    assert torch.isfinite(model(batch)[0]).all()


# --- v1.0's trained mask ---


def dense_mask_model():
    model = model_of(BPNN)
    state = model.state_dict()
    rng = np.random.default_rng(3)
    state["element_mask.mask.weight"][[29, 8]] = torch.from_numpy(rng.normal(size=(2, 2)))
    model.load_state_dict(state)
    return model


def test_a_loaded_mask_weighs_every_network():
    model, batch = dense_mask_model(), batch_of()
    mask = model.element_mask(batch.atomic_numbers)
    atomic = torch.stack([network(batch.fingerprint) for network in model.elementwise_models], 1)
    expected = torch.zeros(4, dtype=torch.float64)
    expected.index_add_(0, batch.image_idx, (mask * atomic).sum(dim=1))
    torch.testing.assert_close(model(batch)[0], expected)


def test_a_mask_is_trained_only_where_it_was():
    fresh, loaded = model_of(BPNN), dense_mask_model()
    for model, trained in [(fresh, False), (loaded, True)]:
        energy, forces = model(batch_of())
        (energy.sum() + forces.square().sum()).backward()
        gradient = model.element_mask.mask.weight.grad
        assert (gradient is not None and bool(gradient.abs().max() > 0)) is trained
    loaded.load_state_dict(fresh.state_dict())
    assert loaded.element_mask.one_hot
    assert not loaded.element_mask.mask.weight.requires_grad


def test_models_copy_and_pickle():
    batch = batch_of()
    for model in (model_of(BPNN), dense_mask_model(), model_of(SingleNN)):
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(twin(batch)[0], model(batch)[0])
    twin = copy.deepcopy(model_of(BPNN))
    twin.load_state_dict(dense_mask_model().state_dict())
    assert not twin.element_mask.one_hot


def test_mask_rows_are_one_hot():
    rows = ElementMask(["O", 29])(torch.tensor([29, 8, 1]))
    assert rows.tolist() == [[0, 1], [1, 0], [0, 0]]


# --- forces ---


@pytest.mark.parametrize("model", [model_of(BPNN), model_of(SingleNN), dense_mask_model()])
def test_forces_are_the_negative_gradient(model):
    batch = batch_of()
    _, forces = model(batch)
    assert bool(forces.abs().max() > 0.1)
    step = 1e-5
    for atom, axis in [(0, 0), (3, 1), (len(forces) - 1, 2)]:
        move = np.zeros((len(forces), 3))
        move[atom, axis] = step
        rise = model(displaced(batch, move))[0].sum() - model(displaced(batch, -move))[0].sum()
        assert forces[atom, axis].item() == pytest.approx(-rise.item() / (2 * step), rel=1e-7)


def test_gradcheck_of_the_contraction():
    derivatives = DenseDerivatives(3, 4)
    g = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Forces.apply(x, derivatives, np.arange(1)), g)


@pytest.mark.parametrize("model", [model_of(BPNN), model_of(SingleNN), dense_mask_model()])
@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_gradients_of_the_loss_are_those_of_central_differences(model, loss):
    batch = batch_of()
    rng = np.random.default_rng(5)
    target = [
        torch.from_numpy(rng.normal(size=4)),
        torch.from_numpy(rng.normal(size=(len(batch.fingerprint), 3))),
    ]
    criterion = CustomLoss(0.3, loss)
    model.zero_grad()
    criterion(model(batch), target).backward()
    step = 1e-6
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        # The entry with the largest gradient.
        place = int(parameter.grad.abs().argmax())
        gradient = float(parameter.grad.view(-1)[place])
        values = []
        for change in (step, -step):
            with torch.no_grad():
                parameter.view(-1)[place] += change
                values.append(float(criterion(model(batch), target)))
                parameter.view(-1)[place] -= change
        assert gradient == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8)


@pytest.fixture(scope="module")
def described():
    """Frames with their descriptor, scaled fingerprints and back ends."""
    frames = Frames.from_atoms(mixed_frames(4), ELEMENTS)
    descriptor = Gaussian(FP_PARAMS, ELEMENTS)
    values, blocks = descriptor.values_and_derivatives(frames)
    return frames, descriptor, FeatureScaler.from_arrays(values, frames.numbers), blocks


def real_batch(frames, descriptor, scaler, blocks):
    return Batch(
        fingerprint=torch.from_numpy(
            scaler.transform_rows(descriptor.values(frames), frames.numbers)
        ),
        atomic_numbers=torch.from_numpy(frames.numbers),
        image_idx=torch.from_numpy(frames.frame_of_atom),
        num_images=len(frames),
        slope=scaler.slope_rows(frames.numbers),
        derivatives=blocks,
        frame_ids=np.arange(len(frames)),
    )


def test_gradcheck_with_stored_derivatives(described):
    _, descriptor, _, blocks = described
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(
        2, descriptor.n_features, dtype=torch.float64, requires_grad=True, generator=generator
    )
    # Frame 3 is a molecule of two atoms.
    assert torch.autograd.gradcheck(lambda x: Forces.apply(x, blocks, np.array([3])), g)
    assert bool(Forces.apply(g, blocks, np.array([3])).abs().max() > 0)


@pytest.mark.parametrize("kind", MODELS)
def test_forces_of_real_frames_are_the_negative_gradient(kind, described):
    frames, descriptor, scaler, blocks = described
    model = kind(ELEMENTS, descriptor.n_features, num_layers=2, num_nodes=6)
    _, forces = model(real_batch(frames, descriptor, scaler, blocks))
    step = 1e-4
    for atom in (0, 7, frames.n_atoms - 1):
        energies = []
        for sign in (1, -1):
            positions = frames.positions.copy()
            positions[atom, 1] += sign * step
            moved = copy.copy(frames)
            object.__setattr__(moved, "positions", positions)
            energies.append(model(real_batch(moved, descriptor, scaler, blocks))[0].sum().item())
        expected = -(energies[0] - energies[1]) / (2 * step)
        assert forces[atom, 1].item() == pytest.approx(expected, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("kind", MODELS)
def test_without_gradients_the_same_comes_out(kind):
    model, batch = model_of(kind), batch_of()
    with torch.no_grad():
        energy, forces = model(batch)
    assert not energy.requires_grad
    assert not forces.requires_grad
    torch.testing.assert_close((energy, forces), tuple(part.detach() for part in model(batch)))


@pytest.mark.parametrize("kind", MODELS)
def test_without_forces_there_are_none(kind):
    batch = batch_of()
    model = model_of(kind)
    expected = model(batch)[0]
    model.get_forces = False
    energy, forces = model(batch)
    torch.testing.assert_close(energy, expected)
    assert forces.shape == (0, 3)
    batch.derivatives = None
    assert model_of(kind)(batch)[1].shape == (0, 3)


# --- batch norm, latent ---


@pytest.mark.parametrize("kind", MODELS)
def test_batch_norm_trains_with_a_single_atom_of_an_element(kind):
    model, batch = model_of(kind, batchnorm=True), batch_of()
    batch.atomic_numbers[:] = 8
    batch.atomic_numbers[2] = 29
    model.train()
    energy, forces = model(batch)
    (energy.sum() + forces.sum()).backward()
    assert torch.isfinite(energy).all()
    assert torch.isfinite(forces).all()


def test_batch_norm_sees_only_the_element():
    model, batch = model_of(BPNN, batchnorm=True), batch_of()
    model.train()
    model(batch)
    for network, number in zip(model.elementwise_models, (29, 8), strict=True):
        linear, norm = network.model_net[:2]
        mean = linear(batch.fingerprint[batch.atomic_numbers == number]).mean(dim=0)
        torch.testing.assert_close(norm.running_mean, norm.momentum * mean.detach())


@pytest.mark.parametrize("model", [model_of(BPNN), model_of(SingleNN), dense_mask_model()])
def test_latent_of_the_last_layer_is_the_atomic_energy(model):
    batch = batch_of()
    latent = model.latent(batch, 4)
    energy = torch.zeros(4, dtype=torch.float64).index_add(0, batch.image_idx, latent[:, 0])
    torch.testing.assert_close(energy, model(batch)[0])
    torch.testing.assert_close(model.latent(batch, -1), latent)
    assert model.latent(batch, 1).shape == (len(batch.fingerprint), 6)
    with pytest.raises(ValueError, match=r"a layer in 0\.\.4, got 5"):
        model.latent(batch, 5)


def test_number_of_parameters():
    assert model_of(SingleNN).num_params == 6 * 5 + 6 + 6 * 6 + 6 + 6 + 1
    assert model_of(BPNN).num_params == 2 * model_of(SingleNN).num_params


# --- loss ---


def test_loss_is_half_of_energy_and_weighted_force_errors():
    energy, forces = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    target = [torch.tensor([0.0, 4.0]), torch.zeros(2, 3)]
    mse, mae = (CustomLoss(0.5, loss)((energy, forces), target) for loss in ("mse", "mae"))
    assert float(mse) == pytest.approx(0.5 * (5 / 2 + 0.5 * 5 / 6))
    assert float(mae) == pytest.approx(0.5 * (3 / 2 + 0.5 * 3 / 6))


def test_loss_never_changes_itself():
    criterion = CustomLoss(0.5, "mse")
    energy, forces = torch.ones(2), torch.ones(3, 3)
    target = [torch.zeros(2), torch.zeros(3, 3)]
    before = float(criterion((energy, forces), target))
    assert float(criterion((energy, torch.empty(0, 3)), target[:1])) == 0.5
    assert float(criterion((energy, forces), target)) == before == 0.75
    assert criterion.state_dict() == {}


def test_wrong_losses_are_refused():
    with pytest.raises(ValueError, match="'mse', 'mae' or 'huber', got 'rmse'"):
        CustomLoss(loss="rmse")
    with pytest.raises(ValueError, match="the frames have no forces"):
        CustomLoss(0.1, "mse")((torch.ones(1), torch.ones(2, 3)), [torch.ones(1)])
