"""Say how long a job will take, and how much memory and disk, from doing it with two samples."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from amptorch.config import Config
from amptorch.data.plan import GB, Plan, make_plan, sample_of
from amptorch.descriptor.base import BaseDescriptor
from amptorch.descriptor.construct import construct_descriptor
from amptorch.frames import Frames, elements_of
from amptorch.neighbors import neighbor_list
from amptorch.profiling.job import MD_TURN, Job
from amptorch.profiling.memory import own_memory
from amptorch.profiling.recorder import Recorder
from amptorch.reports import Stages, duration
from amptorch.store.sources import open_sources
from amptorch.training.prepare import with_elements, with_functions

# Frames of the larger of the two samples, and how many times larger it is: the difference of the
# two is free of what is done once.
SAMPLE = 192
RATIO = 6
# Shards that are held in memory while a store is made, and copies of one while it is written.
SHARDS_HELD = 3


@dataclass(frozen=True)
class Estimate:
    """Hold what a job will take: seconds of each phase, bytes of memory and on disk, and what is
    done about derivatives."""

    seconds: dict[str, float]
    memory: float
    disk: float
    derivatives: str

    def text(self) -> str:
        """Return it in words."""
        phases = ", ".join(f"{name} {duration(value)}" for name, value in self.seconds.items())
        return (
            f"this will take about {duration(sum(self.seconds.values()))} ({phases}), "
            f"{self.memory / 1e9:.1f} GB of memory and {self.disk / 1e9:.1f} GB in the output's "
            f"folder meanwhile; derivatives: {self.derivatives}"
        )


def estimate(job: Job) -> Estimate:
    """Return the Estimate of `job`. The kernels are compiled on the way."""
    large = max(2, min(SAMPLE, job.n_frames // 8))
    small = max(1, large // RATIO)
    images = sample(job.data, large)
    frames = Frames.from_atoms(images)
    descriptor = descriptor_of(job.config, frames)
    plan = _plan(job, frames, descriptor)
    kept = plan.stored_bytes if plan is not None and plan.derivatives == "stored" else 0.0
    # So few frames cannot be split, and small ones would all be stored.
    chosen = {"val_split": 0} | ({} if plan is None else {"derivatives": plan.derivatives})
    one_epoch = {**job.config["optim"], "epochs": 1}
    brief = replace(job, config={**job.config, "optim": one_epoch}, md_steps=MD_TURN)
    brief.run("compiling", Stages(), images[:1], **chosen)
    first, second = Recorder(own_memory), Recorder(own_memory)
    brief.run("small", first, images[:small], **chosen)
    brief.run("large", second, images, **chosen)
    seconds = {}
    for phase, taken in second.phases.items():
        each = max(0.0, taken - first.phases[phase]) / max(1, len(images) - small)
        seconds[phase] = taken + each * (job.n_frames - len(images))
    seconds["training"] *= job.config["optim"]["epochs"]
    seconds["dynamics"] = second.phases["dynamics"] * job.md_steps / brief.md_steps
    if job.in_memory:
        # Pairs are kept as vectors, shifts and indices; atoms as Atoms, arrays and fingerprints.
        pairs = 0 if kept else neighbor_list(frames, descriptor.cutoff).n_pairs
        each = (40 * pairs + 1000 * frames.n_atoms) / len(images)
        held, disk = each * job.n_frames + kept, 0.0
    else:
        files = Path(job.work, "large", "store").rglob("*.npy")
        sizes = [path.stat().st_size for path in files if "derivatives" not in path.parts]
        each = sum(sizes) / len(images)
        held, disk = each * min(job.n_frames, SHARDS_HELD * 512), each * job.n_frames + kept
    taken = max(point[1] for point in second.curve)
    about = "none" if plan is None else f"{plan.derivatives} ({plan.reason})"
    return Estimate(seconds, taken + held, disk, about)


def number_of_frames(data: str) -> int:
    """Return how many frames there are in `data`, a path."""
    return sum(map(len, open_sources(data)))


def sample(data: str, size: int) -> list[Atoms]:
    """Return at most `size` frames, spread over those in `data`, a path."""
    (source,) = open_sources(data)
    places = np.unique(np.linspace(0, len(source) - 1, min(size, len(source))).astype(int))
    return [get() for place in places for _, get in source.part(place, place + 1).read()]


def descriptor_of(config: dict[str, dict], frames: Frames) -> BaseDescriptor:
    """Return the descriptor that a configuration asks for, where it is to describe `frames`."""
    settings = Config.from_dict(config)
    settings = with_elements(settings, settings.dataset.elements or elements_of(frames))
    settings = with_functions(settings, lambda: frames)
    return construct_descriptor(settings.dataset.descriptor_setup)


def _plan(job: Job, frames: Frames, descriptor: BaseDescriptor) -> Plan | None:
    """Return the plan for the derivatives of all frames; None where there are no forces."""
    settings = Config.from_dict(job.config)
    options = settings.dataset
    if not settings.model.get_forces:
        return None
    return make_plan(
        descriptor,
        frames.select(sample_of(frames.counts)),
        job.n_frames,
        options.derivative_dtype,
        GB * options.memory_budget,
        options.derivatives,
    )
