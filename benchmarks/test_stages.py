"""The stages of the work, one after the other; parameters are in the order of their names."""

import numpy as np
import pytest
import stages
from setups import iron_water_frames

SIZES = (35, 80, 164)
# Atoms, functions an atom, threads.
STANDARD = [(atoms, 36, 1) for atoms in SIZES]
VARIED = [(164, 12, 1), (164, 96, 1), (164, 36, 2)]
ON_TWO_THREADS = [(35, 1), (80, 1), (164, 1), (164, 2)]
# Å, of GMP.
SIGMAS = [0.2 * k for k in range(1, 11)]
CONTRACTED = [
    (backend, atoms, functions, "float64", threads)
    for backend in ("stored", "recompute")
    for atoms, functions, threads in STANDARD + VARIED
]
# Parts of the configuration: what an epoch is trained with.
EPOCHS = {
    "stored": {},
    "stored float32": {"dataset__derivative_dtype": "float32"},
    "recompute": {"dataset__derivatives": "recompute"},
    "single precision": {"cmd__dtype": "FloatTensor"},
}


@pytest.mark.parametrize(("atoms", "threads"), ON_TWO_THREADS)
def test_neighbors(measure, atoms, threads):
    measure(stages.neighbors, atoms, 8)


@pytest.mark.parametrize(("atoms", "functions", "threads"), STANDARD + VARIED)
def test_values(measure, atoms, functions, threads):
    measure(stages.fingerprints, atoms, 8, v1="values", number=functions)


@pytest.mark.parametrize(
    ("atoms", "functions", "threads", "dtype"),
    [(*row, "float64") for row in STANDARD + VARIED] + [(164, 36, 1, "float32")],
)
def test_values_and_derivatives(measure, atoms, functions, threads, dtype):
    v1 = "values_and_derivatives" if dtype == "float64" else None
    measure(stages.derivatives, atoms, 8, v1=v1, number=functions, dtype=dtype)


@pytest.mark.parametrize("atoms", SIZES)
@pytest.mark.parametrize("stage", ["values", "values_and_derivatives"])
def test_prepare_fingerprints(measure, atoms, stage):
    """Make the same call as v1.0, with its results: dictionaries, and sparse matrices."""
    measure(getattr(stages, stage), atoms, 8, v1=stage)


@pytest.mark.parametrize(("cutoff", "orders"), [(None, 4), (8.0, 4), (None, 10)])
@pytest.mark.parametrize("what", ["values", "values_and_derivatives"])
def test_gmp(measure, what, cutoff, orders):
    """Compute GMP fingerprints with ten widths, at the default cutoff (None) or at 8 Å."""
    parameters = {"MCSHs": {"orders": list(range(orders)), "sigmas": SIGMAS}}
    parameters |= {"cutoff": cutoff} if cutoff else {}
    measure(stages.gmp, 164, 2, what=what, **parameters)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("backend", "atoms", "functions", "dtype", "threads"),
    [*CONTRACTED, ("stored", 164, 36, "float32", 1)],
)
def test_contraction(measure, direction, backend, atoms, functions, dtype, threads):
    """Contract derivatives: Jᵀg, forward, makes forces; J v, backward, trains on them."""
    options = {"direction": direction, "backend": backend, "number": functions, "dtype": dtype}
    measure(stages.contraction, atoms, 16, **options)


@pytest.mark.parametrize("atoms", SIZES)
def test_fit_scaler(measure, atoms):
    measure(stages.scale, atoms, 32, fit=True)


@pytest.mark.parametrize("atoms", SIZES)
def test_scale(measure, atoms):
    measure(stages.scale, atoms, 32)


@pytest.mark.parametrize("what", ["structures", "fingerprints", "derivatives"])
@pytest.mark.parametrize("atoms", [35, 164])
def test_reading(measure, atoms, what):
    """Read from a store on disk, whose files the operating system holds in memory."""
    measure(stages.reading, atoms, 32, what=what)


@pytest.mark.parametrize("source", ["memory", "store"])
@pytest.mark.parametrize("atoms", SIZES)
def test_batch(measure, atoms, source):
    measure(stages.batch, atoms, 16, source=source)


@pytest.mark.parametrize(
    ("atoms", "kind", "threads"),
    [
        *((atoms, "stored", 1) for atoms in SIZES),
        *((164, kind, 1) for kind in EPOCHS if kind != "stored"),
        (164, "recompute", 2),
    ],
)
def test_epoch(measure, atoms, kind, threads):
    v1 = "epoch" if kind == "stored" else None
    measure(stages.epoch, atoms, 32, v1=v1, **EPOCHS[kind])


@pytest.mark.parametrize(("atoms", "threads"), ON_TWO_THREADS)
def test_prediction(measure, atoms, threads):
    measure(stages.prediction, atoms, 4, v1="prediction")


@pytest.mark.parametrize(("atoms", "threads"), ON_TWO_THREADS)
def test_dynamics_step(measure, atoms, threads):
    measure(stages.calculator_step, atoms, 4, v1="calculator_step")


def test_large_structure(measure):
    """Compute energy and forces of 16,072 atoms, all neighbours searched in each step."""
    measure(stages.calculator_step, 164, 4, repeat=(7, 7, 2), skin=0.0)


# Other programs, where they are installed: the same frames, and the same results.


@pytest.mark.parametrize("atoms", SIZES)
@pytest.mark.parametrize("peer", ["ase", "matscipy", "vesin"])
def test_neighbors_of_peers(measure, peer, atoms):
    pytest.importorskip(peer)
    images = iron_water_frames(atoms, 2)
    for found, image in zip(stages.neighbors_by(images, peer)[0](), images, strict=True):
        listed = stages.structures([image])[2]
        ours = in_order(listed.centers, listed.neighbors, listed.vectors, listed.shifts)
        np.testing.assert_allclose(in_order(*found), ours, atol=1e-10)
    measure(stages.neighbors_by, atoms, 2, ours=stages.neighbors, program=peer)


def in_order(centers, neighbors, vectors, shifts):
    rows = np.column_stack((centers, neighbors, shifts, vectors))
    return rows[np.lexsort(rows[:, :5].T)]


@pytest.mark.parametrize("atoms", [35, 164])
def test_values_of_dscribe(measure, atoms):
    pytest.importorskip("dscribe")
    images = iron_water_frames(atoms, 2)
    descriptor, frames, _ = stages.structures(images)
    # DScribe puts G1 of each element before its four G2, and orders the functions in its own way.
    theirs = np.vstack(stages.values_by_dscribe(images)[0]())
    theirs = np.delete(theirs, 5 * np.arange(len(descriptor.elements)), axis=1)
    ours = descriptor.values(frames)
    np.testing.assert_allclose(np.sort(theirs), np.sort(ours), rtol=1e-9, atol=1e-12)
    measure(stages.values_by_dscribe, atoms, 2, ours=stages.fingerprints)
