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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import stages
from ase import Atoms
from setups import ONE_THREAD, workload

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
            self._stdin.close()
            self._process.wait()
        self._stdout.close()
        self._folder.cleanup()

    def _start(self) -> None:
        with self._log.open("w") as log:
            try:
                self._process = subprocess.Popen(
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
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def _ask(self, what: str, **arguments: Any) -> Any:
        timer = threading.Timer(LONGEST_ANSWER, self._process.kill)
        timer.start()
        try:
            self._stdin.write(json.dumps({"do": what, "with": arguments}) + "\n")
            self._stdin.flush()
            line = self._stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            status = self._process.wait()
            said = self._log.read_text().strip().splitlines() or ["it said nothing"]
            raise RemoteError(f"{self.python} ended with {status}: {said[-1]}")
        return json.loads(line)


def remote_here(environment: Mapping[str, str]) -> Remote:
    """Start a process of this interpreter that imports the same `amptorch` as this one."""
    import amptorch

    folder = str(Path(amptorch.__file__).parents[1])
    return Remote(sys.executable, {"PYTHONPATH": folder, **environment})


class Server:
    """Do what `Remote` asks for, in the other interpreter: one stage at a time."""

    call: Any = None

    def about(self) -> dict[str, Any]:
        """Return which `amptorch` is measured here."""
        return workload.about()

    def prepare(self, stage: str, images: list[dict], options: dict[str, Any]) -> None:
        """Do the stage twice, so that everything is compiled.

        The second step of dynamics does what the first does not.
        """
        self.call = None  # lets go of what the stage before held
        frames = [workload.frame_of(image) for image in images]
        self.call, self.n_frames = getattr(stages, stage)(frames, **options)
        self.run(2)

    def run(self, repeats: int) -> list[float]:
        """Return the seconds a frame of each repeat."""
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.call()
            seconds.append((time.perf_counter() - start) / self.n_frames)
        return seconds


def main() -> None:
    """Answer one request after the other."""
    # What anything prints goes to the standard error, so that the answers stand alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = Server()
    for line in sys.stdin:
        request = json.loads(line)
        result = getattr(server, request["do"])(**request["with"])
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
