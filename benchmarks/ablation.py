"""Measure what each change gained: every one switched off in turn, the rest left on.

    python benchmarks/ablation.py [--json FILE] [--repeats N]

The package has no switches for this; it is done from outside: by another call, another table of
symmetry functions, v1.0's data objects in place of batches, an element mask as dense as v1.0's, or
kernels compiled with other settings of numba. Frames of 164 atoms, 36 functions, float64, one
thread unless threads are what is switched. With and without are measured in turns; a ratio is that
of the medians, its spread that of 80 % of the turns.
"""

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import stages
import torch
from measuring import in_turns, parser_of, write
from remote import remote_of
from setups import CUTOFF, ELEMENTS, functions, iron_water_frames, machine, new_trainer

from amptorch.dataset import DataCollater
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.model.loss import CustomLoss
from amptorch.neighbors import neighbor_list
from amptorch.threads import use_threads
from amptorch.v1.sparse import sparse_block_diag

N_FRAMES = 8
BATCH = 16
# Name; the change; what is measured; what is done without the change.
ROWS = """
lists; neighbour lists kept; fingerprints; a list for each element and call, as v1.0
lists, Jᵀg; neighbour lists kept; recomputed contraction Jᵀg; a list for each call
search; linear search; neighbour list; ASE's search
own η; functions in groups; BOTH; every G4 parameter set with an η of its own
one by one; functions in groups; BOTH; every function by itself
formula; polynomial for exp(−ηs) fc(√s); BOTH; the formula for every pair
moments; moments for G5; BOTH, G5 for G4; sums over pairs
values; values without derivatives; fingerprints; derivatives computed as well
forces; forces without J; Jᵀg of new positions; derivatives first, then their contraction
single; single precision; BOTH; double precision
threads; threads; BOTH on all cores; one thread
scalar; vector instructions; BOTH; LLVM's loop and SLP vectorisers off
SSE2; vector instructions; BOTH; vectors of two: any 64-bit PC (SSE2, no fused multiply-add)
AVX2; vector instructions; BOTH; vectors of four numbers: a PC of 2013 or later (AVX2)
batches; packed batches; assembling a batch of 16 frames; data objects joined, as v1.0
blocks; blocks of derivatives; contractions Jᵀg and J v; torch's sparse matrices, as v1.0
both; packed batches and blocks; a step of training; data objects and their sparse matrices
networks; a network for each element; network and gradients of a step; every network on every atom
float32; derivatives in float32; contractions Jᵀg and J v; float64
stored; derivatives stored; a step of training; recomputed in every step
dynamics; neighbour lists kept; energy and forces in dynamics; a list for each step
""".replace("BOTH", "fingerprints and derivatives")
# numba's settings for kernels compiled in other ways.
COMPILED = {
    "scalar": {"NUMBA_LOOP_VECTORIZE": "0", "NUMBA_SLP_VECTORIZE": "0"},
    "SSE2": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"},
}
Call = Callable[[], object]


class Pair(NamedTuple):
    """Hold a call with a change and without, the frames of a call, and the bytes kept a frame."""

    with_: Call
    without: Call
    frames: int = N_FRAMES
    bytes_: Sequence[float | None] = (None, None)


def single_functions(apart: bool = False) -> list[dict[str, Any]]:
    """List the standard functions; apart: each set of G4 with an η of its own shares nothing."""
    radial = [
        {"type": "G2", "element": element, "eta": eta, "Rs": 0.0}
        for element in ELEMENTS
        for eta in np.geomspace(0.05, 5.0, 4)
    ]
    angular = [
        {"type": "G4", "elements": pair, "eta": 0.005 + 5e-12 * apart * k, "zeta": z, "gamma": g}
        for k, (z, g) in enumerate(itertools.product((1.0, 4.0), (1.0, -1.0)))
        for pair in itertools.combinations_with_replacement(ELEMENTS, 2)
    ]
    return radial + angular


