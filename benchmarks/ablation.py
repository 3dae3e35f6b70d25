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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import stages
import torch
from remote import remote_of, seconds_of
from setups import (
    CUTOFF,
    ELEMENTS,
    functions,
    iron_water_frames,
    machine,
    new_trainer,
    parser_of,
    significant,
    table,
    write,
)
from threadpoolctl import threadpool_limits

from amptorch.dataset import DataCollater
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.model.loss import CustomLoss
from amptorch.neighbors import neighbor_list
from amptorch.threads import torch_threads, use_threads
from amptorch.v1.sparse import sparse_block_diag

N_FRAMES = 8
BATCH = 16
# Name; the change; what is measured; what is done without the change.
LINES = """
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
ROWS = {name: texts for name, *texts in (line.split("; ") for line in LINES.strip().splitlines())}
# numba's settings for kernels compiled in other ways.
COMPILED: dict[str, dict[str, str]] = {
    "as it is": {},
    "scalar": {"NUMBA_LOOP_VECTORIZE": "0", "NUMBA_SLP_VECTORIZE": "0"},
    "SSE2": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"},
}
Call = Callable[[], object]


class Pair(NamedTuple):
    """Hold a call with a change and without, and the frames of a call."""

    with_: Call
    without: Call
    frames: int = N_FRAMES


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

    def singly(rows: list[dict[str, Any]]) -> Call:
        return both(Gaussian({"cutoff": CUTOFF, "default": rows}, ELEMENTS))

    def values_with_lists() -> None:
        for _ in ELEMENTS:
            anew = neighbor_list(frames, CUTOFF)
        descriptor.values(frames, anew)

    def contracted_after() -> None:
        descriptor.values_and_derivatives(frames, neighbors)[1].vjp(np.arange(N_FRAMES), g)

    values = partial(descriptor.values, frames, neighbors)
    contracted = partial(descriptor.vjp, frames, g, neighbors)
    yield "lists", Pair(values, values_with_lists)
    yield "lists, Jᵀg", Pair(contracted, partial(descriptor.vjp, frames, g))
    own, theirs = stages.neighbors(images[:1])[0], stages.neighbors_by(images[:1], "ase")[0]
    yield "search", Pair(own, theirs, 1)
    yield "own η", Pair(both(), singly(single_functions(apart=True)))
    singles = [singly([function]) for function in single_functions()]
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
    calls: dict[str, Call] = {}
    with contextlib.ExitStack() as stack:
        for name, settings in COMPILED.items():
            cache = stack.enter_context(tempfile.TemporaryDirectory())
            remote = remote_of(environment={**settings, "NUMBA_CACHE_DIR": cache})
            stack.callback(remote.close)
            remote.prepare("derivatives", images)
            calls[name] = remote.seconds
        as_it_is = calls.pop("as it is")
        for name, call in calls.items():
            yield name, Pair(as_it_is, call)


def loaded(images: Sequence[Any], derivatives: str = "stored", dtype: str = "float64") -> Any:
    """Return a trainer with its data set and model."""
    trainer = new_trainer(images, dataset__derivatives=derivatives, dataset__derivative_dtype=dtype)
    trainer.load()
    return trainer


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

    def step(make: Callable[[], Any], model: Any = model) -> Call:
        def call() -> None:
            model.zero_grad()
            batch = make()
            loss(model(batch), batch.targets).backward()

        return call

    assemble, collate = partial(dataset.__getitems__, frame_ids), lambda: collater(objects)[0]
    yield "batches", Pair(assemble, collate, BATCH)
    blocks, single = dataset.derivatives, loaded(images, dtype="float32").train_dataset.derivatives
    yield "blocks", Pair(contract(blocks), contract_sparse, BATCH)
    yield "both", Pair(step(assemble), step(collate), BATCH)
    # An element mask without zeros, as v1.0's is after a step of training.
    batch, dense, state = assemble(), loaded(images).model, model.state_dict()
    dense.load_state_dict({k: v + 1e-6 if "element_mask" in k else v for k, v in state.items()})
    yield "networks", Pair(step(lambda: batch), step(lambda: batch, dense), BATCH)
    yield "float32", Pair(contract(single), contract(blocks), BATCH)
    other = loaded(images, "recompute").train_dataset
    yield "stored", Pair(step(assemble), step(partial(other.__getitems__, frame_ids)), BATCH)
    kept, anew = stages.calculator_step(images)[0], stages.calculator_step(images, skin=0.0)[0]
    yield "dynamics", Pair(kept, anew, 1)


def in_turns(pair: Pair, repeats: int) -> np.ndarray:
    """Return (2, repeats) seconds a frame of both calls, called once before the clock starts, then
    in turn, so that a change of the machine's load falls on both alike."""
    turns = range(1 + repeats)
    seconds = [[seconds_of(call)[0] for call in (pair.with_, pair.without)] for _ in turns]
    return np.array(seconds[1:]).T / pair.frames


def measured(name: str, pair: Pair, repeats: int) -> dict[str, Any]:
    """Measure a pair; seconds are those of a frame."""
    print(name, file=sys.stderr)
    on, off = in_turns(pair, repeats)
    return {
        **dict(zip(("change", "work", "off"), ROWS[name], strict=True)),
        "with": on.tolist(),
        "without": off.tolist(),
        "ratio": float(np.median(off) / np.median(on)),
        "spread": np.quantile(off / on, (0.1, 0.9)).tolist(),
    }


def ablation_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of what each change gained, in ms a frame."""
    lines = []
    for row in rows:
        times = [significant(1e3 * np.median(row[key])) for key in ("with", "without")]
        spread = "–".join(map(significant, row["spread"]))
        texts = [row["change"], row["work"], row["off"]]
        lines.append([*texts, *times, significant(row["ratio"]), spread])
    return table(("change", "measured on", "when off", "with", "without", "ratio", "spread"), lines)


def main() -> None:
    """Measure all pairs, and print their table."""
    options = parser_of(__doc__, repeats=15).parse_args()
    described, rows = machine(), []
    with use_threads(1), torch_threads(1), threadpool_limits(1):
        for pairs in (fingerprint_pairs, compiled_pairs, training_pairs):
            rows += [measured(name, pair, options.repeats) for name, pair in pairs()]
    print(ablation_table(rows))
    write(options.json, described, rows=rows)


if __name__ == "__main__":
    main()
