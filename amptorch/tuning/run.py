"""`tune`: a study from its frames to the models that come out of it."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amptorch.files import read_json, write_json
from amptorch.locks import locked
from amptorch.threads import num_threads
from amptorch.tuning import final
from amptorch.tuning.jobs import SETTINGS, Jobs, load_problem
from amptorch.tuning.objective import Problem
from amptorch.tuning.picking import pareto
from amptorch.tuning.prepare import (
    Clock,
    check_input,
    is_of_before,
    locked_folder,
    note_call,
    write_settings,
)
from amptorch.tuning.settings import AGAIN, TuningConfig, tuning_config
from amptorch.tuning.study import (
    completed,
    fail_trials_of,
    finished,
    has_ended,
    open_storage,
    open_study,
    process_name,
    public_url,
    quiet_optuna,
    read_records,
    record_silent,
)
from amptorch.tuning.workers import Job, Workers

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)


@dataclass
class Tuned:
    """Hold the results of `tune`.

    out: the study's folder; study: the optuna.Study; best: {"number", "params", "error", "cost"}
    of the best trial; chosen: folder of the model (None without a final training); baseline: the
    same folder where its configuration is that of the baseline, otherwise None; test: errors on the
    test frames, {"chosen": …}, or None.
    """

    out: Path
    study: "optuna.Study"
    best: dict[str, Any]
    chosen: Path | None = None
    baseline: Path | None = None
    test: dict | None = None


def tune(
    train: Any,
    out: str | os.PathLike[str],
    test: Any = None,
    trials: int | None = None,
    seconds: float | None = None,
    config: dict[str, Any] | None = None,
    storage: str | None = None,
    workers: int | None = None,
    report: bool = True,
) -> Tuned:
    """Search for symmetry functions, network and training together, then train the best for long.

    The search begins with the recommended defaults, which are trained in place of the best trial
    where that is not better by more than the noise.

    Parameters
    ----------
    train : path that ASE reads, or list of ase.Atoms, with energies and forces
    out : folder for everything; the same call goes on with the study that is there
    test : frames that are looked at once, after all decisions
    trials, seconds : when to stop, of which at least one is needed: trials that are over in all, or
        time in all (earlier calls included), of which `tuning.search_share` is for the search
    config : dictionary of AtomsTrainer's sections, and of a section `tuning`, see `TuningConfig`
    storage : URL of Optuna's, "journal:FILE", or None for an SQLite file in `out`
    workers : processes, one a core where None; 0 runs everything in this process
    report : whether to write report.html, report.md and results.zip at the end

    Returns `Tuned`. Raises ValueError, TypeError or OSError that names the key, file or frame that
    cannot be used, before any work; RuntimeError where worker processes cannot run at all. An
    interruption, even a kill, leaves a study that the same call goes on with.
    """
    out = Path(out).absolute()
    if trials is None and seconds is None:
        raise ValueError("say how long to search: give trials or a time")
    for name, value in (("trials", trials), ("time", seconds)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    url = storage or f"sqlite:///{out / 'study.db'}"
    if is_of_before(out):
        return _finished_before(out, url)
    about, images = check_input(train, test, config, out, seconds)
    tuning = tuning_config(about["config"])
    if seconds is not None and tuning.seconds_of_search(seconds) <= 0:
        raise ValueError(
            f"time: of {seconds:g} s the search has {tuning.search_share * seconds:.3g} s, and "
            f"a trial takes {tuning.trial_seconds:g} s; {_advice(tuning)}"
        )
    workers = num_threads() if workers is None else workers
    # Several machines may begin at the same time.
    with locked_folder(out):
        about = write_settings(about, train, images, out)
        with quiet_optuna():
            tuning = tuning_config(about["config"])
            study = open_study(open_storage(url), about["study"], tuning)
        problem = load_problem(out)
        problem.cache.begin(about["elements"], about["cutoff"])
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(problem.space.baseline())
        call = {"train": train, "test": test, "trials": trials, "seconds": seconds}
        note_call(out, {**call, "workers": workers, "storage": storage and public_url(storage)})
        lost = fail_trials_of(study, out, has_ended, "its process was killed", again=True)
    if lost:
        logger.info("trials %s were cut off and will be run again", lost)
    run = _Run(problem, study, url, workers, trials, seconds)
    try:
        with run:
            run.search()
            return run.finish(test)
    finally:
        if report and run.over:
            from amptorch.tuning.report import write_report

            write_report(out)


def _finished_before(out: Path, url: str) -> Tuned:
    """Return what came out of a study of before the recommended defaults.

    Raises ValueError where that is not over, since its search cannot go on.
    """
    about, path = read_json(out / SETTINGS), out / "summary.json"
    summary: Any = read_json(path) if path.exists() else {"chosen": None}
    if summary["chosen"] is None:
        raise ValueError(
            f"{str(out)!r} holds a study of an earlier version, which searched other parameters: "
            "`amptorch report` and `amptorch pick` read it; give another folder to search anew"
        )
    with quiet_optuna():
        study = open_study(open_storage(url), about["study"], tuning_config(about["config"]))
    chosen, baseline = (summary[name] and out / summary[name] for name in ("chosen", "baseline"))
    test = read_json(out / "test.json") if (out / "test.json").exists() else None
    return Tuned(out, study, summary["best"], chosen, baseline, test)


class _Run:
    """Run one call of `tune`, after the preparation; its processes end with the context."""

    def __init__(
        self,
        problem: Problem,
        study: "optuna.Study",
        url: str,
        workers: int,
        trials: int | None,
        seconds: float | None,
    ):
        self.problem, self.study, self.out = problem, study, problem.out
        self.workers, self.trials, self.seconds = workers, trials, seconds
        self.clock = Clock(self.out)
        self.over = False
        self.given = 0
        self.last_death = "its process died"
        self.shown = {record["number"] for record in read_records(self.out)}
        self.pool: Workers | None = None
        if workers:
            self.first = {"storage": url, "study": study.study_name}
            self.pool = Workers(self.out, workers, self.first, self._died)
        else:
            self.jobs = Jobs(self.out, url, study.study_name, [0, time.time_ns()])

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self.pool is not None:
            self.pool.close()
        fail_trials_of(self.study, self.out, has_ended, "the study was interrupted", again=True)
        self.clock.stop()
        if kind is KeyboardInterrupt:
            logger.info("interrupted; the same command goes on with the study")

    def search(self) -> None:
        """Run trials until there are enough, or the time for it is over."""
        if self._decided():
            logger.info("the search of this study is over: its best trials are in training")
        else:
            self._run(self._take_trial, self._trial_done)
            record_silent(self.study, self.out)

    def finish(self, test: Any) -> Tuned:
        """Train the best, and test; in one process of all that work on the study."""
        out, tuning = self.out, self.problem.tuning
        self.over = not completed(self.study)
        if self.over and not read_records(out):
            raise ValueError(
                f"time: {self.clock():.0f} s were gone before a trial could begin (for reading, "
                f"neighbour lists and compiling, which are not repeated); {_advice(tuning)}"
            )
        if self.over:
            raise ValueError(f"no trial gave an error; {out / 'trials'} says what went wrong")
        self._say_if_baseline_costs_too_much()
        best = completed(self.study)[0]
        about = {name: best.user_attrs[name] for name in ("error", "cost")}
        tuned = Tuned(out, self.study, {"number": best.number, "params": best.params, **about})
        self._write_summary(tuned)
        if not tuning.ensemble:
            self.over = True
            return tuned
        busy = "another process of this study trains the best trials"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(out / ".final.lock", busy))
            except BlockingIOError:
                logger.info("%s", busy)
            else:
                self._train_best(tuned, test)
        return tuned

    def _say_if_baseline_costs_too_much(self) -> None:
        """Warn where the baseline, which is trained in any case, takes more than `max_cost`."""
        most, start = self.problem.tuning.max_cost, self.problem.space.baseline()
        for trial in completed(self.study):
            if trial.params == start and most is not None and trial.user_attrs["cost"] > most:
                logger.warning(
                    "the baseline takes %.4g µs/atom, more than tuning.max_cost (--max-cost), "
                    "%.4g; it is taken all the same where no trial within that is better by more "
                    "than the noise",
                    trial.user_attrs["cost"],
                    most,
                )

    def _train_best(self, tuned: Tuned, test: Any) -> None:
        out, problem = self.out, self.problem
        plan = final.make_plan(problem, self.study)
        self._train_planned(plan)
        plan = final.decide(problem, plan, self._left(), max(self.workers, 1))
        chosen = plan["chosen"]
        logger.info("the %s is trained for long", "best trial" if chosen == "best" else chosen)
        n = len(plan["trainings"])
        if self.pool is not None and n < self.workers:
            # With the cores that no other training needs.
            self.pool.close()
            self.pool = Workers(self.out, n, self.first, self._died, threads=self.workers // n)
        self._train_planned(plan)
        self.over = True
        model = final.collect(out, plan)
        tuned.chosen = out / "final" / "ensemble"
        if not tuned.chosen.exists():
            done = (final.result_of(out, name) for name in plan["trainings"])
            tuned.chosen = out / next(one["checkpoint"] for one in done if "checkpoint" in one)
        if chosen == final.BASELINE:
            tuned.baseline = tuned.chosen
        if test is not None:
            tuned.test = final.test_once(problem, model, test)
        self._write_summary(tuned)

    def _left(self) -> float | None:
        return None if self.seconds is None else max(0.0, self.seconds - self.clock())

    def _train_planned(self, plan: dict[str, Any]) -> None:
        """Do all trainings of the plan that are not done; one whose worker died is gone on with,
        once."""
        parts = {name: part for part in final.TRAININGS for name in plan.get(part, ())}
        for _ in range(2):
            names = final.missing(self.out, plan)
            if names:
                logger.info("training %s", ", ".join(names))
            jobs = iter([{"job": parts[name], "name": name} for name in names])
            self._run(partial(next, jobs, None), self._training_done)
        final.fail_missing(self.out, plan, self.last_death)

    def _run(self, take: Callable[[], Job | None], done: Callable[[Job], None]) -> None:
        """Do jobs in the worker processes, or in this one where there are none."""
        if self.pool is not None:
            self.pool.run(take, done)
            return
        while (job := take()) is not None:
            self.jobs(job)
            done(job)

    def _take_trial(self) -> Job | None:
        """Return the next job, or None; never called by two threads at once."""
        self.clock.stop()
        tuning = self.problem.tuning
        late = self.seconds is not None and self.clock() > tuning.seconds_of_search(self.seconds)
        enough = self.trials is not None and len(finished(self.study)) + self.given >= self.trials
        if late or enough or self._decided():
            return None
        self.given += 1
        return {"job": "trial"}

    def _decided(self) -> bool:
        """Return True where a process has ended the search and planned the final trainings."""
        return (self.out / "final" / final.PLAN).exists()

    def _trial_done(self, job: Job) -> None:
        self.given -= 1
        for record in read_records(self.out):
            if record["number"] not in self.shown:
                self.shown.add(record["number"])
                logger.info("%s", line_of(record))

    def _training_done(self, job: Job) -> None:
        self.clock.stop()
        done = final.result_file(self.out, job["name"]).exists()
        logger.info("%s %s", job["name"], "is over" if done else "was cut off")

    def _died(self, pid: int, reason: str) -> None:
        name = process_name(pid)
        fail_trials_of(self.study, self.out, lambda worker: worker == name, reason)
        self.last_death = reason.partition(";")[0]
        logger.warning("%s", reason)

    def _write_summary(self, tuned: Tuned) -> None:
        """Write `summary.json` and `best.json`."""
        out, records = self.out, read_records(self.out)
        best = next(r for r in records if r["number"] == tuned.best["number"])
        write_json(out / "best.json", best["config"])
        front = pareto([record for record in records if record["state"] == "complete"])
        summary = {
            "best": tuned.best,
            "pareto_front": [{k: r[k] for k in ("number", "error", "cost")} for r in front],
            "trials": dict(sorted(Counter(record["state"] for record in records).items())),
            "chosen": tuned.chosen and str(tuned.chosen.relative_to(out)),
            "baseline": tuned.baseline and str(tuned.baseline.relative_to(out)),
            "validation": self.problem.tuning.validation.in_words(),
            "seconds": self.clock(),
        }
        write_json(out / "summary.json", summary)


def _advice(tuning: TuningConfig) -> str:
    """Return words about the time that a study needs."""
    if tuning.trial_epochs is not None:
        return "give more --time, or fewer tuning.trial_epochs"
    # Ten trials are the first that are not drawn blindly.
    some = (10 / num_threads() + AGAIN) * tuning.trial_seconds / tuning.search_share
    return (
        f"give --time {some:.0f}s, which is enough for some ten trials of a small data set, or "
        "shorter trials (--trial-seconds)"
    )


def line_of(record: dict[str, Any]) -> str:
    """Return one line about a trial."""
    name = f"trial {record['number']}"
    if record["state"] != "complete":
        return f"{name} {record['state']}: {record['reason'].splitlines()[0]}"
    errors, text = record["errors"], f"{record['errors']['energy']['rmse']:.2f} meV/atom"
    if "forces" in errors:
        text += f", {errors['forces']['rmse']:.3f} eV/Å"
    return f"{name}: {text}, {record['cost']:.1f} µs/atom"
