"""Stages of the benchmarks in another interpreter: v1.0's, or that of another commit.

`Remote` starts `PYTHON remote.py`, which reads JSON lines from its input and answers each with a
line; what goes wrong ends that process. Any interpreter with some `amptorch` will do, so this file
keeps to Python 3.7. What the process writes goes to a folder of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import stages
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from one_thread import ONE_THREAD

STRUCTURE = ("numbers", "positions", "cell", "pbc")
# What decides which packages an interpreter imports: it must not import those of here.
PRIVATE = ("PYTHONPATH", "PYTHONHOME")


class RemoteError(Exception):
    """Say why the other interpreter could not do what it was asked for."""


class Remote:
    """Measure stages on request in a process of another interpreter, with one thread.

    python : path of an interpreter in which `amptorch` is installed
    environment : {variable: value} beside those of this process, whose PYTHONPATH is not handed on

    `about` is what the function of that name says there. RemoteError where the interpreter does not
    start, has no `amptorch`, or ends; after that, `prepare` starts a new process.
    """

    def __init__(self, python: str, environment: Mapping[str, str] | None = None) -> None:
        # Names are those of here; the process works in a folder of its own.
        found = shutil.which(python)
        if found is None:
            raise RemoteError(f"{python} is no program that can be run")
        self.python = os.path.abspath(found)
        inherited = {name: value for name, value in os.environ.items() if name not in PRIVATE}
        self._environment = {**inherited, **ONE_THREAD, **(environment or {})}
        self._folder = tempfile.TemporaryDirectory(prefix="amptorch-remote-")
        self._log = Path(self._folder.name) / "log"
        self._start()
        self.about = self._ask("about")

    def prepare(self, stage: str, images: Sequence[Atoms], **options: Any) -> None:
        """Make a function of `stages` with its options ready to be measured, in place of the one
        before."""
        if self._process.poll() is not None:
            self._start()
        records = [frame_record(image) for image in images]
        self._ask("prepare", stage=stage, images=records, options=options)

    def seconds(self, repeats: int = 1) -> list[float]:
        """Return the seconds a frame of each repeat of the stage that was prepared last."""
        return self._ask("run", repeats=repeats)

    def close(self) -> None:
        """End the process and remove its folder."""
        self._process.communicate()
        self._folder.cleanup()

    def _start(self) -> None:
        with self._log.open("w") as log:
            self._process: Any = subprocess.Popen(
                [self.python, os.path.abspath(__file__)],
                env=self._environment,
                cwd=self._folder.name,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                universal_newlines=True,
            )

    def _ask(self, what: str, **arguments: Any) -> Any:
        try:
            self._process.stdin.write(json.dumps([what, arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            said = self._log.read_text().strip().splitlines() or ["it said nothing"]
            raise RemoteError(f"{self.python} ended with {status}: {said[-1]}")
        return json.loads(line)


def frame_record(atoms: Atoms) -> dict[str, Any]:
    """Return a frame with its energy and forces in JSON's types, for any version of ASE."""
    record = {name: getattr(atoms, name).tolist() for name in STRUCTURE}
    record["energy"] = float(atoms.get_potential_energy())
    record["forces"] = atoms.get_forces().tolist()
    return record


def frame_of(record: dict[str, Any]) -> Atoms:
    """Return the ase.Atoms that `frame_record` was given, with its energy and forces."""
    atoms = Atoms(**{name: record[name] for name in STRUCTURE})
    forces = np.array(record["forces"])
    atoms.calc = SinglePointCalculator(atoms, energy=record["energy"], forces=forces)
    return atoms


def about() -> dict[str, Any]:
    """Return which `amptorch` is imported here, if it is the fork, and the versions it runs on."""
    import torch

    import amptorch

    return {
        "amptorch": getattr(amptorch, "__version__", None) or _version_beside(amptorch.__file__),
        "path": amptorch.__file__,
        "fork": importlib.util.find_spec("amptorch.kernels") is not None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def _version_beside(path: str) -> str:
    """Return the version of the `amptorch` installed in the same folder: there may be others."""
    try:
        from importlib.metadata import distributions
    except ImportError:  # Python 3.7
        return "of unknown version"
    folder = os.path.dirname(os.path.dirname(path))
    found = [one.version for one in distributions(name="amptorch", path=[folder])]
    return found[0] if found else "of unknown version"


def in_words(found: Mapping[str, Any]) -> str:
    """Return a line for people about the result of `about`."""
    name = "the fork of AMPTorch" if found["fork"] else "amptorch"
    return "{} {amptorch} in {path}, Python {python}, numpy {numpy}, torch {torch}".format(
        name, **found
    )


def remote_of(folder: Path | None = None, environment: Mapping[str, str] = {}) -> Remote:
    """Start this interpreter with the `amptorch` in a folder; by default that of this process.

    RemoteError where it imports another one.
    """
    import amptorch

    folder = folder or Path(amptorch.__file__).resolve().parents[1]
    remote = Remote(sys.executable, {"PYTHONPATH": str(folder), **environment})
    path = remote.about["path"]
    if folder not in Path(path).parents:
        remote.close()
        raise RemoteError(f"{path} is imported in place of that in {folder}")
    return remote


def seconds_of(call: Callable[[], object], repeats: int = 1) -> list[float]:
    """Return the seconds of each repeat of a call."""
    return timeit.repeat(call, "import gc; gc.enable()", number=1, repeat=repeats)


def main() -> None:
    """Do what `Remote` asks for, one stage at a time, in the other interpreter."""
    # What anything prints goes to the standard error, so that the answers stand alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    call: Any = None
    for line in sys.stdin:
        what, asked = json.loads(line)
        result = None
        if what == "about":
            result = about()
        elif what == "prepare":
            call = None  # lets go of what the stage before held
            images = [frame_of(record) for record in asked["images"]]
            call, n_frames = getattr(stages, asked["stage"])(images, **asked["options"])
            seconds_of(call, 2)  # what the second step of dynamics does is not what the first did
        else:
            result = [seconds / n_frames for seconds in seconds_of(call, asked["repeats"])]
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
