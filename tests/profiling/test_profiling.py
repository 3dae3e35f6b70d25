"""`amptorch profile`: its stage timers, the functions that they time, and the reports."""

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from amptorch.cli import main
from amptorch.datasets import iron_water
from amptorch.frames import Frames
from amptorch.profiling import kernel_lines, py_spy
from amptorch.profiling.command import settings_of
from amptorch.profiling.estimate import descriptor_of, sample
from amptorch.profiling.job import PHASES, Job
from amptorch.profiling.recorder import OTHER, Recorder, cost_of_a_timer
from amptorch.profiling.stages import STAGES, WAITING, find, wrapped
from amptorch.profiling.tables import overall, stage_rows

CONFIG = """
model: {hidden_layers: [4]}
optim: {force_coefficient: 1e-1, lr: 1e-2, batch_size: 2}
dataset:
  fp_scheme: gaussian
  save_fps: false
  fp_params:
    default: {cutoff: 4.0, G2: {etas: [1.0, 20.0], rs_s: [0.0]}}
"""


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """A small job: six frames, one epoch, few symmetry functions, kernels on one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else the command sets it, for all later tests
    monkeypatch.setenv("AMPTORCH_NUM_THREADS", "1")
    write(tmp_path / "frames.traj", iron_water(6, max_water=2))
    (tmp_path / "config.yaml").write_text(CONFIG)
    options = ["--data", tmp_path / "frames.traj", "--config", tmp_path / "config.yaml"]
    return [*options, "--epochs", 1, "--steps", 4, "--out", tmp_path / "out"]


def run(*arguments):
    """Exit code of `amptorch profile`."""
    with pytest.raises(SystemExit) as exit_info:
        main(["profile", *map(str, arguments)])
    return exit_info.value.code or 0


def report(folder):
    return json.loads((folder / "report.json").read_text())


# --- the recorder ---


def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_stage_has_its_own_time_alone():
    recorder = Recorder(lambda: 7)
    inner = recorder.wrap(lambda: busy(0.03), "inner")

    def both():
        busy(0.01)
        inner()
        inner()

    outer = recorder.wrap(both, "outer")
    outer()  # outside of a phase nothing is counted
    with recorder("work"):
        outer()
        busy(0.02)
    totals = recorder.totals()
    assert {key[1]: calls for key, (_, calls) in totals.items()} == {
        "inner": 2,
        "outer": 1,
        OTHER: 1,
    }
    assert sum(seconds for seconds, _ in totals.values()) == pytest.approx(
        recorder.phases["work"], abs=1e-3
    )
    assert totals["work", "inner"][0] > totals["work", OTHER][0] > totals["work", "outer"][0]
    assert recorder.peaks["work", "inner"] == 7


def test_errors_generators_and_stages_as_wholes():
    recorder = Recorder(lambda: 0)
    inner = recorder.wrap(lambda: busy(0.001), "inner")
    whole = recorder.wrap(lambda: inner(), "whole", whole=True)

    def steps():
        yield 1
        yield 2

    def fail():
        raise KeyError("wrong")

    with recorder("work"):
        assert list(recorder.wrap(steps, "steps")()) == [1, 2]
        with pytest.raises(KeyError):
            recorder.wrap(fail, "failing")()
        whole()
    calls = {stage: calls for (_, stage), (_, calls) in recorder.totals().items()}
    assert calls == {"steps": 3, "failing": 1, "whole": 1, OTHER: 1}


def test_waiting_is_divided_among_what_other_threads_did():
    recorder = Recorder(lambda: 0)
    first = recorder.wrap(lambda: busy(0.02), "first")
    second = recorder.wrap(lambda: busy(0.06), "second")

    def background():
        first()
        second()

    thread = threading.Thread(target=background)

    def wait():
        thread.start()
        thread.join()

    with recorder("work"):
        recorder.wrap(wait, WAITING)()
        busy(0.01)
    rows = {row.stage: row for row in stage_rows(recorder, {"work": 10})}
    assert sum(row.share for row in rows.values()) == pytest.approx(1, abs=1e-3)
    assert rows[WAITING].share == 0
    assert rows["first"].seconds == 0
    assert 0 < rows["first"].share < rows["second"].share
    assert rows["second"].per_atom == pytest.approx(
        1e6 * rows["second"].share * recorder.phases["work"] / 10
    )
    together = overall(list(rows.values()), recorder.phases)
    assert sum(row.share for row in together) == pytest.approx(1, abs=1e-3)


def test_the_timers_cost_is_measured():
    assert cost_of_a_timer(200) > 0


# --- the functions of the stages ---

FUNCTIONS = [function for functions in STAGES.values() for function in functions]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_of_a_stage_is_there(function):
    for _, _, value in find(function):
        assert callable(getattr(value, "__func__", value))
    assert find(function)


def test_a_renamed_function_is_missed():
    with pytest.raises(AttributeError, match="no_such_name"):
        find("amptorch.neighbors:no_such_name")
    with pytest.raises(AttributeError, match="no_such_name"):
        find("amptorch.neighbors:NeighborList.no_such_name")


def test_functions_are_left_as_they_were():
    from amptorch.descriptor.Gaussian import Gaussian
    from amptorch.frames import Frames
    from amptorch.training.net import PotentialNet

    def state():
        found = [place for function in FUNCTIONS for place in find(function)]
        return [*found, vars(Frames)["from_atoms"], "train_step" in vars(PotentialNet)]

    before = state()
    with wrapped(Recorder(lambda: 0).wrap):
        assert state() != before
        assert hasattr(Gaussian.values, "__wrapped__")
        assert isinstance(vars(Frames)["from_atoms"], classmethod)
        with pytest.raises(ZeroDivisionError), wrapped(Recorder(lambda: 0).wrap):
            raise ZeroDivisionError
    assert state() == before


# --- the command ---


@pytest.mark.slow
def test_stages_of_a_whole_job(arguments, tmp_path, capsys):
    assert run(*arguments) == 0
    told = capsys.readouterr().out
    assert "this will take about" in told
    assert "GB of memory" in told
    assert "force contraction" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html",
        "report.json",
    ]
    found = report(tmp_path / "out")
    assert list(found["seconds"]) == list(PHASES)
    assert found["frames"] == 6
    assert found["epochs"] == 1
    stages = {(row["phase"], row["stage"]): row for row in found["stages"]}
    for phase in PHASES:
        assert sum(row["share"] for (at, _), row in stages.items() if at == phase) == (
            pytest.approx(1, abs=1e-9)
        )
        own = sum(row["seconds"] for (at, _), row in stages.items() if at == phase)
        assert own == pytest.approx(found["seconds"][phase])
    assert sum(row["share"] for row in found["all_phases"]) == pytest.approx(1, abs=1e-9)
    for place in (
        ("preprocessing", "neighbour search"),
        ("preprocessing", "values and derivatives"),
        ("preprocessing", "writing to disk"),
        ("preprocessing", "scaling"),
        ("training", "batch assembly"),
        ("training", "network, energies"),
        ("training", "force contraction, stored"),
        ("training", "its backward, stored"),
        ("training", "network, backward"),
        ("training", "optimiser"),
        ("training", "reading from disk"),
        ("training", "writing checkpoints"),
        ("prediction", "values"),
        ("dynamics", "calculator"),
    ):
        assert stages[place]["calls"] > 0, place
    assert stages["training", "optimiser"]["calls"] == 3
    assert found["environment"]["logical cores"] > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "src=" not in page
    assert "<?xml" not in page
    assert found["environment"]["processor"] in page


@pytest.mark.slow
def test_memory_in_memory_and_a_folder_that_is_there(arguments, tmp_path, capsys):
    options = [*arguments, "--tool", "memory", "--in-memory", "--frames", 4]
    assert run(*options) == 0
    found = report(tmp_path / "out")
    assert found["frames"] == 4
    assert len(found["memory"]) > 0
    assert all(used > 1e6 for _, used, *_ in found["memory"])
    assert ">USS<" in (tmp_path / "out" / "report.html").read_text()
    assert run(*options) == 1
    assert "exists already; give another --out" in capsys.readouterr().err
    assert report(tmp_path / "out") == found


@pytest.mark.slow
def test_cprofile(arguments, tmp_path):
    assert run(*arguments, "--tool", "cprofile") == 0
    assert (tmp_path / "out" / "cprofile.pstats").stat().st_size > 0
    assert "job.py" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_lines_of_python_and_of_kernels(arguments, tmp_path):
    pytest.importorskip("line_profiler")
    assert run(*arguments, "--tool", "line") == 0
    python, kernels = ((tmp_path / "out" / f"{name}lines.txt") for name in ("", "kernel_"))
    assert "def neighbor_list(" in python.read_text()
    text = kernels.read_text()
    assert "def search_frames(" in text
    assert "@njit" in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "def search_frames(" in page


@pytest.mark.slow
def test_a_flame_graph(arguments, tmp_path):
    program = shutil.which("py-spy") or shutil.which(Path(sys.executable).with_name("py-spy"))
    if program is None:
        pytest.skip("py-spy is not installed")
    work = tmp_path / "work"
    work.mkdir()
    config = settings_of(tmp_path / "config.yaml", epochs=1)
    job = Job(config, str(tmp_path / "frames.traj"), n_frames=6, md_steps=2, work=str(work))
    try:
        # Native frames take several times as long.
        result = py_spy.record(program, job, tmp_path / "flame.svg", native=False)
    except ChildProcessError as error:
        if "forbids py-spy" not in str(error):
            raise
        pytest.skip("the system forbids py-spy to look into other processes")
    assert result["frames"] == 6
    assert "<svg" in (tmp_path / "flame.svg").read_text()


FAKE = """#!/bin/sh
while [ "$1" != -- ]; do
    [ "$1" = --output ] && echo "<svg/>" > "$2"
    shift
