"""Which functions of the package make up which stage. They know nothing of it: they are wrapped
from outside while a profile is taken."""

import importlib
import sys
from contextlib import contextmanager
from dataclasses import dataclass

WAITING = "waiting for threads"


@dataclass(frozen=True)
class Seam:
    """`name` in `module`, a function or Class.method (and what overrides it in subclasses), is of
    `stage`; with `whole`, so is all that it calls."""

    stage: str
    module: str
    name: str
    whole: bool = False


def _seams(stage, *names, whole=False):
    parts = (name.split(":") for name in names)
    return [Seam(stage, module, name, whole) for module, name in parts]


SEAMS = (
    *_seams(
        "reading files",
        "amptorch.store.sources:_reading",
        "amptorch.store.sources:_File.record",
        "amptorch.store.sources:Images.record",
        "amptorch.store.sources:find_elements",
        "amptorch.frames:read_images",
        "amptorch.profiling.workload:chunks_of",
    ),
    *_seams("memory plan", "amptorch.data.plan:make_plan", whole=True),
    *_seams("memory plan", "amptorch.data.fill:_sample_of_data", whole=True),
    *_seams(
        "checking frames",
        "amptorch.frames:Frames.from_atoms",
        "amptorch.store.shard:checked_frame",
        "amptorch.distances:check_distances",
        whole=True,
    ),
    *_seams("neighbour search", "amptorch.neighbors:neighbor_list"),
    *_seams("pair vectors", "amptorch.neighbors:NeighborList.moved"),
    *_seams("values", "amptorch.descriptor.base:BaseDescriptor.values"),
    *_seams(
        "values and derivatives", "amptorch.descriptor.base:BaseDescriptor.values_and_derivatives"
    ),
    *_seams("joining derivatives", "amptorch.descriptor.blocks:DerivativeBlocks.concatenate"),
    *_seams(
        "scaling",
        "amptorch.data.scalers:FeatureScaler.from_chunks",
        "amptorch.data.scalers:FeatureScaler.transform_rows",
        "amptorch.data.scalers:TargetScaler.from_arrays",
        "amptorch.data.scalers:TargetScaler.norm_energies",
        "amptorch.data.scalers:TargetScaler.norm_forces",
    ),
    *_seams(
        "writing to disk",
        "amptorch.store.arrays:ArrayWriter.append",
        "amptorch.store.arrays:write_json",
        "amptorch.store.writers:StructureWriter.add",
        "amptorch.store.writers:StructureWriter.write",
        "amptorch.store.writers:_DerivativeWriter.add",
    ),
    *_seams("preparing shards", "amptorch.store.shard:make_shard"),
    *_seams(
        "reading from disk",
        "amptorch.store.store:FrameStore.frames",
        "amptorch.store.store:FrameStore.structures",
        "amptorch.store.store:FrameStore.fingerprints",
        "amptorch.store.backends:StoredDerivatives.prepare",
    ),
    *_seams("comparing checksums", "amptorch.store.arrays:open_array"),
    *_seams(
        "batch assembly",
        "amptorch.data.in_memory:MemoryDataset.batch",
        "amptorch.data.from_store:StoreDataset.batch",
        "amptorch.data.batch:with_targets",
        "amptorch.data.from_store:StoreDataset.share",
        "amptorch.data.samplers:drawn_rows",
        "amptorch.data.samplers:with_forces_of",
        "amptorch.neighbors:NeighborList.select",
        "amptorch.potential:Potential.batch",
    ),
    *_seams(WAITING, "amptorch.data.loader:prefetched", "amptorch.store.build:_run_here"),
    *_seams("network, energies", "amptorch.model.atomic:AtomicModel._energies"),
    *_seams("network, ∂E/∂G", "amptorch.model.atomic:AtomicModel.forward"),
    *_seams(
        "force contraction, stored",
        "amptorch.descriptor.blocks:DerivativeBlocks.vjp",
        "amptorch.store.backends:StoredDerivatives.vjp",
    ),
    *_seams(
        "force contraction, recomputed", "amptorch.descriptor.blocks:RecomputedDerivatives.vjp"
    ),
    *_seams(
        "its backward, stored",
        "amptorch.descriptor.blocks:DerivativeBlocks.jvp",
        "amptorch.store.backends:StoredDerivatives.jvp",
    ),
    *_seams("its backward, recomputed", "amptorch.descriptor.blocks:RecomputedDerivatives.jvp"),
    *_seams("loss", "amptorch.training.net:PotentialNet.get_loss"),
    *_seams("network, backward", "torch:Tensor.backward"),
    *_seams("optimiser", "amptorch.training.net:PotentialNet.train_step"),
    *_seams("scores and callbacks", "amptorch.training.net:PotentialNet.notify"),
    *_seams(
        "training loop",
        "amptorch.training.net:PotentialNet.run_single_epoch",
        "amptorch.training.net:PotentialNet.train_step_single",
        "amptorch.training.net:PotentialNet.validation_step",
    ),
    *_seams(
        "writing checkpoints",
        "amptorch.checkpoints.folder:save_checkpoint",
        "amptorch.training.restart:EpochCheckpoint.on_epoch_end",
    ),
    *_seams("calculator", "amptorch.calculator:AmpTorch.calculate"),
)


def find(seam):
    """[(owner, attribute, what stands there)] of all places where a seam is to be wrapped.

    Raises AttributeError where there is no such function.
    """
    module = importlib.import_module(seam.module)
    holder, _, name = seam.name.rpartition(".")
    if not holder:
        function = getattr(module, name)
        # Others have imported it under its name.
        holders = [m for key, m in list(sys.modules.items()) if key.split(".")[0] == "amptorch"]
        return [(m, key, function) for m in holders for key in _names_of(m, function)]
    first = getattr(module, holder)
    found = [(first, name, vars(first).get(name, getattr(first, name)))]
    return found + [(cls, name, vars(cls)[name]) for cls in _below(first) if name in vars(cls)]


def _names_of(module, function):
    return [name for name, value in vars(module).items() if value is function]


def _below(cls):
    return [below for sub in cls.__subclasses__() for below in (sub, *_below(sub))]


@contextmanager
def wrapped(wrap, seams=SEAMS):
    """Within this context `wrap(function, stage, whole)` stands in place of every seam's function.

    Descriptors that are not imported yet are left as they are.
    """
    undo = []
    # Modules first: one that is imported later would come by what is wrapped already, and keep it.
    for seam in seams:
        importlib.import_module(seam.module)
    try:
        for seam in seams:
            for owner, name, value in find(seam):
                there = name in vars(owner)
                setattr(owner, name, _replaced(wrap, seam, value))
                undo.append((owner, name, value, there))
        yield
    finally:
        for owner, name, value, there in reversed(undo):
            if there:
                setattr(owner, name, value)
            else:
                delattr(owner, name)


def _replaced(wrap, seam, value):
    if isinstance(value, (classmethod, staticmethod)):
        return type(value)(wrap(value.__func__, seam.stage, seam.whole))
    return wrap(value, seam.stage, seam.whole)
