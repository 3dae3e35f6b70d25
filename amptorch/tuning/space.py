"""The search space: the parameters of `parameters.yaml`, and what a configuration makes of them.

In a configuration `tuning.space` fixes a parameter (`cutoff: 6.0`), gives the values to choose from
(`activation: [Tanh, SiLU]`) or a range (`lr: {low: 1e-3, high: 1e-2}`, for numbers; `step` and
`log` may be given, too). A key of the other sections that a parameter stands for, such as
`optim.lr`, fixes that parameter as well.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from amptorch.checks import known_keys, nearest, number
from amptorch.descriptor.Gaussian.auto import SIZES
from amptorch.recommended import NODES

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution


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
        draw: Any = trial.suggest_int if self.integer else trial.suggest_float
        return draw(name, self.low, self.high, step=self._step, log=self.log)

    @property
    def distribution(self) -> "BaseDistribution":
        """Return the range as Optuna has it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        kind: Any = IntDistribution if self.integer else FloatDistribution
        return kind(self.low, self.high, self.log, self._step)

    @property
    def _step(self) -> Any:
        return (self.step or 1) if self.integer else self.step

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

    @property
    def distribution(self) -> "BaseDistribution":
        """Return the values as Optuna has them."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

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


class Parameter:
    """Describe one parameter that is tuned, as `parameters.yaml` has it.

    default : the Range or Choice that is searched where the user says nothing
    start, meaning, keys, when : see there
    limits : (lowest, highest) that makes sense of a number; for others all values that are known
    """

    def __init__(
        self,
        name: str,
        start: Any,
        meaning: str,
        keys: Sequence[str],
        when: Mapping[str, Sequence[Any]] | None = None,
        values: Sequence[Any] = (),
        among: Sequence[Any] | None = None,
        limits: Sequence[Any] | None = None,
        **numbers: Any,
    ):
        self.name, self.start, self.meaning, self.keys = name, start, meaning, keys
        self.when = when or {}
        self.limits = limits or among or values
        self.default: Range | Choice = Choice(tuple(values))
        if numbers:
            self.default = Range(**numbers, integer=isinstance(start, int))

    def known(self, base: Mapping[str, Any], key: str) -> Any:
        """Return the value of `key` in the configuration, on which other parameters depend; where
        it is not among the known values, the start, and for another optimizer "adam"."""
        section, _, name = key.partition(".")
        said = base[section][name]
        said = str(getattr(said, "__name__", said)).lower()
        other = "adam" if self.name == "optimizer" else self.start
        return next((value for value in self.limits if str(value).lower() == said), other)

    def parse(self, given: Any) -> Range | Choice:
        """Return the Range or Choice that `tuning.space` gives for this parameter.

        Raises ValueError or TypeError that names the parameter and what would be right.
        """
        key = f"tuning.space.{self.name}"
        if isinstance(given, Mapping):
            if not isinstance(self.default, Range):
                raise TypeError(f"{key} is chosen from {list(self.limits)}; give a list of these")
            return self._range(key, given, self.default)
        values = list(given) if isinstance(given, (list, tuple)) else [given]
        if not values:
            raise ValueError(f"{key} is empty, which excludes everything; give at least one value")
        checked = tuple(self._checked(key, value) for value in values)
        if len(set(checked)) != len(checked):
            raise ValueError(f"{key} names a value twice: {values}")
        return Choice(checked)

    def _range(self, key: str, given: Mapping[str, Any], default: Range) -> Range:
        known_keys(key, given, ["low", "high", "step", "log"])
        low = self._checked(f"{key}.low", given.get("low", default.low))
        high = self._checked(f"{key}.high", given.get("high", default.high))
        if low > high:
            raise ValueError(f"{key}: low {low} is above high {high}, which excludes everything")
        log = bool(given.get("log", default.log and "step" not in given))
        step = given.get("step", None if log else default.step)
        if step is not None:
            step = number(above=0, integer=default.integer)(f"{key}.step", step)
            if log:
                raise ValueError(f"{key}: a range has a step or is logarithmic, not both")
        if log and low <= 0:
            raise ValueError(f"{key}: a logarithmic range must start above 0, not at {low}")
        return Range(low, high, step, log, default.integer)

    def _checked(self, key: str, value: Any) -> Any:
        if isinstance(self.default, Range):
            low, high = self.limits
            return number(low, high, integer=self.default.integer)(key, value)
        names = {str(name).lower(): name for name in self.limits}
        if str(value).lower() not in names:
            raise ValueError(f"{key} cannot be {value!r}{nearest(value, names)}")
        return names[str(value).lower()]


_TABLE = resources.files(__package__).joinpath("parameters.yaml").read_text(encoding="utf8")
BY_NAME = {name: Parameter(name, **given) for name, given in yaml.safe_load(_TABLE).items()}
OF_FORCES = ("force_per_mev", "force_fraction")
# Values of a number that are told one by one; of more there is a range, or groups.
MOST_VALUES = 6


class Space:
    """Hold the search space: {name: Range or Choice} in `domains`, in the order of BY_NAME.

    given : `tuning.space` of a configuration
    base : its other sections; what they say fixes the parameters that stand for it
    size : of the recommended defaults, with which the search begins

    Raises ValueError or TypeError that names the parameter that is unknown, has no meaning, leaves
    nothing to choose from, or is given twice.
    """

    def __init__(
        self,
        given: Mapping[str, Any] | None = None,
        base: Mapping[str, Any] | None = None,
        size: str = "medium",
    ):
        given, base = dict(given or {}), base or {}
        known_keys("tuning.space", given, BY_NAME)
        said = {f"{s}.{k}" for s, keys in base.items() for k, v in keys.items() if v is not None}
        forces = base.get("model", {}).get("get_forces", True)
        starts = {name: parameter.start for name, parameter in BY_NAME.items()}
        self.start: dict[str, Any] = {**starts, "size": size, "width": NODES[size]}
        self.domains: dict[str, Range | Choice] = {}
        self.fixed: dict[str, Any] = {}
        for name, parameter in BY_NAME.items():
            fixed = [key for key in parameter.keys if key in said]
            if name in given and fixed:
                raise ValueError(
                    f"tuning.space.{name} and {fixed[0]} are both given; leave out one of them"
                )
            if name in given and name in OF_FORCES and not forces:
                raise ValueError(f"tuning.space.{name} is given, but model.get_forces is False")
            if fixed:
                self.fixed[name] = parameter.known(base, fixed[0])
            elif name in given:
                self.domains[name] = parameter.parse(given[name])
            elif forces or name not in OF_FORCES:
                self.domains[name] = parameter.default

    @property
    def searched(self) -> list[str]:
        """Return the names of the parameters with more than one value."""
        return [name for name, domain in self.domains.items() if not domain.single]

    @property
    def reachable(self) -> list[str]:
        """Return the names of the parameters that matter in some trial."""
        found: list[str] = []
        for name in self.domains:
            known = {other: self._possible(other, found) for other in depends_on(name)}
            if all(set(known[other]) & set(ok) for other, ok in depends_on(name).items()):
                found.append(name)
        return found

    def suggest(self, trial: "Trial") -> dict[str, Any]:
        """Return {name: value} of a trial; parameters that do not matter in it are left out."""
        return self._filled(lambda name, domain: domain.suggest(trial, name))

    def baseline(self) -> dict[str, Any]:
        """Return the recommended defaults, or the values of this space nearest to them."""
        return self._filled(lambda name, domain: domain.nearest(self.start[name]))

    def largest_cutoff(self) -> float | None:
        """Return the largest cutoff, Å, or None where the configuration fixes the functions."""
        if "cutoff" not in self.domains:
            return None
        found = [self.domains[name].highest() for name in ("cutoff", "angular_cutoff")]
        return max(*found, *(of_size["cutoff"] for of_size in SIZES.values()))

    def _possible(self, name: str, reachable: Sequence[str]) -> Sequence[Any]:
        if name in self.fixed:
            return (self.fixed[name],)
        domain = self.domains[name]
        values = domain.values if isinstance(domain, Choice) else ()
        return values if name in reachable else (None,)

    def _filled(self, value: Callable[[str, Any], Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, domain in self.domains.items():
            known = {**self.fixed, **values}
            if all(known.get(other) in ok for other, ok in depends_on(name).items()):
                values[name] = value(name, domain)
        return values


class SeenSpace(Space):
    """Hold what the trials of a study had whose parameters are not those of BY_NAME: one of before
    the recommended defaults. The first of the trials is its baseline."""

    def __init__(self, trials: Sequence[Mapping[str, Any]]):
        self.domains, self.fixed, self.start = {}, {}, dict(trials[0]) if trials else {}
        for name in dict.fromkeys(name for params in trials for name in params):
            values = list(dict.fromkeys(params[name] for params in trials if name in params))
            numbers = all(type(value) in (int, float) for value in values)
            if numbers and len(values) > MOST_VALUES:
                integer = all(isinstance(value, int) for value in values)
                self.domains[name] = Range(min(values), max(values), integer=integer)
            else:
                self.domains[name] = Choice(tuple(sorted(values) if numbers else values))

    @property
    def reachable(self) -> list[str]:
        """Return the names of all parameters."""
        return list(self.domains)

    def baseline(self) -> dict[str, Any]:
        """Return the parameters of the first trial."""
        return dict(self.start)


def depends_on(name: str) -> Mapping[str, Sequence[Any]]:
    """Return {other parameter: values}: `name` has a meaning with these values only."""
    return BY_NAME[name].when if name in BY_NAME else {}
