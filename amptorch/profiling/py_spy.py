"""Draw a flame graph of the work in a process of its own."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from amptorch.profiling.job import Estimate, Job
from amptorch.profiling.processes import own_environment, run_process, workload_command
from amptorch.profiling.report import Report

RATE = 50  # samples a second; each stops the program while its stack is read
FORMATS = {"flamegraph": "flame.svg", "speedscope": "speedscope.json"}
PTRACE = (
    "py-spy may not look into a process here: the operating system forbids ptrace. On Linux, "
    "`sudo sysctl kernel.yama.ptrace_scope=0` allows it until the next start; in Docker, "
    "`--cap-add SYS_PTRACE`; on macOS, sudo"
)


def py_spy(job: Job, estimate: Estimate, folder: Path, environment: dict[str, Any]) -> Report:
    """Write a flame graph (SVG) and the same for speedscope.app, with native frames where py-spy
    can see them.

    Raises ImportError where py-spy is missing, ChildProcessError where the system forbids it.
    """
    beside = str(Path(sys.executable).parent)
    program = shutil.which("py-spy", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if program is None:
        raise ImportError("--tool py-spy needs py-spy: pip install py-spy")
    native = True
    for kind, name in FORMATS.items():
        try:
            result = _record(program, job, kind, folder / name, native)
        except ChildProcessError:
            native = False
            result = _record(program, job, kind, folder / name, native)
    picture = (folder / "flame.svg").read_text(encoding="utf8")
    return Report(
        tool="py-spy",
        title=job.title("py-spy"),
        data={**result, "native": native},
        page={"picture": picture[picture.index("<svg") :], "rate": RATE, "files": FORMATS.values()},
        summary="\n".join(FORMATS.values()),
        environment=environment,
    )


def _record(program, job, kind, target, native):
    name = f"{kind}-native" if native else kind
    result = job.work / f"{name}-result.json"
    command = [program, "record", "--rate", RATE, "--format", kind, "--output", target]
    command += ["--native"] if native else []
    command += ["--", *workload_command(sys.executable, job.write(name), result)]
    try:
        # In the user's folder, where a path of frames may begin.
        run_process(command, [target, result], own_environment(), Path.cwd())
    except ChildProcessError as error:
        signs = ("permission denied", "not permitted", "requires root")
        denied = any(words in str(error).lower() for words in signs)
        raise ChildProcessError(f"{PTRACE}; {error}" if denied else str(error)) from error
    return json.loads(result.read_text(encoding="utf8"))
