"""The search space: every parameter with its default range, its limits and its meaning.

In a configuration `tuning.space` fixes a parameter (`cutoff: 6.0`), gives the values to choose from
(`activation: [Tanh, SiLU]`) or a range (`lr: {low: 1e-3, high: 1e-2}`, for numbers; `step` and
`log` may be given, too). A key of the other sections that a parameter stands for, such as
`optim.lr`, fixes that parameter as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from amptorch.checks import known_keys, nearest, number
from amptorch.tuning.domains import Choice, Range

if TYPE_CHECKING:
    from optuna import Trial


@dataclass(frozen=True)
class Parameter:
    """Describe one parameter that is tuned.

    default : the Range or Choice that is searched where the user says nothing
    start : its value in the first trial, the baseline
    meaning : for the documentation
    keys : `section.key` of the configuration that the parameter stands for
    limits : (lowest, highest) that makes sense of a number; for others all values that are known
    when : {name: values} of another parameter that it depends on
    """

    name: str
    default: "Range | Choice"
    start: Any
    meaning: str
    keys: tuple[str, ...]
    limits: tuple[Any, ...]
    when: tuple = ()

    @property
    def numeric(self) -> bool:
        """Return True for a number, False for one of a few values."""
        return isinstance(self.default, Range)

    def known(self, base: Mapping[str, Any], key: str) -> Any:
        """Return the value of `key` in the configuration, on which other parameters depend; the
        start, where it is not among the known values (another optimizer)."""
        section, _, name = key.partition(".")
        said = str(base[section][name]).lower()
        return next((value for value in self.limits if str(value).lower() == said), self.start)

    def parse(self, given: Any) -> "Range | Choice":
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
            return number(minimum=low, maximum=high, integer=self.default.integer)(key, value)
        names = {str(name).lower(): name for name in self.limits}
        if str(value).lower() not in names:
            close = get_close_matches(str(value).lower(), names, n=1)
            hint = f"did you mean {names[close[0]]!r}?" if close else f"known are {self.limits}"
            raise ValueError(f"{key} cannot be {value!r}; {hint}")
        return names[str(value).lower()]


def _choice(
    name: str,
    values: tuple,
    start: Any,
    meaning: str,
    *keys: str,
    among: Any = None,
    when: tuple = (),
) -> Parameter:
    return Parameter(name, Choice(values), start, meaning, keys, among or values, when)


def _number(
    name: str,
    low: float,
    high: float,
    start: float,
    meaning: str,
    *keys: str,
    limits: tuple[float, float],
    step: float | None = None,
    log: bool = False,
    when: tuple = (),
) -> Parameter:
    integer = isinstance(low, int) and isinstance(start, int)
    domain = Range(low, high, step, log, integer)
    return Parameter(name, domain, start, meaning, keys, limits, when)


FUNCTIONS = "dataset.fp_params"
GRADIENT = (("optimizer", ("adam", "adamw")),)
BY_RECIPE = (("selection", ("none",)),)
SELECTED = (("selection", ("cur", "fps")),)
PARAMETERS = (
    # (a) and (b), the descriptor. A coarse grid: trials meet again, and share their fingerprints.
    _number(
        "cutoff", 5.0, 7.0, 6.0, "cutoff of all functions, Å", FUNCTIONS, limits=(1, 30), step=0.5
    ),
    _choice(
        "cutoff_function", ("cosine", "polynomial"), "cosine", "its form", "dataset.cutoff_params"
    ),
    _choice(
        "selection",
        ("none", "cur", "fps"),
        "none",
        "functions by a recipe alone, or chosen from a pool by CUR or farthest points",
        FUNCTIONS,
    ),
    _number(
        "functions",
        24,
        72,
        48,
        "functions of each element that are chosen",
        FUNCTIONS,
        limits=(1, 1000),
        step=12,
        when=SELECTED,
    ),
    _choice(
        "radial_recipe",
        (
            "shells",
            "gastegger-centered",
            "gastegger-shifted",
            "imbalzano-centered",
            "imbalzano-shifted",
        ),
        "shells",
        "how G2 are placed",
        FUNCTIONS,
        when=BY_RECIPE,
    ),
    _number(
        "radial",
        6,
        12,
        8,
        "G2 for each element of neighbours",
        FUNCTIONS,
        limits=(2, 100),
        step=2,
        when=BY_RECIPE,
    ),
    _choice("angular_kind", ("G4", "G5"), "G4", "kind of angles", FUNCTIONS, when=BY_RECIPE),
    _choice(
        "angular_range",
        ("long", "short", "both", "imbalzano"),
        "both",
        "eta·Rc² of the angles: 1, 6, both; or two by the recipe",
        FUNCTIONS,
        when=BY_RECIPE,
    ),
    _choice(
        "angular_zetas", ("1", "1 4", "1 4 16"), "1 4", "their zetas", FUNCTIONS, when=BY_RECIPE
    ),
    # (d) the training; what does it comes first, for it says how large the network may be.
    _choice(
        "optimizer",
        ("adam", "adamw", "ekf"),
        "adam",
        "optimiser",
        "optim.optimizer",
        among=("adam", "adamw", "lbfgs", "ekf"),
    ),
    # (c) the network
    _choice("model", ("bpnn", "singlenn"), "bpnn", "a network per element, or one", "model.name"),
    _number(
        "layers",
        1,
        3,
        2,
        "hidden layers",
        "model.num_layers",
        "model.hidden_layers",
        limits=(1, 20),
    ),
    _number(
        "width",
        20,
        80,
        50,
        "nodes of each layer",
        "model.num_nodes",
        "model.hidden_layers",
        limits=(1, 10_000),
        step=10,
        when=(("optimizer", ("adam", "adamw", "lbfgs")),),
    ),
    _number(
        "ekf_width",
        15,
        30,
        20,
        "nodes of each layer for the Kalman filter, whose covariance of wider ones fits no memory; "
        "where `width` is given, that holds for the filter, too",
        "model.num_nodes",
        "model.hidden_layers",
        limits=(1, 10_000),
        step=5,
        when=(("optimizer", ("ekf",)),),
    ),
    _choice(
        "activation",
        ("Tanh", "SiLU", "Softplus"),
        "Tanh",
        "between the layers",
        "model.activation",
        among=("Tanh", "SiLU", "Softplus", "GELU", "ELU", "Sigmoid", "ReLU"),
    ),
    # (d) the rest of the training
    _choice(
        "batchnorm",
        (False, True),
        False,
        "batch normalisation, which the Kalman filter has no place for",
        "model.batchnorm",
        when=GRADIENT,
    ),
    _number(
        "lr",
        1e-3,
        2e-2,
        4e-3,
        "learning rate at the beginning",
        "optim.lr",
        limits=(1e-8, 10),
        log=True,
        when=GRADIENT,
    ),
    _choice(
        "schedule",
        ("cosine", "constant"),
        "cosine",
        "of the learning rate",
        "optim.scheduler",
        when=GRADIENT,
    ),
    _choice(
        "batch_size",
        (4, 8, 16, 32),
        8,
        "frames in a batch",
        "optim.batch_size",
        among=tuple(2**n for n in range(13)),
    ),
    _number(
        "force_coefficient",
        50.0,
        5000.0,
        500.0,
        "weight of the forces in the loss",
        "optim.force_coefficient",
        limits=(0, 1e9),
        log=True,
    ),
    _choice(
        "force_fraction",
        (1.0, 0.5, 0.25),
        1.0,
        "share of the forces in each step",
        "optim.force_fraction",
        among=(1.0, 0.75, 0.5, 0.25, 0.2, 0.1, 0.05),
    ),
    _number(
        "weight_decay",
        1e-7,
        1e-2,
        1e-5,
        "of AdamW",
        "optim.optimizer_args",
        limits=(0, 10),
        log=True,
        when=(("optimizer", ("adamw",)),),
    ),
    _choice(
        "early_stopping",
        (0,),
        0,
        "epochs without improvement before the end; 0 for never",
        "cmd.early_stopping",
        among=(0, 10, 20, 50, 100, 200),
    ),
    _choice(
        "averaging",
        ("none", "ema", "swa"),
        "none",
        "of the weights: none, exponential, or over the last epochs",
        "optim.averaging",
    ),
)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
# Changes of the baseline with which the trials after it begin: the extended Kalman
# filter, which takes small networks (`width`, where it holds for the filter) and larger batches, on
# functions by a published recipe.
OTHER_STARTS = (
    {
        "optimizer": "ekf",
        "width": 20,
        "batch_size": 16,
        "averaging": "ema",
        "radial_recipe": "imbalzano-shifted",
    },
)
OF_FORCES = ("force_coefficient", "force_fraction")


class Space:
    """Hold the search space: {name: Range or Choice} in `domains`, in the order of PARAMETERS.

    given : `tuning.space` of a configuration
    base : its other sections; what they say fixes the parameters that stand for it

    Raises ValueError or TypeError that names the parameter that is unknown, has no meaning, leaves
    nothing to choose from, or is given twice.
    """

    def __init__(
        self, given: Mapping[str, Any] | None = None, base: Mapping[str, Any] | None = None
    ):
        given, base = dict(given or {}), base or {}
        for name in given:
            if name not in BY_NAME:
                raise ValueError(f"tuning.space has no {name!r}{nearest(name, list(BY_NAME))}")
        forces = (base.get("model") or {}).get("get_forces", True)
        self.domains: dict[str, Range | Choice] = {}
        self.fixed: dict[str, Any] = {}
        for parameter in PARAMETERS:
            name = parameter.name
            fixed = [key for key in parameter.keys if _says(base, key)]
            if name in given and fixed:
                raise ValueError(
                    f"tuning.space.{name} and {fixed[0]} are both given; leave out one of them"
                )
            if name in given and name in OF_FORCES and not forces:
                raise ValueError(f"tuning.space.{name} is given, but model.get_forces is False")
            if fixed:
                self.fixed[name] = parameter.known(base, fixed[0])
            elif name == "ekf_width" and "width" in given and name not in given:
                continue
            elif forces or name not in OF_FORCES:
                default = parameter.default
                self.domains[name] = parameter.parse(given[name]) if name in given else default

    @property
    def searched(self) -> list[str]:
        """Return the names of the parameters with more than one value."""
        return [name for name, domain in self.domains.items() if not domain.single]

    @property
    def reachable(self) -> list[str]:
        """Return the names of the parameters that matter in some trial."""
        return [
            name
            for name in self.domains
            if all(
                any(value in ok for value in self._possible(other))
                for other, ok in self._conditions(name)
            )
        ]

    def suggest(self, trial: "Trial") -> dict[str, Any]:
        """Return {name: value} of a trial; parameters that do not matter in it are left out."""
        return self._filled(lambda name, domain: domain.suggest(trial, name))

    def baseline(self) -> dict[str, Any]:
        """Return the documented start, or the values of this space nearest to it."""
        return self._start({})

    def starts(self) -> list[dict[str, Any]]:
        """Return the baseline and other good starts, as near as this space has them, each once."""
        starts: list[dict[str, Any]] = []
        for changes in ({}, *OTHER_STARTS):
            start = self._start(changes)
            if start not in starts:
                starts.append(start)
        return starts

    def _start(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        return self._filled(
            lambda name, domain: domain.nearest(changes.get(name, BY_NAME[name].start))
        )

    def largest_cutoff(self) -> float | None:
        """Return the largest cutoff, Å, or None where the configuration fixes the functions."""
        domain = self.domains.get("cutoff")
        return None if domain is None else domain.highest()

    def _conditions(self, name: str) -> tuple:
        """Return ((other parameter, values), …): `name` has a meaning with these values only."""
        if name == "width" and "ekf_width" not in self.domains:
            return ()
        return BY_NAME[name].when

    def _possible(self, name: str) -> Sequence[Any]:
        if name in self.fixed:
            return (self.fixed[name],)
        domain = self.domains[name]
        assert isinstance(domain, Choice)
        return domain.values

    def _filled(self, value: Callable[[str, Any], Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, domain in self.domains.items():
            known = {**self.fixed, **values}
            if all(known[other] in ok for other, ok in self._conditions(name)):
                values[name] = value(name, domain)
        return values


def _says(base: Mapping[str, Any], key: str) -> bool:
    section, _, name = key.partition(".")
    return (base.get(section) or {}).get(name) is not None
