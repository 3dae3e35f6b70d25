"""Domains of a parameter: a range of numbers, or a few values to choose from."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Trial


@dataclass(frozen=True)
class Range:
    """Hold numbers from `low` to `high`: in steps, or evenly, or evenly in the logarithm."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    integer: bool = False

    def suggest(self, trial: "Trial", name: str) -> Any:
        """Draw a value for `trial`."""
        if self.integer:
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def nearest(self, value: float) -> float:
        """Return the value of the range nearest to `value`."""
        value = min(max(value, self.low), self.high)
        if self.step is not None:
            steps = math.floor((self.high - self.low) / self.step + 1e-9)
            value = self.low + self.step * min(round((value - self.low) / self.step), steps)
        return int(value) if self.integer else float(value)

    @property
    def single(self) -> bool:
        """Return True where there is one value only."""
        return self.low == self.high

    def highest(self) -> Any:
        """Return the largest value."""
        return self.high

    def share(self, value: float) -> float:
        """Return the place of `value` between the lowest (0) and the highest (1) that is drawn."""
        low, high, value = self.low, self.nearest(self.high), float(value)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Choice:
    """Hold a few values to choose from."""

    values: tuple[Any, ...]

    def suggest(self, trial: "Trial", name: str) -> Any:
        """Draw a value for `trial`."""
        return trial.suggest_categorical(name, self.values)

    def nearest(self, value: Any) -> Any:
        """Return `value` where it is among the values; otherwise the first of them."""
        return value if value in self.values else self.values[0]

    @property
    def single(self) -> bool:
        """Return True where there is one value only."""
        return len(self.values) == 1

    def highest(self) -> Any:
        """Return the largest value."""
        return max(self.values)
