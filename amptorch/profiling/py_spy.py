"""Draw a flame graph of the work, at which py-spy looks in a process of its own.

python -m amptorch.profiling.py_spy JOB.json RESULT.json
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import amptorch
from amptorch.files import read_json, write_json
from amptorch.profiling.job import Job
from amptorch.profiling.report import Findings
from amptorch.reports import Stages

RATE = 50  # samples a second; each stops the program while its stack is read
DENIED = ("permission denied", "not permitted", "requires root")
PTRACE = (
    "the operating system forbids py-spy to look into a process (ptrace). On Linux, "
    "`sudo sysctl kernel.yama.ptrace_scope=0` allows it until the next start; in Docker, "
    "`--cap-add SYS_PTRACE`; on macOS, sudo"
)


def py_spy(job: Job, folder: Path) -> Findings:
    """Write a flame graph (SVG), with native frames where py-spy can see them.

    Raises ImportError where py-spy is missing, ChildProcessError where the system forbids it.
    """
    beside = str(Path(sys.executable).parent)
    program = shutil.which("py-spy", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if program is None:
        raise ImportError("--tool py-spy needs py-spy: pip install py-spy")
    target = folder / "flame.svg"
    try:
        result = record(program, job, target, native=True)
    except ChildProcessError:
        result = record(program, job, target, native=False)
    picture = target.read_text(encoding="utf8")
    return Findings(
        data=result,
        page={"picture": picture[picture.index("<svg") :], "rate": RATE},
        summary="The flame graph is in flame.svg, and in the report.",
    )


def record(program: str, job: Job, target: Path, native: bool) -> dict[str, Any]:
    """Do the job under py-spy, which writes its flame graph to `target`; return what it came to."""
    path, result = Path(job.work, "job.json"), Path(job.work, f"result-{native}.json")
    write_json(path, vars(job))
    command = [program, "record", "--rate", str(RATE), "--output", str(target)]
    command += ["--native"] if native else []
    command += ["--", sys.executable, "-m", __name__, str(path), str(result)]
    # Where this very package is imported.
    root = Path(amptorch.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if not (target.is_file() and result.is_file()):
        denied = any(words in done.stderr.lower() for words in DENIED)
        why = PTRACE if denied else f"py-spy ended with {done.returncode}"
        raise ChildProcessError(f"{why}; the last it said:\n{done.stderr.strip()}")
    return {**read_json(result), "native": native}


def main(path: str, result: str) -> None:
    """Do the job in a file, and write to another what it came to, and the seconds of each phase."""
    job, clock = Job(**read_json(path)), Stages()
    found = job.run(Path(result).stem, clock)
    write_json(result, {**found, "seconds": clock.seconds})


if __name__ == "__main__":
    main(*sys.argv[1:])
