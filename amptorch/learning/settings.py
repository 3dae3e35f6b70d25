"""The settings of learning on the fly: every key of `--dynamics md.yaml` with its meaning."""

# ruff: noqa: RUF009 (`option` only wraps dataclasses.field)

from dataclasses import dataclass
from typing import ClassVar

from amptorch.checks import choice, mapping, number
from amptorch.extrapolation import MARGIN
from amptorch.recommended import SIZES
from amptorch.sections import Section, count, option


@dataclass
class LearningConfig(Section):
    """Hold the keys of the file of `amptorch learn --dynamics`."""

    name_in_config: ClassVar[str] = "dynamics"

    method: str = option("langevin", choice("langevin", "verlet"), "what moves the atoms")
    temperature: float = option(300.0, number(above=0), "K")
    timestep: float = option(1.0, number(above=0), "fs")
    friction: float = option(0.01, number(above=0), "1/fs, of langevin")
    run: float = option(5.0, number(above=0), "ps, the longest that one run takes")
    silent: float = option(20.0, number(above=0), "ps without a loss of trust, after which it ends")
    interval: int = option(5, count, "steps between two looks of the guard")
    margin: float = option(MARGIN, number(minimum=0), "of the guard")
    beyond: float = option(
        2.0, number(minimum=1), "times 1 + margin, up to which a run goes on where trust is lost"
    )
    frames: int = option(20, count, "that are labelled in a round, at most")
    seconds: float = option(180.0, number(above=0), "of each training")
    size: str = option("medium", choice(*SIZES), "of a first potential, where none is given")
    training: dict = option({}, mapping, "sections of a configuration for the trainings")
    label: dict = option({}, mapping, "arguments of the calculator")
    seed: int = option(0, number(minimum=0, integer=True), "of starts and velocities")
