"""Measure the time of each stage in each thread, each second counted once."""

import functools
import inspect
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

OTHER = "other"
# Samples of memory a second: often enough for stages of a tenth of a second.
SAMPLES = 50


class Recorder:
    """Time stages within phases, and sample the memory meanwhile.

    `wrap(function, stage)` gives the function with a timer around it. A stage's time is its own:
    the time of timed functions that are called inside counts for their stages. Outside of a phase
    nothing is counted. The thread that made the recorder is the main thread; its stages, with
    "other" for the rest, add up to the wall time of the phase.

    memory: function that returns the bytes this process uses, see `amptorch.profiling.memory`

    Attributes
    ----------
    phases : {phase: seconds}
    curve : [(seconds since the start, bytes, phase, stage)]; the stage is that of the main thread
    peaks : {(phase, stage): most bytes among the samples that fell into the stage}
    """

    def __init__(self, memory: Callable[[], int]) -> None:
        self.phases: dict[str, float] = {}
        self.curve: list[tuple[float, int, str, str]] = []
        self.peaks: dict[tuple[str, str], int] = {}
        self.phase: str | None = None
        self._memory = memory
        self._local = threading.local()
        self._threads: list[_Thread] = []
        self._main = self._thread()
        self._start = time.perf_counter()

    def wrap(self, function: Callable, stage: str, whole: bool = False) -> Callable:
        """Return `function` with a timer; with `whole`, the time of all it calls counts too.

        Of a generator function, each step is timed.
        """

        @functools.wraps(function)
        def timed_steps(*args, **kwargs):
            with closing(function(*args, **kwargs)) as items:
                yield from iter(self.wrap(items.__next__, stage, whole), timed_steps)

        @functools.wraps(function)
        def timed(*args, **kwargs):
            thread = self._thread()
            if self.phase is None or thread.closed:
                return function(*args, **kwargs)
            with thread.within(self.phase, stage, whole):
                return function(*args, **kwargs)

        return timed_steps if inspect.isgeneratorfunction(function) else timed

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time inside for `phase`; phases follow each other."""
        done = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(phase, done), daemon=True)
        self.phase = phase
        try:
            with self._main.within(phase, OTHER):
                sampler.start()
                yield
        finally:
            # Of the same clock as the stages, which add up to it.
            own = [seconds for (at, _), (seconds, _) in self._main.totals.items() if at == phase]
            self.phases[phase] = sum(own)
            self.phase = None
            done.set()
            sampler.join()

    def totals(self, background: bool = False) -> dict[tuple[str, str], tuple[float, int]]:
        """Return {(phase, stage): (seconds, calls)} of the main thread, or of all others."""
        totals: dict[tuple[str, str], tuple[float, int]] = {}
        for thread in self._threads:
            if (thread is self._main) is not background:
                for key, (seconds, calls) in thread.totals.items():
                    before = totals.get(key, (0.0, 0))
                    totals[key] = before[0] + seconds, before[1] + calls
        return totals

    def _thread(self):
        if not hasattr(self._local, "thread"):
            self._local.thread = _Thread()
            self._threads.append(self._local.thread)
        return self._local.thread

    def _sample(self, phase, done):
        # Once at least, however short the phase.
        over = False
        while not over:
            used = self._memory()
            now = time.perf_counter() - self._start
            self.curve.append((now, used, phase, self._main.stage or OTHER))
            for stage in {thread.stage for thread in list(self._threads) if thread.stage}:
                self.peaks[phase, stage] = max(self.peaks.get((phase, stage), 0), used)
            over = done.wait(1 / SAMPLES)


class _Thread:
    """Hold the innermost stage that one thread is in, and its times."""

    def __init__(self):
        self.totals = {}
        self.stage = None
        self.closed = False
        self._inside = 0.0

    @contextmanager
    def within(self, phase: str, stage: str, whole: bool = False) -> Any:
        """Count the time inside for a stage, without that of the stages inside it."""
        outer, closed, inside = self.stage, self.closed, self._inside
        self.stage, self.closed, self._inside = stage, whole, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            seconds, calls = self.totals.get((phase, stage), (0.0, 0))
            # A stage that calls itself, such as a part of a store asking its shards, is one call.
            self.totals[phase, stage] = seconds + taken - self._inside, calls + (stage != outer)
            self.stage, self.closed, self._inside = outer, closed, inside + taken


def cost_of_a_timer(repeats: int = 1000, tries: int = 20) -> float:
    """Return the seconds that a timer adds to a call: the least of several tries, which no other
    program disturbed."""

    def nothing():
        return None

    recorder = Recorder(lambda: 0)
    with recorder("calibration"):
        timed, plain = (
            min(timeit.repeat(call, number=repeats, repeat=tries))
            for call in (recorder.wrap(nothing, "nothing"), nothing)
        )
    return max(0.0, timed - plain) / repeats
