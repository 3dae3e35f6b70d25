"""What each change gained: every one switched off in turn, the rest left on.

    python benchmarks/ablation.py [--json FILE] [--repeats N]

The package has no switches for this. What is switched off is done from outside: another call (a
neighbour list made anew), another table of symmetry functions (each with an η of its own shares
nothing), v1.0's data objects in place of batches, an element mask that is dense as v1.0's, or
kernels compiled anew with other settings of numba in a process with a cache of its own. Frames of
164 atoms, 36 functions, float64, one thread unless threads are what is switched. With and without
are measured in turns; a ratio is that of the medians, its spread that of the turns.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from ase.neighborlist import neighbor_list as ase_list
from measurements import in_turns
from scaling import ELEMENTS, described_by
from setups import CUTOFF, cores, functions, iron_water_frames, machine, moving, new_trainer
from variants import VARIANTS, Workers

from amptorch import AmpTorch
from amptorch.dataset import DataCollater
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.model.loss import CustomLoss
from amptorch.neighbors import neighbor_list
from amptorch.threads import use_threads
from amptorch.v1.sparse import sparse_block_diag

N_FRAMES = 8
BATCH = 16


def row(change, work, without, calls, repeats, per=1, bytes_=(None, None)):
    """One row: `calls` is (with, without); seconds are divided by `per`."""
    results = in_turns(dict(zip(("with", "without"), calls, strict=True)), repeats)
    return entry(change, work, without, [r["wall"] for r in results], per, bytes_)


def entry(change, work, without, samples, per=1, bytes_=(None, None)):
    with_, without_ = (np.array(sample) / per for sample in samples)
    ratios = without_ / with_
    print(f"{change}, {work}: {np.median(without_) / np.median(with_):.2f}", file=sys.stderr)
    return {
        "change": change,
        "work": work,
        "off": without,
        "with": with_.tolist(),
        "without": without_.tolist(),
        "ratio": float(np.median(without_) / np.median(with_)),
        "spread": [float(q) for q in np.quantile(ratios, (0.1, 0.9))],
        "bytes": list(bytes_),
    }


class Fingerprints:
    """What the rows on fingerprints share."""

    def __init__(self):
        self.images = iron_water_frames(164, N_FRAMES)
        self.frames = Frames.from_atoms(self.images)
        self.descriptor = Gaussian(functions(), ELEMENTS)
        self.neighbors = neighbor_list(self.frames, CUTOFF)
        rng = np.random.default_rng(0)
        self.g = rng.normal(size=(self.frames.n_atoms, self.descriptor.n_features))

    def both(self, descriptor=None, threads=1):
        """A call that computes fingerprints and derivatives from the list that is there."""
        descriptor = descriptor or self.descriptor
        return lambda: descriptor.values_and_derivatives(
            self.frames, self.neighbors, threads=threads
        )

    def values(self, descriptor=None):
        descriptor = descriptor or self.descriptor
        return lambda: descriptor.values(self.frames, self.neighbors, threads=1)


def neighbor_rows(shared, repeats):
    frames, descriptor, g = shared.frames, shared.descriptor, shared.g

    def for_each_element():
        for _ in ELEMENTS:
            neighbors = neighbor_list(frames, CUTOFF, threads=1)
        descriptor.values(frames, neighbors, threads=1)

    yield row(
        "neighbour lists kept",
        "fingerprints",
        "a list for each element and call, as v1.0",
        (shared.values(), for_each_element),
        repeats,
        N_FRAMES,
    )
    yield row(
        "neighbour lists kept",
        "recomputed contraction Jᵀg",
        "a list for each call",
        (
            lambda: descriptor.vjp(frames, g, shared.neighbors, threads=1),
            lambda: descriptor.vjp(frames, g, threads=1),
        ),
        repeats,
        N_FRAMES,
    )
    one, image = frames[0], shared.images[0]
    yield row(
        "linear search",
        "neighbour list",
        "ASE's search",
        (lambda: neighbor_list(one, CUTOFF, threads=1), lambda: ase_list("ijDS", image, CUTOFF)),
        repeats,
    )


def one_by_one():
    """A descriptor for each single function: 12 G2 and 24 G4."""
    rows = described_by(4).Gs["default"]
    return [Gaussian({"cutoff": CUTOFF, "default": [row]}, ELEMENTS) for row in rows]


def without_moments(descriptor):
    """The descriptor with G5 summed over pairs, by its table of functions."""
    table = descriptor._functions
    angular = table.angular
    off = {"moments": np.zeros_like(angular.moments), "degree": np.zeros_like(angular.degree)}
    descriptor._functions = table._replace(angular=angular._replace(**off))
    return descriptor


def without_polynomial(descriptor):
    """The descriptor with w(s) = exp(−ηs) fc(√s) from the formula, by its table of functions."""
    table = descriptor._functions
    angular = table.angular._replace(polynomial=np.zeros_like(table.angular.polynomial))
    descriptor._functions = table._replace(angular=angular)
    return descriptor


def g5(eta=0.02):
    """Functions as in the standard set-up with G5 in place of G4."""
    default = {**functions()["default"]}
    default["G5"] = {**default.pop("G4"), "etas": [eta]}
    return Gaussian({"default": default}, ELEMENTS)


def kernel_rows(shared, repeats):
    singles = one_by_one()
    yield row(
        "functions in groups",
        "fingerprints and derivatives",
        "every G4 parameter set with an η of its own",
        (shared.both(), shared.both(described_by(4, apart=True))),
        repeats,
        N_FRAMES,
    )
    yield row(
        "functions in groups",
        "fingerprints and derivatives",
        "every function by itself",
        (shared.both(), lambda: [shared.both(single)() for single in singles]),
        max(3, repeats // 4),
        N_FRAMES,
    )
    yield row(
        "polynomial for exp(−ηs) fc(√s)",
        "fingerprints and derivatives",
        "the formula for every pair",
        (shared.both(), shared.both(without_polynomial(Gaussian(functions(), ELEMENTS)))),
        max(3, repeats // 2),
        N_FRAMES,
    )
    yield row(
        "moments for G5",
        "fingerprints and derivatives, G5 for G4",
        "sums over pairs",
        (shared.both(g5()), shared.both(without_moments(g5()))),
        repeats,
        N_FRAMES,
    )
    yield row(
        "values without derivatives",
        "fingerprints",
        "derivatives computed as well",
        (shared.values(), shared.both()),
        repeats,
        N_FRAMES,
    )
    yield row(
        "forces without J",
        "Jᵀg of new positions",
        "derivatives first, then their contraction",
        (
            lambda: shared.descriptor.vjp(shared.frames, shared.g, shared.neighbors, threads=1),
            lambda: shared.both()()[1].vjp(np.arange(N_FRAMES), shared.g, threads=1),
        ),
        repeats,
        N_FRAMES,
    )
    yield row(
        "single precision",
        "fingerprints and derivatives",
        "double precision",
        (shared.both(Gaussian(functions(), ELEMENTS, dtype=np.float32)), shared.both()),
        repeats,
        N_FRAMES,
    )
    if len(cores()) > 1:
        yield row(
            "threads",
            f"fingerprints and derivatives on {len(cores())} cores",
            "one thread",
            (shared.both(threads=len(cores())), shared.both()),
            repeats,
            N_FRAMES,
        )


def vectorisation_rows(repeats):
    """The kernels compiled in other ways, each in a process with a cache of its own."""
    with Workers() as workers:
        times = workers.measure(repeats)
        for name in list(VARIANTS)[1:]:
            yield {
                **entry(
                    "vector instructions",
                    "fingerprints and derivatives",
                    VARIANTS[name].what,
                    (times["as it is"], times[name]),
                ),
                "bits": workers.bits[name],
            }


class TorchSparse:
    """Derivative back end on torch's sparse matrices, as v1.0 contracts."""

    def __init__(self, matrix):
        self.matrix = matrix.coalesce()
        self.transposed = self.matrix.t().coalesce()

    def vjp(self, frame_ids, g):
        return torch.sparse.mm(self.transposed, torch.from_numpy(g.reshape(-1, 1))).view(-1, 3)

    def jvp(self, frame_ids, v):
        product = torch.sparse.mm(self.matrix, torch.from_numpy(v.reshape(-1, 1)))
        return product.view(len(v), -1)


