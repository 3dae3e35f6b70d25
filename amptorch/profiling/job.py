"""Hold the work to be profiled: its frames, its configuration, and how long it will take."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from amptorch.config import Config
from amptorch.plain import to_json
from amptorch.profiling import workload
from amptorch.profiling.memory import own_memory
from amptorch.profiling.recorder import Recorder
from amptorch.reports import duration

# Frames of the larger of the two samples from which times are extrapolated, and how many times
# larger it is: the difference of the two is free of what is done once.
SAMPLE = 192
RATIO = 6
# Shards that are held in memory while a store is made, and copies of one while it is written.
SHARDS_HELD = 3


@dataclass(frozen=True)
class Job:
    """Hold what is to be done.

    config: sections of AtomsTrainer without data; data: path; work: folder for all files that are
    made on the way; in_memory: no store is made.
    """

    config: dict[str, dict]
    data: str
    n_frames: int
    epochs: int
    md_steps: int
    work: Path
    in_memory: bool = False

    def title(self, tool: str) -> str:
        """Return the title of the report of a tool."""
        return f"Profile of {self.n_frames} frames: {tool}"

    def settings(self, name: str, **dataset: Any) -> dict[str, dict]:
        """Return the configuration of a run, which keeps its files apart in work/`name`."""
        folder = self.work / name
        folder.mkdir()
        sections = {key: dict(section) for key, section in self.config.items()}
        sections.setdefault("optim", {})["epochs"] = self.epochs
        sections["dataset"].update(dataset)
        if not self.in_memory:
            sections["dataset"]["store"] = str(folder / "store")
        sections.setdefault("cmd", {}).update(run_dir=str(folder), debug=False, verbose=False)
        return sections

    def run(
        self,
        name: str,
        phase: Callable[[str], AbstractContextManager],
        data: list[Atoms] | None = None,
        **dataset: Any,
    ) -> dict[str, Any]:
        """Do the work within `phase(name of the phase)`, and return the result of `workload.run`.

        data: frames in place of all; dataset: options in place of the configuration's.
        """
        from amptorch.v1.trainer import AtomsTrainer

        logger = logging.getLogger("amptorch")
        level = logger.level
        logger.setLevel(logging.WARNING)
        try:
            settings = self.settings(name, **dataset)
            train = AtomsTrainer.train
            return workload.run(settings, data or self.data, self.md_steps, phase, train)
        finally:
            logger.setLevel(level)

    def write(self, name: str, data: object = None) -> Path:
        """Write the job that workload.py does in a process of its own, and return the file's path.

        data: records of frames in place of the file's
        """
        config = self.settings(name)
        content = {"config": config, "data": data or self.data, "md_steps": self.md_steps}
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(to_json({**content, "warm_up": True})), encoding="utf8")
        return path


def generated(n_frames: int, path: str) -> None:
    """Write frames of `iron_water` to the trajectory `path`."""
    from ase.io import Trajectory

    from amptorch.datasets import iter_iron_water

    with Trajectory(path, "w") as trajectory:
        for atoms in tqdm(iter_iron_water(n_frames), "generating frames", n_frames, unit="frame"):
            trajectory.write(atoms)


def frames_of(data: str) -> list[tuple[Any, int]]:
    """Return [(source, index)] of all frames in `data`, a path."""
    from amptorch.store.sources import open_sources

    return [(source, index) for source in open_sources(data) for index in range(len(source))]


def sample(frames: Sequence[tuple[Any, int]], size: int) -> list[Atoms]:
    """Return `size` frames spread over those of `frames_of`."""
    places = np.linspace(0, len(frames) - 1, min(size, len(frames))).astype(int)
    chosen = [frames[place] for place in np.unique(places)]
    parts = [source.part(index, index + 1) for source, index in chosen]
    return [get() for part in parts for _, get in part.read()]


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
    """Return the Estimate of `job`, from doing it with two samples of its frames.

    The kernels are compiled on the way.
    """
    from amptorch.frames import Frames
    from amptorch.neighbors import neighbor_list

    large = max(2, min(SAMPLE, job.n_frames // 8))
    small = max(1, large // RATIO)
    images = sample(frames_of(job.data), large)
    frames, descriptor = Frames.from_atoms(images), descriptor_of(job.config, images)
    plan = _plan(job, frames, descriptor)
    stored = plan is not None and plan.derivatives == "stored"
    # So few frames cannot be split, and small ones would all be stored.
    chosen = {"val_split": 0} | ({} if plan is None else {"derivatives": plan.derivatives})
    brief = replace(job, epochs=1, md_steps=workload.MD_TURN)
    brief.run("compiling", workload.Clock(), images[:1], **chosen)
    clocks = [Recorder(own_memory), Recorder(own_memory)]
    for clock, size in zip(clocks, (small, len(images)), strict=True):
        brief.run(f"sample-{size}", clock, images[:size], **chosen)
    seconds = {}
    for phase in workload.PHASES[:3]:
        first, second = (clock.phases[phase] for clock in clocks)
        each = max(0.0, second - first) / max(1, len(images) - small)
        seconds[phase] = second + each * (job.n_frames - len(images))
    seconds["training"] *= job.epochs
    seconds["dynamics"] = clocks[1].phases["dynamics"] * job.md_steps / brief.md_steps
    kept = plan.stored_bytes if stored else 0.0
    if job.in_memory:
        # Pairs are kept as vectors, shifts and indices; atoms as Atoms, arrays and fingerprints.
        pairs = 0 if stored else neighbor_list(frames, descriptor.cutoff).n_pairs
        each = (40 * pairs + 1000 * frames.n_atoms) / len(images)
        held, disk = each * job.n_frames + kept, 0.0
    else:
        files = (job.work / f"sample-{len(images)}" / "store").rglob("*.npy")
        sizes = [path.stat().st_size for path in files if "derivatives" not in path.parts]
        each = sum(sizes) / len(images)
        held, disk = each * min(job.n_frames, SHARDS_HELD * 512), each * job.n_frames + kept
    data = Path(job.data)
    if data.is_relative_to(job.work):
        disk += data.stat().st_size
    taken = max([own_memory(), *(point[1] for point in clocks[1].curve)])
    about = "none" if plan is None else f"{plan.derivatives} ({plan.reason})"
    return Estimate(seconds, taken + held, disk, about)


def descriptor_of(config: dict[str, dict], images: Sequence[Atoms]) -> Any:
    """Return the descriptor of a configuration, by default for the elements of `images`."""
    from amptorch.descriptor.construct import construct_descriptor

    options = _checked(config).dataset
    elements = options.elements or sorted({symbol for atoms in images for symbol in atoms.symbols})
    setup = (options.fp_scheme, options.fp_params, options.cutoff_params, elements)
    return construct_descriptor(setup)


def _checked(config):
    return Config.from_dict({**config, "dataset": {**config["dataset"], "raw_data": []}})


def _plan(job, frames, descriptor):
    from amptorch.data.plan import GB, make_plan, sample_of

    config = _checked(job.config)
    if not config.model.get_forces:
        return None
    return make_plan(
        descriptor,
        frames.select(sample_of(frames.counts)),
        job.n_frames,
        config.dataset.derivative_dtype,
        GB * config.dataset.memory_budget,
        config.dataset.derivatives,
    )


@contextmanager
def output_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Make a new folder to write to, which becomes `path` at the end, in place of an old profile
    where `overwrite` is true. Nothing is left of it after an error.

    Raises FileExistsError where `path` is there and may not be replaced.
    """
    from amptorch.store.arrays import folder_when_complete

    path = Path(path).absolute()
    if path.exists() and not (path / "report.json").is_file():
        raise FileExistsError(f"{str(path)!r} exists and is no profile; give another --out")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already; give --overwrite to replace it")
    with folder_when_complete(path) as folder:
        yield folder
        if path.exists():
            shutil.rmtree(path)
