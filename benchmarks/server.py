"""Does stages of the benchmarks in another interpreter, on request.

    PYTHON server.py

reads JSON lines from its input and answers each with a line; `remote.py` is the other end, and what
goes wrong ends the process. Any interpreter with some `amptorch` will do, v1.0's too:
`public_stages` uses its interface alone. What it writes goes to the working folder.
"""

import importlib
import json
import os
import sys
import time

from setups import workload


class Stages:
    """One stage at a time."""

    def about(self):
        """What is measured here."""
        return workload.about()

    def prepare(self, module, stage, images, options):
        """Do the stage twice, so that everything is compiled: what the second step of dynamics does
        is not what the first did."""
        self.call = None  # lets go of what the stage before held
        factory = getattr(importlib.import_module(module), stage)
        self.call, self.n_frames = factory(
            [workload.frame_of(image) for image in images], **options
        )
        self.call()
        self.call()

    def run(self, repeats):
        """Seconds a frame of each repeat."""
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.call()
            seconds.append((time.perf_counter() - start) / self.n_frames)
        return seconds


def main():
    # What anything prints goes to the standard error, so that the answers stand alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    stages = Stages()
    for line in sys.stdin:
        request = json.loads(line)
        result = getattr(stages, request["do"])(**request["with"])
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
