"""The tools that look at, or compare, other processes: py-spy, another implementation."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import amptorch
from amptorch.config import to_json
from amptorch.profiling import plots, workload
from amptorch.profiling.report import Report, Section
from amptorch.profiling.tables import as_text

RATE = 50  # samples a second; each stops the program while its stack is read
FORMATS = {"flamegraph": "flame.svg", "speedscope": "speedscope.json"}
# Lines of another process's complaint that are shown.
LAST_LINES = 12

PTRACE = (
    "py-spy may not look into a process here: the operating system forbids ptrace. On Linux, "
    "`sudo sysctl kernel.yama.ptrace_scope=0` allows it until the next start; in Docker, "
    "`--cap-add SYS_PTRACE`; on macOS, sudo"
)


def py_spy(job, estimate, folder, environment):
    """A flame graph (SVG) and the same for speedscope.app, of native frames where that works."""
    program = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    program = program or shutil.which("py-spy")
    if program is None:
        raise ImportError("--tool py-spy needs py-spy: pip install py-spy")
    native = True
    for kind, name in FORMATS.items():
        for attempt in (True, False) if native else (False,):
            shutil.rmtree(job.work / kind, ignore_errors=True)
            error = _record(program, job, kind, folder / name, attempt)
            if not error:
                native = attempt
                break
        else:
            denied = any(word in error.lower() for word in ("permission", "not permitted", "root"))
            raise OSError(f"{PTRACE}; it said:\n{error}" if denied else f"py-spy failed:\n{error}")
    result = json.loads((job.work / f"{kind}-result.json").read_text(encoding="utf8"))
    frames = "with native frames" if native else "without native frames, which it refused here"
    note = (
        f"py-spy looked {RATE} times a second, {frames}, once for each of the two files; "
        "compilation and a first pass over two frames are in them. Wider is longer; click to zoom. "
        "Open speedscope.json at https://www.speedscope.app (it stays in the browser)."
    )
    return Report(
        title=f"Profile of {job.n_frames} frames: py-spy",
        notes=[note],
        sections=[
            Section("Flame graph", svg=_embedded(folder / "flame.svg"), links=[*FORMATS.values()])
        ],
        summary=f"{note}\n" + "\n".join(FORMATS.values()),
        data={**result, "native": native},
        environment=environment,
    )


def _record(program, job, kind, target, native):
    """Run the work under py-spy; its complaint, or "" where the file was written."""
    command = [program, "record", "--rate", str(RATE), "--format", kind, "--output", str(target)]
    command += ["--native"] if native else []
    script, result = workload_file(job.work), job.work / f"{kind}-result.json"
    command += ["--", sys.executable, str(script), str(job.write(kind)), str(result)]
    done = subprocess.run(
        command, cwd=job.work, env=own_environment(), capture_output=True, text=True, check=False
    )
    if target.is_file() and result.is_file():
        return ""
    return last_lines(done.stderr) or f"it ended with {done.returncode}"


def _embedded(path):
    text = path.read_text(encoding="utf8")
    return text[text.index("<svg") :]


def workload_file(folder):
    """A copy of workload.py alone in a folder, so that nothing beside it can be imported by it."""
    path = folder / "workload.py"
    if not path.exists():
        shutil.copy(workload.__file__, path)
    return path


def own_environment():
    """Environment in which another process of this interpreter imports this very package."""
    paths = [str(Path(amptorch.__file__).parent.parent), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def last_lines(text):
    return "\n".join(text.strip().splitlines()[-LAST_LINES:])


def compare(job, images, python, repeats, environment, say=lambda text: None):
    """Report of the same work by this package and by that of another interpreter, in turns.

    job: with the frames `images` in place of its data; python: the interpreter; say: is told what
    is done next. Where the other fails, the report says why and has this package's times.
    """
    folder = job.work / "turns"
    folder.mkdir()
    config = {**job.config, "optim": {**job.config.get("optim", {}), "epochs": job.epochs}}
    content = {
        "config": {**config, "cmd": {**config.get("cmd", {}), "verbose": False}},
        "data": [workload.frame_record(atoms) for atoms in images],
        "md_steps": job.md_steps,
        "warm_up": True,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(to_json(content)), encoding="utf8")
    ours, others, error = [], [], None
    try:
        for turn in range(repeats):
            say(f"turn {turn + 1} of {repeats}: this amptorch")
            ours.append(_one_turn(sys.executable, path, own_environment()))
            say(f"turn {turn + 1} of {repeats}: {python}")
            others.append(_one_turn(python, path, workload.environment_of_another()))
    except ChildProcessError as failure:
        error = str(failure)
        if not ours:
            raise
    return _comparison(job, len(images), ours, others, python, error, environment)


def _one_turn(python, job_path, environment):
    folder = job_path.parent
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            [python, str(workload_file(folder)), str(job_path), str(result)],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    except OSError as error:
        raise ChildProcessError(
            f"{python} cannot be run as a Python interpreter: {error}"
        ) from error
    if done.returncode or not result.is_file():
        raise ChildProcessError(
            f"{python} did not do the work (exit code {done.returncode}); the last it said:\n"
            f"{last_lines(done.stderr)}"
        )
    return json.loads(result.read_text(encoding="utf8"))


def _comparison(job, n_frames, ours, others, python, error, environment):
    pairs = list(zip(ours, others, strict=False))
    header = ["phase", "here, s", "there, s", "ratio", "lowest", "highest", "here µs/atom", "there"]
    lines, ratios = [header], []
    for phase in workload.PHASES:
        here = [result["seconds"][phase] for result in ours]
        there = [result["seconds"][phase] for result in others]
        atoms = ours[0]["atoms"][phase]
        quotients = [b["seconds"][phase] / a["seconds"][phase] for a, b in pairs]
        ratios.append((phase, quotients))
        cells = [f"{f(quotients):.3g}" if quotients else "" for f in (median, min, max)]
        if not quotients:
            cells = [""] * 3
        lines.append(
            [
                phase,
                f"{median(here):.3f}",
                f"{median(there):.3f}" if there else "",
                *cells,
                f"{1e6 * median(here) / atoms:.3g}",
                f"{1e6 * median(there) / atoms:.3g}" if there else "",
            ]
        )
    sides = {"here": ours[0], **({"there": others[0]} if others else {})}
    about = [f"{side}: {workload.described(result)}" for side, result in sides.items()]
    notes = [
        f"{n_frames} frames, {job.epochs} epochs, {job.md_steps} steps of dynamics; {len(pairs)} "
        "turns of one after the other, each a process of its own, after everything was done once "
        "with two frames. Medians; ratios are those of the two processes of one turn, with the "
        "lowest and the highest. The first phase also plans the memory here, which is the same for "
        "any number of frames.",
        *about,
    ]
    if error is not None:
        notes.insert(0, f"The other implementation failed: {error}")
    picture = plots.ratios(ratios) if pairs else ""
    return Report(
        title=f"This amptorch and that of {python}",
        notes=notes,
        sections=[Section("Ratios", svg=picture, lines=lines)],
        summary="\n".join([as_text(lines), "", *notes[-3 if others else -2 :]]),
        data={
            "here": ours,
            "there": others,
            "ratios": {
                phase: {"each": q, "median": median(q), "lowest": min(q), "highest": max(q)}
                for phase, q in ratios
                if q
            },
        },
        environment=environment,
        error=error,
    )