def described_by(rows: list[dict[str, Any]]) -> Gaussian:
    """Return a descriptor of single functions."""
    return Gaussian({"cutoff": CUTOFF, "default": rows}, ELEMENTS)


def with_g5() -> Gaussian:
    """Return a descriptor with G5 in place of G4."""
    default = functions()["default"]
    default["G5"] = {**default.pop("G4"), "etas": [0.02]}
    return Gaussian({"default": default}, ELEMENTS)


def without(descriptor: Gaussian, *fields: str) -> Gaussian:
    """Return the descriptor without shortcuts: zeros in its table of angular functions."""
    table = descriptor._functions
    zeros = {field: np.zeros_like(getattr(table.angular, field)) for field in fields}
    descriptor._functions = table._replace(angular=table.angular._replace(**zeros))
    return descriptor


def fingerprint_pairs() -> Iterator[tuple[str, Pair]]:
    """Give names of ROWS and calls, on neighbour lists and fingerprints."""
    images = iron_water_frames(164, N_FRAMES)
    descriptor, frames, neighbors = stages.structures(images)
    g = np.random.default_rng(0).normal(size=(frames.n_atoms, descriptor.n_features))

    def both(chosen: Gaussian = descriptor, threads: int = 1) -> Call:
        return lambda: chosen.values_and_derivatives(frames, neighbors, threads=threads)

    def values() -> None:
        descriptor.values(frames, neighbors)

    def values_with_lists() -> None:
        for _ in ELEMENTS:
            anew = neighbor_list(frames, CUTOFF)
        descriptor.values(frames, anew)

    def contracted() -> None:
        descriptor.vjp(frames, g, neighbors)

    def contracted_after() -> None:
        descriptor.values_and_derivatives(frames, neighbors)[1].vjp(np.arange(N_FRAMES), g)

    yield "lists", Pair(values, values_with_lists)
    yield "lists, Jᵀg", Pair(contracted, lambda: descriptor.vjp(frames, g))
    own, theirs = stages.neighbors(images[:1])[0], stages.neighbors_by(images[:1], "ase")[0]
    yield "search", Pair(own, theirs, 1)
    yield "own η", Pair(both(), both(described_by(single_functions(apart=True))))
    singles = [both(described_by([function])) for function in single_functions()]
    yield "one by one", Pair(both(), lambda: [call() for call in singles])
    yield "formula", Pair(both(), both(without(Gaussian(functions(), ELEMENTS), "polynomial")))
    yield "moments", Pair(both(with_g5()), both(without(with_g5(), "moments", "degree")))
    yield "values", Pair(values, both())
    yield "forces", Pair(contracted, contracted_after)
    yield "single", Pair(both(Gaussian(functions(), ELEMENTS, dtype=np.float32)), both())
    yield "threads", Pair(both(threads=os.cpu_count() or 1), both())


def compiled_pairs() -> Iterator[tuple[str, Pair]]:
    """Give those of kernels compiled in other ways, in processes with caches of their own."""
    images = iron_water_frames(164, N_FRAMES)
    with contextlib.ExitStack() as stack:

        def compiled(settings: dict[str, str]) -> Call:
            cache = stack.enter_context(tempfile.TemporaryDirectory())
            remote = remote_of(environment={**settings, "NUMBA_CACHE_DIR": cache})
            stack.callback(remote.close)
            remote.prepare("derivatives", images)
            return remote.seconds

        as_it_is = compiled({})
        for name, settings in COMPILED.items():
            yield name, Pair(as_it_is, compiled(settings))


def loaded(images: Sequence[Any], derivatives: str = "stored", dtype: str = "float64") -> Any:
    """Return a trainer with its data set and model."""
    trainer = new_trainer(images, dataset__derivatives=derivatives, dataset__derivative_dtype=dtype)
    trainer.load()
    return trainer


def dense_mask(model: Any) -> Any:
    """Give the model an element mask without zeros, as v1.0's is after a step of training."""
    state = model.state_dict()
    state["element_mask.mask.weight"] = state["element_mask.mask.weight"] + 1e-6
    model.load_state_dict(state)
    return model


