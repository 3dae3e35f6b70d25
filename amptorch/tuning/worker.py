"""Run trials in a process, one after the other: `python -m amptorch.tuning.worker OUT NUMBER`.

It reads a line of JSON for each job from its standard input and answers with one; the first line
says how to reach the study. When its input ends, because whoever started it is gone, it ends at
once: a trial without anyone to count it is not worth its time.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from typing import Any, TextIO


def main() -> None:
    """Do the jobs that standard input gives, until it ends."""
    out, number = sys.argv[1], int(sys.argv[2])
    # What libraries print shall not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)
    # An interruption from the keyboard is for the program that started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    first = jobs.get()

    import torch

    from amptorch.threads import num_threads
    from amptorch.tuning.jobs import Jobs

    # There is a worker on every core, or one with all of them.
    torch.set_num_threads(num_threads())
    work = Jobs(out, first["storage"], first["study"], [number, time.time_ns()])
    _answer(answers, {"ready": True})
    while True:
        _answer(answers, work(jobs.get()))


def _listen(jobs: "queue.Queue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    os._exit(1)


def _answer(answers: TextIO, content: Any) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
