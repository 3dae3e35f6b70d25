"""What is profiled: the frames, the configuration, and what the work will take."""

import itertools
import json
import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from amptorch.config import to_json
from amptorch.profiling import workload
from amptorch.profiling.memory import own_memory
from amptorch.profiling.recorder import Recorder

# Frames of the larger of the two samples from which times are extrapolated, and how many times
# larger it is: the difference of the two is free of what is done once.
SAMPLE = 192
RATIO = 6
# Shards that are held in memory while a store is made, and copies of one while it is written.
SHARDS_HELD = 3


@dataclass(frozen=True)
class Job:
    """config: sections of AtomsTrainer without data; data: path; work: folder for everything that
    is made on the way; in_memory: no store is made."""

    config: dict
    data: str
    n_frames: int
    epochs: int
    md_steps: int
    work: Path
    in_memory: bool = False

    def settings(self, name, **dataset):
        """The configuration of one run, which keeps its files apart in work/`name`."""
        folder = self.work / name
        sections = {key: dict(section or {}) for key, section in self.config.items()}
        sections.setdefault("optim", {})["epochs"] = self.epochs
        sections["dataset"].update(dataset)
        if not self.in_memory:
            sections["dataset"]["store"] = str(folder / "store")
        quiet = {"run_dir": str(folder), "debug": False, "verbose": False}
        sections["cmd"] = {**sections.get("cmd", {}), **quiet}
        return sections

    def run(self, name, phase, data=None, **dataset):
        """What `workload.run` returns; phase: its context."""
        from amptorch.v1.trainer import AtomsTrainer

        (self.work / name).mkdir()
        with _quiet():
            return workload.run(
                self.settings(name, **dataset),
                data or self.data,
                self.md_steps,
                phase,
                AtomsTrainer.train,
            )

    def write(self, name, **dataset):
        """Path of a file of the same work, for workload.py in a process of its own."""
        (self.work / name).mkdir()
        path = self.work / f"{name}.json"
        content = {
            "config": self.settings(name, **dataset),
            "data": self.data,
            "md_steps": self.md_steps,
            "warm_up": True,
        }
        path.write_text(json.dumps(to_json(content)), encoding="utf8")
        return path


