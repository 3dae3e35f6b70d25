"""pytest-benchmark as this project uses it; `README.md` has the commands.

Every row is measured in turn with v1.0 where `--upstream-python` names an interpreter that has it.
The saved run to compare with is the user's newest, or else the one in `baseline/`.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from one_thread import ONE_THREAD

os.environ.update(ONE_THREAD)
import pytest
from ase import Atoms
from remote import Remote, RemoteError
from setups import machine
from summary import SHIPPED_RUN, Results

MOST_ROUNDS = 300
COLUMNS = ["median", "iqr", "min", "rounds"]
# v1.0 takes up to a second a frame; of these stages it is given one frame.
ONE_FRAME = ("values", "values_and_derivatives")
RESULTS = pytest.StashKey[Results]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--upstream-python`."""
    parser.getgroup("benchmark").addoption(
        "--upstream-python",
        metavar="PYTHON",
        help="interpreter in which AMPTorch v1.0 is installed, to be measured in the same run",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let --benchmark-compare find the run that is shipped where the user has saved none."""
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("benchmarks need pytest-benchmark: pip install pytest-benchmark")
    from pytest_benchmark.utils import get_machine_id

    config.stash[RESULTS] = Results()
    option = config.option
    option.benchmark_columns = option.benchmark_columns or COLUMNS
    folder = Path(option.benchmark_storage.removeprefix("file://"))
    own_runs = folder.glob(f"{get_machine_id()}/[0-9][0-9][0-9][0-9]_*.json")
    if option.benchmark_compare is True and not any(own_runs):
        option.benchmark_compare = os.path.relpath(SHIPPED_RUN)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, str]:
    """Return what is saved of the machine."""
    return machine()


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: dict, compared_benchmark: dict
) -> None:
    """Leave it to the summary to name the saved run; pytest-benchmark would print all of both."""
    saved = compared_benchmark["machine_info"]
    cpu = saved.get("processor") or saved.get("CPU", "unknown machine").split(",")[0]
    elsewhere = "" if cpu == machine_info["processor"] else ", ANOTHER MACHINE"
    commit = compared_benchmark["commit_info"].get("id", "unknown")[:7]
    date = compared_benchmark["datetime"][:10]
    config.stash[RESULTS].compared = f"saved run: commit {commit}, {date}, {cpu}{elsewhere}"
    compared_benchmark["machine_info"] = machine_info


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the tables."""
    if config.stash[RESULTS].rows:
        terminalreporter.section("summary")
        terminalreporter.write_line(config.stash[RESULTS].report())


@pytest.fixture(autouse=True)
def threads_of_the_row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set one thread, unless the row is one of several."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    monkeypatch.setenv("AMPTORCH_NUM_THREADS", str(parameters.get("threads", 1)))


class Upstream:
    """Measure the v1.0 of --upstream-python; what fails there is reported at the end."""

    def __init__(self, python: str | None, results: Results) -> None:
        self.problems = results.problems
        self.remote = self.attempt(lambda: Remote(python)) if python else None
        results.upstream = self.remote and self.remote.about

    def stage(self, name: str, images: Sequence[Atoms], number: int) -> Callable[[], Any] | None:
        """Return a function that gives seconds a frame, or None where it fails; else None."""
        remote, images = self.remote, images[:1] if name in ONE_FRAME else images
        if remote is None:
            return None
        if self.attempt(lambda: remote.prepare(name, images, number=number) or True) is None:
            return None
        return lambda: self.attempt(lambda: remote.seconds()[0])

    def attempt(self, action: Callable[[], Any]) -> Any:
        """Return what the action returns; None where the other interpreter failed."""
        try:
            return action()
        except RemoteError as error:
            self.problems.append(f"v1.0: {error}")
            return None


@pytest.fixture(scope="session")
def upstream(request: pytest.FixtureRequest) -> Iterator[Upstream]:
    """Start the interpreter of --upstream-python, once."""
    found = Upstream(request.config.getoption("--upstream-python"), request.config.stash[RESULTS])
    yield found
    if found.remote:
        found.remote.close()


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest, upstream: Upstream) -> Callable:
    """Return `measure(stage, images, v1=None, ours=None, **options)`, which measures a stage.

    stage : function of `stages`, which gets the images and the options
    v1 : name of the stage by which v1.0 does the same
    ours : stage of ours that does the same as this one of another program
    """
    option, results = request.config.option, request.config.stash[RESULTS]

    def run(
        stage: Callable,
        images: Sequence[Atoms],
        v1: str | None = None,
        ours: Callable | None = None,
        **options: Any,
    ) -> None:
        call, n_frames = stage(images, **options)
        if not benchmark.enabled:
            benchmark(call)
            return
        others: dict[str, Callable[[], float | None]] = {}
        if ours:
            others["ours"] = timed(*ours(images))
        if v1 and (other := upstream.stage(v1, images, options.get("number", 36))):
            others["v1.0"] = other
        samples: dict[str, list[float]] = {name: [] for name in others}
        # Before a round, after the next and so on: neither place is better, though the scheduler
        # interrupts a process more readily after a long call.
        turns = itertools.cycle((True, False, False, True))

        def in_turn() -> None:
            if next(turns):
                for name, other in others.items():
                    if (seconds := other()) is not None:
                        samples[name].append(seconds)

        for _ in range(2):  # what is compiled, or made once, is not measured
            start = time.perf_counter()
            for once in (call, *others.values()):
                once()
        most = float(option.benchmark_max_time) / (time.perf_counter() - start)
        rounds = max(option.benchmark_min_rounds, min(MOST_ROUNDS, int(most)))
        benchmark.group = request.node.originalname.removeprefix("test_")
        benchmark.pedantic(call, setup=in_turn, teardown=in_turn, rounds=rounds)
        medians = {name: median(found) for name, found in samples.items() if found}
        benchmark.extra_info.update(frames=n_frames, beside=medians)
        seconds = sorted(value / n_frames for value in benchmark.stats.stats.data)
        row = {"name": benchmark.name.removeprefix("test_"), "median": median(seconds), **medians}
        row["range"] = [seconds[round(share * (len(seconds) - 1))] for share in (0.1, 0.9)]
        results.rows.append(row)

    return run


def timed(call: Callable[[], object], n_frames: int) -> Callable[[], float]:
    """Return a function that times a call plainly and returns its seconds a frame."""

    def once() -> float:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) / n_frames

    return once
