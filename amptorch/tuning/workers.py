"""Processes that run trials side by side, and what is done when one of them dies."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
Job = dict[str, Any]
# Deaths a worker, with no job done between them, after which the study ends with an error.
MAX_DEATHS = 3
MODULE = "amptorch.tuning.worker"
LAST_LINES = 12


class WorkerDied(Exception):
    """Tell that a worker ended in the middle of a job, and how."""


class Worker:
    """Run one worker process; its messages go to `logs/worker-<number>.log` of the study `out`.

    first: the first message to it; threads: that it may use
    """

    def __init__(self, out: Path, number: int, first: Job, threads: int = 1):
        self.log = Path(out) / "logs" / f"worker-{number}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        limits = [f"{name}_NUM_THREADS" for name in ("AMPTORCH", "OMP", "MKL", "OPENBLAS")]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(out), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **dict.fromkeys(limits, str(threads))},
                text=True,
            )
        self.do(first)

    def do(self, job: Job) -> Any:
        """Send a job and return the answer; raises WorkerDied where none comes."""
        process: Any = self.process
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return json.loads(answer)
        code = process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        lines = self.log.read_text(encoding="utf8", errors="replace").splitlines()
        end = "\n".join(lines[-LAST_LINES:])
        raise WorkerDied(f"the worker process {how}; the end of {self.log.name}:\n{end}")

    def stop(self) -> None:
        """Kill the process."""
        # A message that it never read is still in the pipe.
        with suppress(BrokenPipeError), self.process as process:
            process.kill()


class Workers:
    """Hold `number` worker processes for the study in `out`.

    first: the first message to each; died(pid, reason): called when one ended in a job; threads: of
    each
    """

    def __init__(
        self,
        out: Path,
        number: int,
        first: Job,
        died: Callable[[int, str], None],
        threads: int = 1,
    ):
        self.out, self.number, self.first, self.died = out, number, first, died
        self.threads = threads
        self._workers: dict[int, Worker] = {}
        self._lock = threading.Lock()
        self._deaths = 0
        self._stopped = False
        self._failure: str | None = None

    def close(self) -> None:
        """Kill all processes."""
        self._stopped = True
        with self._lock:
            for worker in self._workers.values():
                worker.stop()
            self._workers = {}

    def run(
        self, take: Callable[[], Job | None], done: Callable[[Job], None] = lambda job: None
    ) -> None:
        """Do the jobs that `take()` gives until it gives None, one at a time on each process.

        take: never called by two threads at once. done(job): called after each, also where
        its worker died. Raises RuntimeError where workers keep dying without doing anything.
        """
        threads = [
            threading.Thread(target=self._serve, args=(number, take, done), daemon=True)
            for number in range(self.number)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                # Without a limit, an interruption from the keyboard would wait for the thread.
                thread.join(0.2)
        if self._failure is not None:
            raise RuntimeError(self._failure)

    def _serve(
        self, number: int, take: Callable[[], Job | None], done: Callable[[Job], None]
    ) -> None:
        while not self._stopped and self._failure is None:
            with self._lock:
                job = take()
            if job is None:
                return
            try:
                self._worker(number).do(job)
                self._deaths = 0
            except WorkerDied as death:
                self._remove(number, str(death))
            done(job)

    def _worker(self, number: int) -> Worker:
        with self._lock:
            if self._stopped:
                raise WorkerDied("the study was stopped")
            worker = self._workers.get(number)
        if worker is None:
            worker = Worker(self.out, number, self.first, self.threads)
            with self._lock:
                self._workers[number] = worker
        return worker

    def _remove(self, number: int, reason: str) -> None:
        if self._stopped:
            return
        with self._lock:
            worker = self._workers.pop(number, None)
        if worker is not None:
            worker.stop()
            self.died(worker.process.pid, reason)
        self._deaths += 1
        if self._deaths >= MAX_DEATHS * self.number:
            self._failure = f"workers die again and again: {reason}"