def training_pairs() -> Iterator[tuple[str, Pair]]:
    """Give those on batches, contractions, steps of training and dynamics."""
    images, frame_ids = iron_water_frames(164, BATCH), np.arange(BATCH)
    trainer = loaded(images)
    dataset, model = trainer.train_dataset, trainer.model
    objects = [dataset[k] for k in range(BATCH)]
    loss, collater = CustomLoss(10.0), DataCollater(train=True, forcetraining=True)
    g = np.random.default_rng(0).normal(size=tuple(dataset.fingerprint.shape))
    v = np.random.default_rng(1).normal(size=(len(g), 3))
    matrix = sparse_block_diag([data.fprimes for data in objects]).coalesce()
    transposed = matrix.t().coalesce()

    def contract(back_end: Any) -> Call:
        return lambda: (back_end.vjp(frame_ids, g), back_end.jvp(frame_ids, v))

    def contract_sparse() -> None:
        torch.sparse.mm(transposed, torch.from_numpy(g.reshape(-1, 1)))
        torch.sparse.mm(matrix, torch.from_numpy(v.reshape(-1, 1)))

    def assemble(dataset: Any = dataset) -> Any:
        return dataset.__getitems__(frame_ids)

    def collate() -> Any:
        return collater(objects)[0]

    def step(make: Callable[[], Any], model: Any = model) -> Call:
        def call() -> None:
            model.zero_grad()
            batch = make()
            loss(model(batch), batch.targets).backward()

        return call

    yield "batches", Pair(assemble, collate, BATCH)
    blocks, single = dataset.derivatives, loaded(images, dtype="float32").train_dataset.derivatives
    size, coo = blocks.nbytes / BATCH, (matrix.indices().nbytes + matrix.values().nbytes) / BATCH
    yield "blocks", Pair(contract(blocks), contract_sparse, BATCH, (size, coo))
    yield "both", Pair(step(assemble), step(collate), BATCH)
    batch, dense = assemble(), dense_mask(loaded(images).model)
    yield "networks", Pair(step(lambda: batch), step(lambda: batch, dense), BATCH)
    sizes = single.nbytes / BATCH, size
    yield "float32", Pair(contract(single), contract(blocks), BATCH, sizes)
    other = loaded(images, "recompute").train_dataset
    sizes = size, other.derivatives.nbytes / BATCH
    yield "stored", Pair(step(assemble), step(lambda: assemble(other)), BATCH, sizes)
    kept, anew = stages.calculator_step(images)[0], stages.calculator_step(images, skin=0.0)[0]
    yield "dynamics", Pair(kept, anew, 1)


def measured(name: str, pair: Pair, repeats: int) -> dict[str, Any]:
    """Measure a pair; seconds are those of a frame."""
    calls = {"with": pair.with_, "without": pair.without}
    on, off = map(np.array, in_turns(calls, repeats, pair.frames).values())
    (line,) = (line for line in ROWS.splitlines() if line.startswith(f"{name}; "))
    texts = dict(zip(("change", "work", "off"), line.split("; ")[1:], strict=True))
    ratio = float(np.median(off) / np.median(on))
    print(*texts.values(), f"{ratio:.2f}", sep="; ", file=sys.stderr)
    return {
        **texts,
        "with": on.tolist(),
        "without": off.tolist(),
        "ratio": ratio,
        "spread": np.quantile(off / on, (0.1, 0.9)).tolist(),
        "bytes": list(pair.bytes_),
    }


def main() -> None:
    """Measure all pairs, and print their ratios."""
    options = parser_of(__doc__, repeats=15).parse_args()
    described, rows = machine(), []
    torch.set_num_threads(1)
    with use_threads(1):
        for pairs in (fingerprint_pairs, compiled_pairs, training_pairs):
            rows += [measured(name, pair, options.repeats) for name, pair in pairs()]
    write(options.json, described, rows=rows)


if __name__ == "__main__":
    main()
