"""pytest-benchmark as this project uses it; `README.md` has the commands.

Every row is measured in turn with v1.0 where `--upstream-python` names an interpreter that has it.
The saved run to compare with is the user's newest, or else the one in `baseline/`.
"""

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from one_thread import ONE_THREAD

os.environ.update(ONE_THREAD)
import numpy as np
import pytest
from remote import Remote, RemoteError, in_words, seconds_of
from setups import iron_water_frames, machine, milliseconds, table

MOST_ROUNDS = 300
COLUMNS = ["median", "iqr", "min", "rounds"]
# v1.0 takes up to a second a frame; of these stages it is given one frame.
ONE_FRAME = ("values", "values_and_derivatives")
# The newest saved run that comes with this project.
SHIPPED_RUN = max(Path(__file__).parent.glob("baseline/*/*.json"), key=lambda path: path.name)


class Results:
    """Hold the rows of a run, and what did not work.

    `upstream` is what `Remote.about` says of the v1.0 that was measured, `compared` what the saved
    run is.
    """

    def __init__(self) -> None:
        # Name, seconds a frame (10, 50 and 90 %), and {program in turn with it: its seconds}.
        self.rows: list[tuple[str, Sequence[float], dict[str, float]]] = []
        self.problems: list[str] = []
        self.upstream: Mapping[str, Any] | None = None
        self.compared = "saved run: none"

    @contextlib.contextmanager
    def problems_kept(self) -> Iterator[None]:
        """Report at the end what fails in the other interpreter."""
        try:
            yield
        except RemoteError as error:
            self.problems.append(f"v1.0: {error}")

    def report(self) -> str:
        """Return tables in Markdown, and the labels of their columns."""
        other, label = "v1.0", "v1.0: not measured; --upstream-python does so"
        if self.upstream:
            # The fork itself may be there by mistake.
            other, mistaken = ("other copy", ", NOT v1.0") if self.upstream["fork"] else (other, "")
            found = in_words(self.upstream)
            label = f"{other}: measured in turn with ours in this run: {found}{mistaken}"
        lines = []
        for name, (low, now, high), beside in self.rows:
            cells = [name, milliseconds(now), f"{milliseconds(low)}-{milliseconds(high)}", "", ""]
            for program, seconds in beside.items():
                program = other if program == "v1.0" else program
                cells[3:] = f"{program}: {milliseconds(seconds)}", f"{seconds / now:.3g}"
            lines.append(cells)
        header = ("ms a frame", "now", "10-90 %", "in turn with it", "/ now")
        here = "now: this machine, one thread unless the row says more"
        parts = [table(header, lines), f"- {here}\n- {self.compared}\n- {label}"]
        parts += [f"not measured: {problem}" for problem in dict.fromkeys(self.problems)]
        return "\n\n".join(parts)


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


@pytest.fixture(scope="session")
def upstream(request: pytest.FixtureRequest) -> Iterator[Remote | None]:
    """Start the interpreter of --upstream-python, once; None where there is none."""
    python, results = request.config.getoption("--upstream-python"), request.config.stash[RESULTS]
    remote = None
    if python:
        with results.problems_kept():
            remote = Remote(python)
            results.upstream = remote.about
    yield remote
    if remote:
        remote.close()


@pytest.fixture
def measure(
    benchmark: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    upstream: Remote | None,
) -> Callable:
    """Return `measure(stage, atoms, n_images, v1=None, ours=None, **options)`, which measures a
    stage with so many frames of so many atoms.

    stage : function of `stages`, which gets the frames and the options
    v1 : name of the stage by which v1.0 does the same, on one thread
    ours : stage of ours that does the same as this one of another program

    There is one thread, unless the row is one of several.
    """
    option, results = request.config.option, request.config.stash[RESULTS]
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    threads = parameters.get("threads", 1)
    monkeypatch.setenv("AMPTORCH_NUM_THREADS", str(threads))

    def run(
        stage: Callable,
        atoms: int,
        n_images: int,
        v1: str | None = None,
        ours: Callable | None = None,
        **options: Any,
    ) -> None:
        images = iron_water_frames(atoms, n_images)
        call, n_frames = stage(images, **options)
        if not benchmark.enabled:
            benchmark(call)
            return
        program, other = "", None
        if ours:
            same, n_same = ours(images)
            program, other = "ours", lambda: seconds_of(same)[0] / n_same
        elif v1 and upstream and threads == 1:
            with results.problems_kept():
                some = images[:1] if v1 in ONE_FRAME else images
                upstream.prepare(v1, some, number=options.get("number", 36))
                program, other = "v1.0", lambda: upstream.seconds()[0]
        samples: list[float] = []
        # Before a round, after the next and so on: neither place is better, though the scheduler
        # interrupts a process more readily after a long call.
        turns = itertools.cycle((True, False, False, True))

        def in_turn() -> None:
            if other and next(turns):
                with results.problems_kept():
                    samples.append(other())

        for _ in range(2):  # what is compiled, or made once, is not measured
            start = time.perf_counter()
            in_turn()
            call()
            in_turn()
        samples.clear()
        most = float(option.benchmark_max_time) / (time.perf_counter() - start)
        rounds = max(option.benchmark_min_rounds, min(MOST_ROUNDS, int(most)))
        benchmark.group = request.node.originalname.removeprefix("test_")
        benchmark.pedantic(call, setup=in_turn, teardown=in_turn, rounds=rounds)
        beside = {program: median(samples)} if samples else {}
        benchmark.extra_info.update(frames=n_frames, beside=beside)
        seconds = np.quantile(benchmark.stats.stats.data, (0.1, 0.5, 0.9)) / n_frames
        results.rows.append((benchmark.name.removeprefix("test_"), seconds, beside))

    return run
