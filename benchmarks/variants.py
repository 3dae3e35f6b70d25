"""The kernels compiled in other ways, each in a process of its own, timed in turns.

`python benchmarks/variants.py` is such a process: it compiles, says that it is ready, and measures
whenever it is sent a line. How a variant compiles is set by numba's environment variables.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

N_FRAMES = 4


class Variant(NamedTuple):
    what: str
    environment: dict


VARIANTS = {
    "as it is": Variant("", {}),
    "scalar": Variant(
        "LLVM's loop and SLP vectorisers off",
        {"NUMBA_LOOP_VECTORIZE": "0", "NUMBA_SLP_VECTORIZE": "0"},
    ),
    "SSE2": Variant(
        "vectors of two numbers: any 64-bit PC (SSE2, no fused multiply-add)",
        {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"},
    ),
    "AVX2": Variant(
        "vectors of four numbers: a PC of 2013 or later (AVX2)",
        {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma,+bmi,+bmi2"},
    ),
}


class Workers:
    """One process for each variant, ready to measure."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        self._processes = {}
        for name, variant in VARIANTS.items():
            cache = {"NUMBA_CACHE_DIR": os.path.join(self._folder.name, name)}
            self._processes[name] = subprocess.Popen(
                [sys.executable, str(Path(__file__))],
                env={**os.environ, **cache, **variant.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self.bits = {name: self._answer(name) for name in VARIANTS}
        return self

    def __exit__(self, *exception):
        for process in self._processes.values():
            process.stdin.close()
            process.stdout.close()
            process.wait()
        self._folder.cleanup()

    def measure(self, repeats):
        """{variant: seconds a frame}."""
        times = {name: [] for name in VARIANTS}
        for _ in range(repeats):
            for name, process in self._processes.items():
                process.stdin.write("\n")
                process.stdin.flush()
                times[name].append(self._answer(name))
        return times

    def _answer(self, name):
        line = self._processes[name].stdout.readline()
        if not line:
            raise RuntimeError(f"the kernels compiled as {name!r} did not run; see the error above")
        return json.loads(line)


def main():
    import inner_loops
    import numba
    from measurements import described
    from setups import read_frames

    from amptorch.neighbors import neighbor_list

    descriptor, frames = described(read_frames(n_frames=N_FRAMES))
    neighbors = neighbor_list(frames, descriptor.cutoff, threads=1)
    descriptor.values_and_derivatives(frames, neighbors, threads=1)
    vectorised = numba.config.LOOP_VECTORIZE
    print(inner_loops.packed_instructions()["bits"] if vectorised else 64, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        descriptor.values_and_derivatives(frames, neighbors, threads=1)
        print((time.perf_counter() - start) / N_FRAMES, flush=True)


if __name__ == "__main__":
    main()