done
shift
exec "$@"
"""


@pytest.mark.slow
def test_py_spys_process_finds_the_package_and_frames_at_a_relative_path(
    arguments, tmp_path, monkeypatch
):
    fake = tmp_path / "py-spy"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    monkeypatch.setattr(py_spy.shutil, "which", lambda *_, **__: str(fake))
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, "--data", "frames.traj", "--tool", "py-spy") == 0
    found = report(tmp_path / "out")
    assert list(found["seconds"]) == list(PHASES)
    assert found["frames"] == 6
    assert "<svg/>" in (tmp_path / "out" / "report.html").read_text()


def test_a_configuration_of_recommended_defaults(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "defaults: recommended\noptim:\ndataset: {raw_data: elsewhere.traj, store: elsewhere}"
    )
    config = settings_of(tmp_path / "config.yaml", epochs=3)
    assert config["optim"]["epochs"] == 3
    assert config["optim"]["total_seconds"] is None
    assert not {"raw_data", "store"} & set(config["dataset"])
    frames = Frames.from_atoms(iron_water(2, max_water=2))
    assert descriptor_of(config, frames).elements == ["Fe", "H", "O"]


def test_frames_are_sampled_over_the_whole_file(tmp_path):
    images = iron_water(5, max_water=2)
    write(tmp_path / "a.traj", images)
    chosen = sample(str(tmp_path / "a.traj"), 3)
    for atoms, k in zip(chosen, (0, 2, 4), strict=True):
        assert np.array_equal(atoms.positions, images[k].positions)


@pytest.mark.slow
def test_missing_tools_say_what_to_install(arguments, capsys, monkeypatch):
    monkeypatch.setattr(py_spy.shutil, "which", lambda *_, **__: None)
    assert run(*arguments, "--tool", "py-spy") == 1
    assert "pip install py-spy" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "line_profiler", None)
    with pytest.raises(ImportError, match="pip install line_profiler"):
        kernel_lines.line_profiler()


@pytest.mark.slow
def test_a_system_that_forbids_ptrace(arguments, tmp_path, capsys, monkeypatch):
    forbidden = tmp_path / "py-spy"
    forbidden.write_text("#!/bin/sh\necho 'Error: Permission Denied (os error 13)' >&2\nexit 1\n")
    forbidden.chmod(0o755)
    monkeypatch.setattr(py_spy.shutil, "which", lambda *_, **__: str(forbidden))
    assert run(*arguments, "--tool", "py-spy") == 1
    told = capsys.readouterr().err
    assert "ptrace_scope=0" in told
    assert "Permission Denied" in told
    assert not (tmp_path / "out").exists()
