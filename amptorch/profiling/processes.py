"""Run parts of a profile in processes of their own."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import amptorch
from amptorch.profiling import workload

# Lines of a process's complaint that are shown.
LAST_LINES = 12


def run_process(
    command: Sequence[object], results: Sequence[Path], environment: Mapping[str, str], folder: Path
) -> None:
    """Run a program in `folder` that writes the files `results`.

    Raises ChildProcessError with the last lines of its complaint where it does not.
    """
    for path in results:
        path.unlink(missing_ok=True)
    words = list(map(str, command))
    try:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    except OSError as error:
        raise ChildProcessError(f"{words[0]} cannot be run: {error}") from error
    if not all(path.is_file() for path in results):
        said = "\n".join(done.stderr.strip().splitlines()[-LAST_LINES:])
        raise ChildProcessError(
            f"{words[0]} did not do the work (exit code {done.returncode}); the last it said:\n"
            f"{said}"
        )


def workload_command(python: str, job: Path, result: Path) -> list[object]:
    """Return the command that does the job in a file, with a copy of workload.py alone beside it:
    it imports nothing from there."""
    return [python, shutil.copy(workload.__file__, job.parent), job, result]


def own_environment() -> dict[str, str]:
    """Return an environment in which this interpreter imports this very package."""
    paths = [str(Path(amptorch.__file__).parent.parent), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
