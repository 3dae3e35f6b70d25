"""The contraction of stored derivatives by tensors, as a GPU does it, on the CPU."""

import numpy as np
import pytest
import torch

from amptorch.datasets import iron_water
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.model import forces
from amptorch.model.device import DeviceDerivatives
from amptorch.store import preprocess

FP_PARAMS = {
    "default": {
        "cutoff": 4.0,
        "G2": {"etas": [1.0, 8.0], "rs_s": [0.0]},
        "G4": {"etas": [0.1], "zetas": [1.0], "gammas": [1.0, -1.0]},
    }
}
ATOL = 1e-10


@pytest.fixture(scope="module", params=["memory", "store"])
def derivatives(request, tmp_path_factory):
    images = iron_water(5, seed=2, max_water=3)
    descriptor = Gaussian(FP_PARAMS, ["Fe", "H", "O"])
    frames = Frames.from_atoms(images, forces=True, energies=True)
    if request.param == "memory":
        return frames, descriptor.values_and_derivatives(frames)[1]
    folder = tmp_path_factory.mktemp("store") / "frames"
    # Two frames a shard, so that batches span several.
    store = preprocess(
        images,
        descriptor,
        folder,
        derivatives="stored",
        derivative_dtype="float64",
        frames_per_shard=2,
        verbose=False,
    )
    return frames, store.derivatives(descriptor.descriptor_setup_hash, "float64")


@pytest.mark.parametrize("frame_ids", [[0, 1, 2, 3, 4], [3, 0, 4], [2]])
@pytest.mark.parametrize("some", [False, True])
def test_same_as_the_kernels(derivatives, frame_ids, some):
    frames, backend = derivatives
    n = int(frames.counts[frame_ids].sum())
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(n, n // 3, replace=False)) if some else None
    g = rng.normal(size=(n, backend.n_features))
    v = rng.normal(size=(n if rows is None else len(rows), 3))
    there = DeviceDerivatives(backend, np.array(frame_ids), "cpu", rows)
    vjp, jvp = backend.vjp(frame_ids, g, rows), backend.jvp(frame_ids, v, rows)
    assert np.abs(vjp).max() > 1e-3
    np.testing.assert_allclose(there.vjp(torch.from_numpy(g)), vjp, atol=ATOL)
    np.testing.assert_allclose(there.jvp(torch.from_numpy(v)), jvp, atol=ATOL)


def test_forces_and_their_gradient(derivatives, monkeypatch):
    frames, backend = derivatives
    ids = np.array([4, 1])
    n = int(frames.counts[ids].sum())
    results = []
    for on_device in (False, True):
        monkeypatch.setattr(forces, "_stays_on", lambda device, answer=on_device: answer)
        g = torch.from_numpy(np.random.default_rng(1).normal(size=(n, backend.n_features)))
        g.requires_grad_()
        force = forces.Forces.apply(g, backend, ids)
        force.square().sum().backward()
        results.append((force.detach(), g.grad))
    for kernels, device in zip(*results, strict=True):
        torch.testing.assert_close(device, kernels, atol=ATOL, rtol=ATOL)