@contextmanager
def _quiet():
    """Without what the package reports of single runs."""
    logger = logging.getLogger("amptorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def generated(n_frames, path):
    """Write frames of `iron_water` to the trajectory `path`."""
    from ase.io import Trajectory

    from amptorch.datasets import iter_iron_water

    with Trajectory(path, "w") as trajectory:
        for atoms in tqdm(iter_iron_water(n_frames), "generating frames", n_frames, unit="frame"):
            trajectory.write(atoms)


def frames_of(data):
    """[(source, index)] of all frames in `data`, a path."""
    from amptorch.store.sources import open_sources

    return [(source, index) for source in open_sources(data) for index in range(len(source))]


def sample(frames, size):
    """`size` ase.Atoms spread over what `frames_of` gave."""
    places = np.linspace(0, len(frames) - 1, min(size, len(frames))).astype(int)
    chosen = [frames[place] for place in np.unique(places)]
    parts = [source.part(index, index + 1) for source, index in chosen]
    return [get() for part in parts for _, get in part.read()]


@dataclass(frozen=True)
class Estimate:
    """What a job will take: seconds of each phase, bytes of memory and on disk; `derivatives`, the
    plan of what is done about them, or None where there are no forces."""

    seconds: dict
    memory: float
    disk: float
    derivatives: object

    def text(self):
        """A sentence or two for people."""
        total = sum(self.seconds.values())
        phases = ", ".join(f"{name} {duration(value)}" for name, value in self.seconds.items())
        kept = ""
        if self.derivatives is not None:
            kept = f"; derivatives: {self.derivatives.derivatives} ({self.derivatives.reason})"
        return (
            f"this will take about {duration(total)} ({phases}), {self.memory / 1e9:.1f} GB of "
            f"memory and {self.disk / 1e9:.1f} GB in the output's folder meanwhile{kept}"
        )


def duration(seconds):
    """Such as "0.4 s", "25 s" or "3 min 20 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def estimate(job):
    """The Estimate of `job`, from doing it with two samples of its frames; the kernels are compiled
    on the way."""
    frames = frames_of(job.data)
    large = max(2, min(SAMPLE, job.n_frames // 8))
    small = max(1, large // RATIO)
    images = sample(frames, large)
    plan = _plan(job, images)
    # So few frames cannot be split, and small ones would all be stored.
    chosen = {"val_split": 0}
    if plan is not None:
        chosen["derivatives"] = plan.derivatives
    brief = replace(job, epochs=1, md_steps=workload.MD_TURN)
    brief.run("compiling", workload.Clock(), images[:1], **chosen)
    clocks = []
    for size in (small, len(images)):
        clocks.append(Recorder(own_memory))
        brief.run(f"sample-{size}", clocks[-1], images[:size], **chosen)
    seconds = {}
    for phase in workload.PHASES[:3]:
        first, second = (clock.phases[phase] for clock in clocks)
        each = max(0.0, second - first) / max(1, len(images) - small)
        seconds[phase] = second + each * (job.n_frames - len(images))
    seconds["training"] *= job.epochs
    seconds["dynamics"] = clocks[1].phases["dynamics"] * job.md_steps / brief.md_steps
    memory, disk = _sizes(job, images, plan, len(images))
    shutil.rmtree(job.work / f"sample-{len(images)}")
    taken = max([own_memory(), *(point[1] for point in clocks[1].curve)])
    return Estimate(seconds, taken + memory, disk, plan)


def _config(job):
    from amptorch.config import Config

    return Config.from_dict({**job.config, "dataset": {**job.config["dataset"], "raw_data": []}})


def descriptor_of(job, images):
    """The descriptor of the job's configuration; elements those of `images` where it names none."""
    from amptorch.descriptor.construct import construct_descriptor

    options = _config(job).dataset
    elements = options.elements or sorted(set(itertools.chain(*(a.symbols for a in images))))
    return construct_descriptor(
        (options.fp_scheme, options.fp_params, options.cutoff_params, elements)
    )


def _plan(job, images):
    from amptorch.data.plan import GB, make_plan, sample_of
    from amptorch.frames import Frames

    config = _config(job)
    if not config.model.get_forces:
        return None
    frames = Frames.from_atoms(images)
    return make_plan(
        descriptor_of(job, images),
        frames.select(sample_of(frames.counts)),
        job.n_frames,
        config.dataset.derivative_dtype,
        GB * config.dataset.memory_budget,
        config.dataset.derivatives,
    )


def _sizes(job, images, plan, n_sample):
    """Bytes of memory beyond what the samples took, and bytes on disk."""
    stored = plan is not None and plan.derivatives == "stored"
    kept = plan.stored_bytes if stored else 0.0
    data = Path(job.data)
    given = data.stat().st_size if data.is_relative_to(job.work) else 0.0
    if job.in_memory:
        from amptorch.frames import Frames
        from amptorch.neighbors import neighbor_list

        frames = Frames.from_atoms(images)
        pairs = neighbor_list(frames, descriptor_of(job, images).cutoff).n_pairs
        # Pairs are kept as vectors, shifts and indices; atoms as Atoms, arrays and fingerprints.
        each = (0 if stored else 40 * pairs) + 1000 * frames.n_atoms
        return kept + each / n_sample * job.n_frames, given
    folder = job.work / f"sample-{n_sample}" / "store"
    size = sum(path.stat().st_size for path in folder.rglob("*.npy"))
    derivatives = sum(path.stat().st_size for path in folder.glob("shards/*/derivatives/*/*.npy"))
    structures = (size - derivatives) / n_sample
    held = min(job.n_frames, SHARDS_HELD * 512) * structures
    return held, kept + structures * job.n_frames + given


@contextmanager
def output_folder(path, overwrite):
    """A new folder to write to, which becomes `path` at the end, in place of an old profile where
    `overwrite` says so. Nothing is left of it after an error.

    Raises FileExistsError where `path` is there and may not be replaced, FileNotFoundError or
    PermissionError where it cannot be made.
    """
    path = Path(path).absolute()
    if path.exists() and not (path / "report.json").is_file():
        raise FileExistsError(f"{str(path)!r} exists and is no profile; give another --out")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already; give --overwrite to replace it")
    unfinished = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
    unfinished.mkdir()
    try:
        yield unfinished
        if path.exists():
            shutil.rmtree(path)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