class Training:
    """A data set in memory, its data objects, and a model."""

    def __init__(self):
        self.images = iron_water_frames(164, BATCH)
        self.trainer = self.trained("stored")
        self.dataset = self.trainer.train_dataset
        self.objects = [self.dataset[k] for k in range(BATCH)]
        self.loss = CustomLoss(10.0)

    def trained(self, derivatives, dtype="float64"):
        trainer = new_trainer(
            self.images, dataset__derivatives=derivatives, dataset__derivative_dtype=dtype
        )
        trainer.load()
        return trainer

    def batch(self, dataset=None):
        return (dataset or self.dataset).batch(np.arange(BATCH))

    def collated(self):
        return DataCollater(train=True, forcetraining=True)(self.objects)[0]

    def step(self, model, batch):
        """Loss and its gradient, as in a step of training."""
        model.zero_grad()
        self.loss(model(batch), batch.targets).backward()


def training_rows(repeats):
    shared = Training()
    dataset, model, batch = shared.dataset, shared.trainer.model, shared.batch()
    blocks = dataset.derivatives
    sparse = TorchSparse(sparse_block_diag([data.fprimes for data in shared.objects]))
    dense = dense_mask(shared.trained("stored").model)
    frames = np.arange(BATCH)
    g = np.random.default_rng(0).normal(size=tuple(dataset.fingerprint.shape))
    v = np.random.default_rng(1).normal(size=(len(g), 3))

    def contract(back_end):
        return lambda: (back_end.vjp(frames, g), back_end.jvp(frames, v))

    def step(dataset, model=model):
        return lambda: shared.step(model, shared.batch(dataset))

    coo_bytes = sum(
        data.fprimes.indices().nbytes + data.fprimes.values().nbytes for data in shared.objects
    )
    yield row(
        "packed batches",
        f"assembling a batch of {BATCH} frames",
        "data objects joined, as v1.0",
        (shared.batch, shared.collated),
        repeats,
        BATCH,
    )
    yield row(
        "blocks of derivatives",
        "contractions Jᵀg and J v",
        "torch's sparse matrices, as v1.0",
        (contract(blocks), contract(sparse)),
        repeats,
        BATCH,
        (blocks.nbytes / BATCH, coo_bytes / BATCH),
    )
    yield row(
        "packed batches and blocks",
        "a step of training",
        "data objects and their sparse matrices",
        (step(dataset), lambda: shared.step(model, shared.collated())),
        repeats,
        BATCH,
    )
    yield row(
        "a network for each element",
        "network and gradients of a step",
        "every network on every atom, as v1.0",
        (lambda: shared.step(model, batch), lambda: shared.step(dense, batch)),
        repeats,
        BATCH,
    )
    single = shared.trained("stored", "float32").train_dataset
    yield row(
        "derivatives in float32",
        "contractions Jᵀg and J v",
        "float64",
        (contract(single.derivatives), contract(blocks)),
        repeats,
        BATCH,
        (single.derivatives.nbytes / BATCH, blocks.nbytes / BATCH),
    )
    recompute = shared.trained("recompute").train_dataset
    yield row(
        "derivatives stored",
        "a step of training",
        "recomputed in every step",
        (step(dataset), step(recompute)),
        repeats,
        BATCH,
        (blocks.nbytes / BATCH, recompute.derivatives.nbytes / BATCH),
    )
    image = shared.images[0]
    yield row(
        "neighbour lists kept",
        "energy and forces in dynamics",
        "a list for each step",
        (
            moving(image, AmpTorch(shared.trainer)),
            moving(image, AmpTorch(shared.trainer, skin=0.0)),
        ),
        4 * repeats,
    )


def dense_mask(model):
    """The model with an element mask that has no zeros, as v1.0's is after a step of training."""
    state = model.state_dict()
    state["element_mask.mask.weight"] = state["element_mask.mask.weight"] + 1e-6
    model.load_state_dict(state)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    described_machine, start = machine(), time.perf_counter()
    torch.set_num_threads(1)
    shared = Fingerprints()
    rows = []
    with use_threads(1):
        rows += neighbor_rows(shared, options.repeats)
        rows += kernel_rows(shared, options.repeats)
        rows += vectorisation_rows(options.repeats)
        rows += training_rows(options.repeats)
    results = {
        "machine": described_machine,
        "command": "python benchmarks/ablation.py",
        "rows": rows,
        "seconds": time.perf_counter() - start,
    }
    text = json.dumps(results, indent=1)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf8")
    else:
        print(text)


if __name__ == "__main__":
    main()
