"""Name the machine and the versions that figures belong to."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "torch", "skorch", "ase")
THREAD_VARIABLES = ("AMPTORCH_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment(threads: int | None = None) -> dict[str, Any]:
    """Return {name: value} of the machine and the versions, numbers and text.

    threads: of the kernels, as the configuration has them
    """
    import torch

    import amptorch
    from amptorch.threads import num_threads

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": psutil.cpu_count(logical=False),
        "logical cores": psutil.cpu_count(),
        "memory (GB)": round(psutil.virtual_memory().total / 1e9, 1),
        "load at the start": [round(value, 2) for value in psutil.getloadavg()],
        "system": platform.platform(),
        "threads of the kernels": num_threads(threads),
        "threads of torch": torch.get_num_threads(),
        **{name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "python": platform.python_version(),
        "amptorch": amptorch.__version__,
        "commit": commit(Path(amptorch.__file__).parent),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit(folder: Path) -> str | None:
    """Return the hash of the commit checked out in `folder`, with "-dirty" where files differ from
    it; None where it is no checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
