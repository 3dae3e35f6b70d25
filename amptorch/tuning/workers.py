"""Processes that run trials side by side, and what is done when one of them dies."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

logger = logging.getLogger(__name__)
# Workers that die one after the other before any job is done: something else is wrong.
PATIENCE = 3
MODULE = "amptorch.tuning.worker"
LAST_LINES = 12


class WorkerDied(Exception):
    """A worker ended in the middle of a job; the text says how."""


class Worker:
    """One process; `do(job)` waits for the answer."""

    def __init__(self, out, number, first):
        self.log = Path(out) / "logs" / f"worker-{number}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "AMPTORCH_NUM_THREADS": "1"}
        for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
            environment[f"{name}_NUM_THREADS"] = "1"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(out), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
            )
        self.pid = self.process.pid
        self.do(first)

    def do(self, job):
        """The answer to `job`; WorkerDied where there is none."""
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerDied(self._exit_report())
        return json.loads(answer)

    def _exit_report(self):
        code = self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        lines = self.log.read_text(encoding="utf8", errors="replace").splitlines()
        return f"the worker process {how}; the end of {self.log.name}:\n" + "\n".join(
            lines[-LAST_LINES:]
        )

    def stop(self):
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Workers:
    """`number` processes for the study in `out`.

    first: what each is told first. died(pid, reason): called when one ended in a job.
    """

    def __init__(self, out, number, first, died):
        self.out = out
        self.number = number
        self.first = first
        self.died = died
        self._workers = {}
        self._lock = threading.Lock()
        self._deaths = 0
        self._stopped = False
        self._failure = None

    def close(self):
        """End all processes, whatever they are doing."""
        self._stopped = True
        with self._lock:
            for worker in self._workers.values():
                worker.stop()
            self._workers = {}

    def run(self, take, done=lambda job: None):
        """Do the jobs that `take()` gives until it gives None, one at a time on each process.

        take: called with no other call of it going on. done(job): called after each, also where
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

    def _serve(self, number, take, done):
        while not self._stopped and self._failure is None:
            with self._lock:
                job = take()
            if job is None:
                return
            try:
                self._worker(number).do(job)
                self._deaths = 0
            except WorkerDied as death:
                self._replace_dead_worker(number, str(death))
            done(job)

    def _worker(self, number):
        with self._lock:
            if self._stopped:
                raise WorkerDied("the study was stopped")
            there = self._workers.get(number)
        if there is None:
            there = Worker(self.out, number, self.first)
            with self._lock:
                self._workers[number] = there
        return there

    def _replace_dead_worker(self, number, reason):
        if self._stopped:
            return
        with self._lock:
            worker = self._workers.pop(number, None)
        if worker is not None:
            worker.stop()
            self.died(worker.pid, reason)
        self._deaths += 1
        if self._deaths >= PATIENCE * self.number:
            self._failure = f"workers die again and again: {reason}"
