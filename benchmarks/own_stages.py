"""Stages of the work through this project's own interface, down to the contractions.

As in `public_stages`: each takes a list of ase.Atoms and returns a function that does the stage
once, and the number of frames that it treats. Threads are those of AMPTORCH_NUM_THREADS.
"""

import atexit
import shutil
import tempfile
from functools import cache

import numpy as np
from setups import CUTOFF, elements_of, functions, new_trainer


def structures(images, number=36):
    """(descriptor, Frames, NeighborList) of the images."""
    from amptorch.descriptor.Gaussian import Gaussian
    from amptorch.frames import Frames
    from amptorch.neighbors import neighbor_list

    frames = Frames.from_atoms(images, energies=True, forces=True)
    return (
        Gaussian(functions(number), elements_of(images)),
        frames,
        neighbor_list(frames, CUTOFF),
    )


def neighbors(images):
    """Neighbour search."""
    from amptorch.frames import Frames
    from amptorch.neighbors import neighbor_list

    frames = Frames.from_atoms(images)
    return lambda: neighbor_list(frames, CUTOFF), len(frames)


def fingerprints(images, number=36):
    """Values, neighbour search included."""
    descriptor, frames, _ = structures(images, number)
    return lambda: descriptor.values(frames), len(frames)


def derivatives(images, number=36, dtype="float64"):
    """Values and stored derivatives, neighbour search included."""
    descriptor, frames, _ = structures(images, number)
    dtype = np.dtype(dtype)
    return lambda: descriptor.values_and_derivatives(frames, dtype=dtype), len(frames)


def contraction(images, direction="forward", backend="stored", number=36, dtype="float64"):
    """Jᵀg (forward: forces) or J v (backward: their gradient), stored or recomputed."""
    from amptorch.descriptor.blocks import RecomputedDerivatives

    descriptor, frames, listed = structures(images, number)
    if backend == "stored":
        kept = descriptor.values_and_derivatives(frames, listed, dtype=np.dtype(dtype))[1]
    else:
        kept = RecomputedDerivatives(descriptor, frames, listed)
    columns = descriptor.n_features if direction == "forward" else 3
    given = np.random.default_rng(0).normal(size=(frames.n_atoms, columns))
    contract = kept.vjp if direction == "forward" else kept.jvp
    frame_ids = np.arange(len(frames))
    return lambda: contract(frame_ids, given), len(frames)


def fit_scaler(images, number=36):
    """Fitting the scaler of the fingerprints."""
    from amptorch.preprocessing import FeatureScaler

    descriptor, frames, listed = structures(images, number)
    values = descriptor.values(frames, listed)
    return lambda: FeatureScaler.from_arrays(values, frames.numbers), len(frames)


def scale(images, number=36):
    """Scaling fingerprints, and looking up the slopes for their derivatives."""
    from amptorch.preprocessing import FeatureScaler

    descriptor, frames, listed = structures(images, number)
    values = descriptor.values(frames, listed)
    scaler = FeatureScaler.from_arrays(values, frames.numbers)

    def call():
        scaler.transform_rows(values, frames.numbers)
        scaler.slope_rows(frames.numbers)

    return call, len(frames)


def batch(images, source="memory", number=36):
    """Assembling a batch of all the images, in a random order."""
    order = np.random.default_rng(0).permutation(len(images))
    if source == "memory":
        trainer = new_trainer(images, number)
        trainer.load()
        dataset = trainer.train_dataset
    else:
        from amptorch.data.from_store import StoreDataset

        setup = ("gaussian", functions(number), {"cutoff_func": "Cosine"}, elements_of(images))
        dataset = StoreDataset(packed(images, number), setup, derivatives="stored")
    return lambda: dataset.batch(order), len(images)


def reading(images, what="structures", number=36):
    """Reading all the images out of a store: structures and neighbour lists, fingerprints, or
    derivatives, which are contracted where they lie."""
    store = packed(images, number)
    descriptor = structures(images[:1], number)[0]
    frame_ids, name = np.arange(len(store)), descriptor.descriptor_setup_hash
    if what == "structures":
        return lambda: store.structures(frame_ids), len(store)
    if what == "fingerprints":
        return lambda: store.fingerprints(name, frame_ids), len(store)
    stored = store.derivatives(name, "float64")
    g = np.random.default_rng(0).normal(size=(store.n_atoms, descriptor.n_features))
    return lambda: stored.vjp(frame_ids, g), len(store)


def packed(images, number):
    """A FrameStore of the images with their derivatives, in a folder that goes with the process."""
    from amptorch.store import preprocess

    descriptor = structures(images[:1], number)[0]
    return preprocess(
        images,
        descriptor,
        tempfile.mkdtemp(dir=scratch()) + "/store",
        derivatives="stored",
        derivative_dtype="float64",
        verbose=False,
    )


@cache
def scratch():
    """A temporary folder that is removed at the end of the process."""
    folder = tempfile.mkdtemp(prefix="amptorch-benchmarks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
