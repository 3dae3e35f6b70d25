"""Stages of the benchmarks in another interpreter, see `server.py`."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from setups import ONE_THREAD, workload

SERVER = Path(__file__).with_name("server.py")
LONGEST_ANSWER = 900  # seconds


class RemoteError(Exception):
    """The other interpreter could not do what it was asked for; the message says why."""


class Remote:
    """A process of `python` that measures stages on request, with one thread.

    python : path of an interpreter in which `amptorch` is installed
    environment : {variable: value} beside those of this process, whose PYTHONPATH is not handed on

    `about` is what `workload.about` says there. RemoteError where the interpreter does not start,
    has no `amptorch`, or ends; after that, `prepare` starts a new process.
    """

    def __init__(self, python, environment=None):
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

    def prepare(self, module, stage, images, **options):
        """Make a stage ready to be measured, in place of the one before.

        module, stage : name of a file of stages, and of one in it
        images : list of ase.Atoms with energies and forces
        """
        if self._process.poll() is not None:
            self._start()
        records = [workload.frame_record(image) for image in images]
        self._ask("prepare", module=module, stage=stage, images=records, options=options)

    def seconds(self, repeats=1):
        """Seconds a frame of each of some repeats of the stage that was prepared last."""
        return self._ask("run", repeats=repeats)

    def close(self):
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def _start(self):
        with self._log.open("w") as log:
            try:
                self._process = subprocess.Popen(
                    [self.python, str(SERVER)],
                    env=self._environment,
                    cwd=self._folder.name,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            except OSError as error:
                raise RemoteError(f"{self.python} cannot be run: {error.strerror}") from error

    def _ask(self, what, **arguments):
        timer = threading.Timer(LONGEST_ANSWER, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps({"do": what, "with": arguments}) + "\n")
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
