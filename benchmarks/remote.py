"""Stages of the benchmarks in another interpreter: v1.0's, or that of another commit.

`Remote` starts `PYTHON remote.py`, which reads JSON lines from its input and answers each with a
line; what goes wrong ends that process. Any interpreter with some `amptorch` will do, so this file
keeps to Python 3.7. What the process writes goes to a folder of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import stages
from ase import Atoms
from one_thread import ONE_THREAD
from setups import workload

LONGEST_ANSWER = 900  # seconds


class RemoteError(Exception):
    """Say why the other interpreter could not do what it was asked for."""


class Remote:
    """Measure stages on request in a process of another interpreter, with one thread.

    python : path of an interpreter in which `amptorch` is installed
    environment : {variable: value} beside those of this process, whose PYTHONPATH is not handed on

    `about` is what `workload.about` says there. RemoteError where the interpreter does not start,
    has no `amptorch`, or ends; after that, `prepare` starts a new process.
    """

    def __init__(self, python: str, environment: Mapping[str, str] | None = None) -> None:
        # Names are those of here; the process works in a folder of its own.
        found = shutil.which(python)
        if found is None:
            raise RemoteError(f"{python} is no program that can be run")
        self.python = os.path.abspath(found)
        inherited = workload.environment_of_another()
        self._environment = {**inherited, **ONE_THREAD, **(environment or {})}
        self._folder = tempfile.TemporaryDirectory(prefix="amptorch-remote-")
        self._log = Path(self._folder.name) / "log"
        self._start()
        self.about = self._ask("about")

    def prepare(self, stage: str, images: Sequence[Atoms], **options: Any) -> None:
        """Make a function of `stages` ready to be measured, in place of the one before.

        images : frames with energies and forces
        options : those of the stage
        """
        if self._process.poll() is not None:
            self._start()
        records = [workload.frame_record(image) for image in images]
        self._ask("prepare", stage=stage, images=records, options=options)

    def seconds(self, repeats: int = 1) -> list[float]:
        """Return the seconds a frame of each repeat of the stage that was prepared last."""
        return self._ask("run", repeats=repeats)

    def close(self) -> None:
        """End the process and remove its folder."""
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def _start(self) -> None:
        with self._log.open("w") as log:
            try:
                self._process: Any = subprocess.Popen(
                    [self.python, os.path.abspath(__file__)],
                    env=self._environment,
                    cwd=self._folder.name,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    universal_newlines=True,
                )
            except OSError as error:
                raise RemoteError(f"{self.python} cannot be run: {error.strerror}") from error

    def _ask(self, what: str, **arguments: Any) -> Any:
        timer = threading.Timer(LONGEST_ANSWER, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps([what, arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            status = self._process.wait()
            said = self._log.read_text().strip().splitlines() or ["it said nothing"]
            raise RemoteError(f"{self.python} ended with {status}: {said[-1]}")
        return json.loads(line)


def remote_of(folder: Path | None = None, environment: Mapping[str, str] = {}) -> Remote:
    """Start this interpreter with the `amptorch` in a folder; by default that of this process.

    RemoteError where it imports another one.
    """
    if folder is None:
        import amptorch

        folder = Path(amptorch.__file__).resolve().parents[1]
    remote = Remote(sys.executable, {"PYTHONPATH": str(folder), **environment})
    path = remote.about["path"]
    if folder not in Path(path).parents:
        remote.close()
        raise RemoteError(f"{path} is imported in place of that in {folder}")
    return remote


def seconds_of(call: Callable[[], object], repeats: int) -> list[float]:
    """Return the seconds of each repeat of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


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
            result = workload.about()
        elif what == "prepare":
            call = None  # lets go of what the stage before held
            images = [workload.frame_of(record) for record in asked["images"]]
            call, n_frames = getattr(stages, asked["stage"])(images, **asked["options"])
            seconds_of(call, 2)  # what the second step of dynamics does is not what the first did
        else:
            result = [seconds / n_frames for seconds in seconds_of(call, asked["repeats"])]
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
