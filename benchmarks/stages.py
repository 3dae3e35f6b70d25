"""Stages of the work: what is measured.

Each takes a list of ase.Atoms with energies and forces and returns a function that does the stage
once, and the number of frames that it treats. What is not to be measured has been done before.
Threads are those of AMPTORCH_NUM_THREADS. The stages of the first half use v1.0's interface alone,
so that any `amptorch` can be measured; those of the second half this package's own.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from setups import CUTOFF, elements_of, functions, moving, new_trainer

if TYPE_CHECKING:
    Images = Sequence[Atoms]
    Stage = tuple[Callable[[], object], int]


# Removed at the end of the process.
SCRATCH = tempfile.TemporaryDirectory(prefix="amptorch-benchmark-")


def values(images: Images, number: int = 36, calc_derivatives: bool = False) -> Stage:
    """Compute fingerprints, neighbour search included, with `number` functions an atom."""
    from amptorch.dataset import construct_descriptor

    setup = ("gaussian", functions(number), {"cutoff_func": "Cosine"}, elements_of(images))
    descriptor = construct_descriptor(setup)
    options: Any = {"save_fps": False, "verbose": False, "cores": 1, "log": None}
    options["calc_derivatives"] = calc_derivatives
    return lambda: descriptor.prepare_fingerprints(images, **options), len(images)


def values_and_derivatives(images: Images, number: int = 36) -> Stage:
    """Compute fingerprints and the sparse matrix of their derivatives, from positions on."""
    return values(images, number, calc_derivatives=True)


def trained(images: Images, number: int = 36, **changes: Any) -> Any:
    """Return a trainer after an epoch, with a folder of its own; see `new_trainer` for `debug`."""
    changes = {"cmd__debug": False, "cmd__run_dir": tempfile.mkdtemp(dir=SCRATCH.name), **changes}
    trainer = new_trainer(images, number, **changes)
    trainer.train()
    return trainer


def epoch(images: Images, number: int = 36, batch_size: int = 8, **changes: Any) -> Stage:
    """Train an epoch on energies and forces, fingerprints and derivatives made before.

    Without its checkpoint, which takes the same for any number of frames.
    """
    trainer = trained(images, number, batch_size=batch_size, **changes)
    net, dataset = trainer.net, trainer.train_dataset
    kinds = [type(callback).__name__ for _, callback in net.callbacks_]
    kept = [not kind.endswith("Checkpoint") for kind in kinds]
    net.callbacks_ = list(itertools.compress(net.callbacks_, kept))
    return lambda: net.fit_loop(dataset, None, epochs=1), len(images)


def prediction(images: Images, number: int = 36) -> Stage:
    """Predict energies and forces of frames, from their positions on."""
    trainer = trained(images, number)
    return lambda: trainer.predict(images, disable_tqdm=True), len(images)


def calculator_step(
    images: Images, number: int = 36, repeat: Sequence[int] = (1, 1, 1), **options: Any
) -> Stage:
    """Compute energy and forces of a frame that moves as in dynamics, by the ASE calculator.

    repeat : numbers of copies of the frame along its cell, for a larger structure
    options : those of the calculator, which v1.0 has none of
    """
    from amptorch import AmpTorch

    trainer = trained(images, number)
    return moving(images[0].repeat(repeat), AmpTorch(trainer, **options)), 1


# From here on: this package's own interface.


def structures(images: Images, number: int = 36) -> tuple[Any, Any, Any]:
    """Return (descriptor, Frames, NeighborList) of the images."""
    from amptorch.descriptor.Gaussian import Gaussian
    from amptorch.frames import Frames
    from amptorch.neighbors import neighbor_list

    frames = Frames.from_atoms(images, energies=True, forces=True)
    descriptor = Gaussian(functions(number), elements_of(images))
    return descriptor, frames, neighbor_list(frames, CUTOFF)


def neighbors(images: Images) -> Stage:
    """Search neighbours."""
    from amptorch.neighbors import neighbor_list

    frames = structures(images)[1]
    return lambda: neighbor_list(frames, CUTOFF), len(frames)


def fingerprints(images: Images, number: int = 36) -> Stage:
    """Compute values, neighbour search included."""
    descriptor, frames, _ = structures(images, number)
    return lambda: descriptor.values(frames), len(frames)


def derivatives(images: Images, number: int = 36, dtype: str = "float64") -> Stage:
    """Compute values and stored derivatives, neighbour search included."""
    descriptor, frames, _ = structures(images, number)
    kept = np.dtype(dtype)
    return lambda: descriptor.values_and_derivatives(frames, dtype=kept), len(frames)


def gmp(images: Images, what: str = "values", **parameters: Any) -> Stage:
    """Compute GMP fingerprints: "values", or "values_and_derivatives"."""
    from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm

    compute = getattr(GMPOrderNorm(parameters, elements_of(images)), what)
    frames = structures(images)[1]
    return lambda: compute(frames), len(frames)


def contraction(
    images: Images,
    direction: str = "forward",
    backend: str = "stored",
    number: int = 36,
    dtype: str = "float64",
) -> Stage:
    """Contract to Jᵀg (forward: forces) or J v (backward: their gradient), stored or recomputed."""
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


def scale(images: Images, number: int = 36, fit: bool = False) -> Stage:
    """Scale fingerprints and look up the slopes for their derivatives; or fit the scaler."""
    from amptorch.preprocessing import FeatureScaler

    descriptor, frames, listed = structures(images, number)
    found, numbers = descriptor.values(frames, listed), frames.numbers
    scaler = FeatureScaler.from_arrays(found, numbers)

    def call() -> None:
        scaler.transform_rows(found, numbers)
        scaler.slope_rows(numbers)

    return (lambda: FeatureScaler.from_arrays(found, numbers)) if fit else call, len(images)


def batch(images: Images, source: str = "memory", number: int = 36) -> Stage:
    """Assemble a batch of all the images, in a random order, from memory or from a store."""
    order = np.random.default_rng(0).permutation(len(images))
    if source == "memory":
        trainer = new_trainer(images, number)
        trainer.load()
        dataset = trainer.train_dataset
    else:
        from amptorch.data.from_store import StoreDataset

        setup = ("gaussian", functions(number), {"cutoff_func": "Cosine"}, elements_of(images))
        dataset = StoreDataset(packed(images, number), setup, derivatives="stored")
    return lambda: dataset.__getitems__(order), len(images)


def reading(images: Images, what: str = "structures", number: int = 36) -> Stage:
    """Read all the images out of a store.

    what : "structures" with neighbour lists, "fingerprints", or "derivatives", which are contracted
        where they lie
    """
    store = packed(images, number)
    descriptor = structures(images[:1], number)[0]
    frame_ids, name = np.arange(len(store)), descriptor.descriptor_setup_hash
    g = np.random.default_rng(0).normal(size=(store.n_atoms, descriptor.n_features))
    stored = store.derivatives(name, "float64")
    calls: dict[str, Callable[[], object]] = {
        "structures": lambda: store.structures(frame_ids),
        "fingerprints": lambda: store.fingerprints(name, frame_ids),
        "derivatives": lambda: stored.vjp(frame_ids, g),
    }
    return calls[what], len(store)


def packed(images: Images, number: int) -> Any:
    """Make a FrameStore of the images and their derivatives, which goes with the process."""
    from amptorch.store import preprocess

    descriptor = structures(images[:1], number)[0]
    options = {"derivatives": "stored", "derivative_dtype": "float64", "verbose": False}
    return preprocess(images, descriptor, tempfile.mkdtemp(dir=SCRATCH.name), **options)


# Other programs, where they are installed.


def neighbors_by(images: Images, program: str) -> Stage:
    """Search neighbours by "ase", "matscipy" or "vesin".

    Of each frame the function returns centres, neighbours, vectors, and shifts of cells.
    """
    if program == "vesin":
        from vesin import NeighborList

        lists = NeighborList(cutoff=CUTOFF, full_list=True)
        arrays = [(image.positions, image.cell.array, True, "ijDS") for image in images]
        return lambda: [lists.compute(*one) for one in arrays], len(images)
    if program == "ase":
        from ase.neighborlist import neighbor_list as search
    else:
        from matscipy.neighbours import neighbour_list as search
    return lambda: [search("ijDS", image, CUTOFF) for image in images], len(images)


def values_by_dscribe(images: Images) -> Stage:
    """Compute the standard symmetry functions by DScribe, with a G1 before the G2 of an element.

    Of each frame the function returns an array (atoms, functions).
    """
    from dscribe.descriptors import ACSF

    descriptor = structures(images[:1])[0]
    rows = next(iter(descriptor.descriptor_setup.values()))
    acsf = ACSF(
        r_cut=CUTOFF,
        species=descriptor.elements,
        periodic=True,
        g2_params=np.unique(rows[rows[:, 0] == 2][:, 4:6], axis=0),
        g4_params=np.unique(rows[rows[:, 0] == 4][:, 4:7], axis=0),
    )
    return lambda: [acsf.create(image) for image in images], len(images)
