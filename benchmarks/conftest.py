"""pytest-benchmark as this project uses it; `README.md` has the commands.

Every row is measured in turn with a plain loop around the same call, and with v1.0 where
`--upstream-python` names an interpreter that has it. What to compare with is the user's newest
saved run, or else the one in `baseline/`.
"""

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from remote import Remote, RemoteError
from setups import ONE_THREAD, hardware
from summary import Baselines, Results, shipped_run

# Before numpy's and torch's libraries are loaded, which read them then.
os.environ.update(ONE_THREAD)

MOST_ROUNDS = 300
COLUMNS = ["median", "iqr", "min", "rounds"]
# v1.0 takes up to a second a frame; of these stages it is given one frame.
ONE_FRAME = ("values", "values_and_derivatives")
RESULTS = pytest.StashKey()
COMPARED = pytest.StashKey()


def pytest_addoption(parser):
    parser.getgroup("benchmark").addoption(
        "--upstream-python",
        metavar="PYTHON",
        help="interpreter in which AMPTorch v1.0 is installed, to be measured in the same run",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("benchmarks need pytest-benchmark: pip install pytest-benchmark")
    config.stash[RESULTS] = Results()
    config.option.benchmark_columns = config.option.benchmark_columns or COLUMNS
    if config.option.benchmark_compare is True and not own_runs(config) and shipped_run():
        config.option.benchmark_compare = os.path.relpath(shipped_run())


def own_runs(config):
    """Whether the user has saved a run that --benchmark-compare would find."""
    from pytest_benchmark.utils import get_machine_id

    folder = Path(config.option.benchmark_storage.removeprefix("file://"))
    return any(folder.glob(f"{get_machine_id()}/[0-9][0-9][0-9][0-9]_*.json"))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info(config):
    return hardware()


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(config, machine_info, compared_benchmark):
    config.stash[COMPARED] = dict(compared_benchmark)
    # The summary says which machines are compared; pytest-benchmark would print both in full.
    compared_benchmark["machine_info"] = machine_info


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    results = config.stash[RESULTS]
    if results.rows:
        baselines = Baselines(config.stash.get(COMPARED, None), results.upstream)
        terminalreporter.section("summary")
        terminalreporter.write_line(results.report(baselines, hardware()))


@pytest.fixture(autouse=True)
def threads_of_the_row(request, monkeypatch):
    """One thread, unless the row is one of several."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    monkeypatch.setenv("AMPTORCH_NUM_THREADS", str(parameters.get("threads", 1)))


class Upstream:
    """The v1.0 of --upstream-python, as far as it works; what does not is reported at the end."""

    def __init__(self, python, results):
        self.results = results
        self.remote = self.attempt(Remote, python) if python else None
        if self.remote:
            results.upstream = self.remote.about

    def stage(self, name, images, number=36):
        """The stage of `public_stages` as a function that returns its seconds a frame, or None
        where it fails; None where v1.0 is not there."""
        if self.remote is None or name is None:
            return None
        images = images[:1] if name in ONE_FRAME else images
        if self.attempt(self._prepare, name, images, number) is None:
            return None
        return lambda: self.attempt(lambda: self.remote.seconds()[0])

    def _prepare(self, name, images, number):
        self.remote.prepare("public_stages", name, images, number=number)
        return self.remote

    def attempt(self, action, *arguments):
        """What the action returns; None where the other interpreter failed."""
        try:
            return action(*arguments)
        except RemoteError as error:
            self.results.problems.append(f"v1.0: {error}")
            return None


@pytest.fixture(scope="session")
def upstream(request):
    found = Upstream(request.config.getoption("--upstream-python"), request.config.stash[RESULTS])
    yield found
    if found.remote:
        found.remote.close()


@pytest.fixture
def measure(benchmark, request, upstream):
    """Measures a stage: `measure(stage, images, v1=None, ours=None, **options)`.

    stage : function of `public_stages` or `own_stages`, which gets the images and the options
    v1 : name of the stage of `public_stages` by which v1.0 does the same
    ours : stage that does the same as this one of another program
    """
    option, results = request.config.option, request.config.stash[RESULTS]

    def run(stage, images, v1=None, ours=None, **options):
        call, n_frames = stage(images, **options)
        call()
        call()
        if not benchmark.enabled:
            benchmark(call)
            return
        others = {"plain loop": timed(call, n_frames)}
        if ours is not None:
            same, n_same = ours(images)
            same()
            others["ours"] = timed(same, n_same)
        if live := upstream.stage(v1, images, options.get("number", 36)):
            others["v1.0"] = live
        turns = InTurn(others)
        most = float(option.benchmark_max_time) / sum(
            timed(action, 1)() for action in (call, turns)
        )
        benchmark.group = request.node.originalname.removeprefix("test_")
        benchmark.pedantic(
            call,
            setup=turns.before,
            teardown=turns.after,
            rounds=max(option.benchmark_min_rounds, min(MOST_ROUNDS, int(most))),
        )
        row = results.add(benchmark, images, n_frames, turns.samples, options)
        benchmark.extra_info.update(row)

    return run


class InTurn:
    """Measures other things by turns before and after each round, so that neither has a place that
    is better: after a long call, say, the scheduler interrupts a process more readily.

    others : {name: function that returns seconds a frame, or None}
    """

    def __init__(self, others):
        self.others = others
        self.samples = {name: [] for name in others}
        self.count = 0

    def __call__(self):
        for name, other in self.others.items():
            if (seconds := other()) is not None:
                self.samples[name].append(seconds)

    def before(self):
        self.count += 1
        if self.count % 2:
            self()

    def after(self):
        if self.count % 2 == 0:
            self()


def timed(call, n_frames):
    """Plain timing of a call: a function that returns its seconds a frame."""

    def once():
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) / n_frames

    return once
