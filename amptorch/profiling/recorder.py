"""Stage timers: who was at work for how long, thread by thread, each second counted once."""

import functools
import inspect
import threading
import time
from contextlib import contextmanager

OTHER = "other"
# Samples of memory a second: often enough for stages of a tenth of a second.
SAMPLES = 50


class Recorder:
    """Times stages within phases, and samples the memory meanwhile.

    `wrap(function, stage)` gives the function with a timer around it. A stage's time is its own:
    what timed functions take that are called inside counts for their stages. Outside of a phase
    nothing is counted. The thread that made the recorder is the main thread; its stages, with
    "other" for what no function claims, add up to the wall time of the phase.

    memory: function that gives the bytes this process uses, see `amptorch.profiling.memory`

    Attributes
    ----------
    phases : {phase: seconds}
    curve : [(seconds since the start, bytes, phase, stage)]; the stage is that of the main thread
    peaks : {(phase, stage): most bytes among the samples that fell into the stage}
    """

    def __init__(self, memory):
        self.phases = {}
        self.curve = []
        self.peaks = {}
        self.phase = None
        self._memory = memory
        self._local = threading.local()
        self._threads = []
        self._main = self._thread()
        self._start = time.perf_counter()

    def wrap(self, function, stage, whole=False):
        """`function` with its time counted for `stage`; with `whole`, that of all it calls too.

        Of a generator function, each step is timed.
        """
        if inspect.isgeneratorfunction(function):
            return self._wrap_generator(function, stage, whole)

        @functools.wraps(function)
        def timed(*args, **kwargs):
            thread = self._thread()
            if self.phase is None or thread.closed:
                return function(*args, **kwargs)
            thread.enter(stage, whole)
            try:
                return function(*args, **kwargs)
            finally:
                thread.leave(self.phase)

        return timed

    def _wrap_generator(self, function, stage, whole):
        @functools.wraps(function)
        def timed(*args, **kwargs):
            items = function(*args, **kwargs)
            advance = self.wrap(items.__next__, stage, whole)
            try:
                while True:
                    try:
                        item = advance()
                    except StopIteration:
                        return
                    yield item
            finally:
                items.close()

        return timed

    @contextmanager
    def __call__(self, phase):
        """The time inside counts for `phase`; phases follow each other."""
        done = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(phase, done), daemon=True)
        self.phase = phase
        start = time.perf_counter()
        self._main.enter(OTHER, False)
        sampler.start()
        try:
            yield
        finally:
            self._main.leave(phase)
            self.phases[phase] = time.perf_counter() - start
            self.phase = None
            done.set()
            sampler.join()

    def totals(self, background=False):
        """{(phase, stage): (seconds, calls)} of the main thread, or of all others together."""
        totals = {}
        for thread in self._threads:
            if (thread is self._main) is background:
                continue
            for key, (seconds, calls) in thread.totals.items():
                before = totals.get(key, (0.0, 0))
                totals[key] = (before[0] + seconds, before[1] + calls)
        return totals

    def _thread(self):
        thread = getattr(self._local, "thread", None)
        if thread is None:
            thread = self._local.thread = _Thread()
            self._threads.append(thread)
        return thread

    def _sample(self, phase, done):
        # Once at least, however short the phase.
        over = False
        while not over:
            used = self._memory()
            now = time.perf_counter() - self._start
            self.curve.append((now, used, phase, self._main.stage or OTHER))
            for thread in list(self._threads):
                stage = thread.stage
                if stage is not None:
                    key = phase, stage
                    self.peaks[key] = max(self.peaks.get(key, 0), used)
            over = done.wait(1 / SAMPLES)


class _Thread:
    """The stages that one thread is in, the innermost last, and its times."""

    def __init__(self):
        self.totals = {}
        self.stage = None
        self.closed = False
        self._stages = []
        self._seconds = []
        self._since = 0.0

    def enter(self, stage, whole):
        now = time.perf_counter()
        if self._seconds:
            self._seconds[-1] += now - self._since
        self._since = now
        self._stages.append(stage)
        self._seconds.append(0.0)
        self.stage = stage
        self.closed = whole

    def leave(self, phase):
        now = time.perf_counter()
        stage = self._stages.pop()
        seconds = self._seconds.pop() + now - self._since
        self._since = now
        self.stage = self._stages[-1] if self._stages else None
        self.closed = False
        total = self.totals.setdefault((phase, stage), [0.0, 0])
        total[0] += seconds
        # A stage that calls itself, such as a part of a store that asks its shards, is one call.
        total[1] += stage != self.stage


def cost_of_a_timer(repeats=1000, tries=20):
    """Seconds that a timer adds to a call: the least of several tries, which no other program
    disturbed."""

    def nothing():
        return None

    recorder = Recorder(lambda: 0)
    timed = recorder.wrap(nothing, "nothing")
    with recorder("calibration"):
        least = [min(_times(call, repeats, tries)) for call in (timed, nothing)]
    return max(0.0, least[0] - least[1]) / repeats


def _times(call, repeats, tries):
    for _ in range(tries):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        yield time.perf_counter() - start
