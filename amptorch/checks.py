"""Checks of configuration values: `check(key, value)` returns the value as it is kept.

A check raises ValueError or TypeError that names the key, the value and what would be right, and
never changes what it was given.
"""

import copy
import difflib
import importlib
import numbers
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from amptorch.modes import ordinary_tensors

Check = Callable[[str, Any], Any]


def nearest(name: object, known: Collection[str], likeness: float = 0.6) -> str:
    """Return ", did you mean 'lr'?" for the known name nearest to `name`, or the list of known
    names where none is as near as `likeness`, 0 to 1."""
    match = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=likeness)
    return f", did you mean {match[0]!r}?" if match else f"; known are {', '.join(sorted(known))}"


def boolean(key: str, value: Any) -> bool:
    """Return True or False, of a number 0 or 1 too."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{key} must be True or False, got {value!r}")


def number(
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    integer: bool = False,
) -> Check:
    """Return the check of a number: `minimum` and `maximum` are allowed themselves, `above` and
    `below` are not."""
    kind = "an integer" if integer else "a number"
    limits = [("at least", minimum), ("at most", maximum), ("above", above), ("below", below)]
    bounds = " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)
    wanted = f"{kind} {bounds}".strip()

    def check(key: str, value: Any) -> float:
        # PyYAML reads 1e-3, which has no dot, as a string.
        try:
            result = float(value) if isinstance(value, (str, numbers.Real)) else None
        except ValueError:
            result = None
        if result is None or isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{key} must be {wanted}, got {value!r}")
        if (
            not np.isfinite(result)
            or (integer and result != int(result))
            or (minimum is not None and result < minimum)
            or (maximum is not None and result > maximum)
            or (above is not None and result <= above)
            or (below is not None and result >= below)
        ):
            raise ValueError(f"{key} must be {wanted}, got {value!r}")
        if isinstance(value, numbers.Integral):
            result = int(value)  # exact, where a float would round a large seed
        return int(result) if integer else float(result)

    return check


def choice(*names: str) -> Callable[[str, Any], str]:
    """Return the check of one of a few names, in any case."""

    def check(key: str, value: Any) -> str:
        if isinstance(value, str) and value.lower() in names:
            return value.lower()
        wanted = " or ".join(repr(name) for name in names)
        raise ValueError(f"{key} must be {wanted}, got {value!r}")

    return check


def mapping(key: str, value: Any) -> dict:
    """Return a copy of a dictionary."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{key} must be a dictionary, got {value!r}")
    return copy.deepcopy(dict(value))


def path(key: str, value: Any) -> str:
    """Return a path as a string."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{key} must be a path, got {value!r}")
    return os.fspath(value)


def paths(key: str, value: Any) -> list[str]:
    """Return one path or several as a list of strings."""
    values = [value] if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(values, (list, tuple)) or not values:
        raise TypeError(f"{key} must be a list of paths, got {value!r}")
    return [path(key, item) for item in values]


def identifier(key: str, value: Any) -> str:
    """Return a text that can be part of a folder's name."""
    name = str(value)
    if not name or name != Path(name).name or not name.isprintable():
        raise ValueError(
            f"{key} is part of a folder's name and may hold no separator and nothing that cannot "
            f"be printed, got {value!r}"
        )
    return name


def anything(key: str, value: Any) -> Any:
    """Return the value, whatever it is."""
    return value


def text(key: str, value: Any) -> str:
    """Return a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{key} must be a name, got {value!r}")
    return value


def hidden_layers(key: str, value: Any) -> list[int]:
    """Return the widths of layers."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise TypeError(f"{key} must be a list of layer widths, got {value!r}")
    return [number(minimum=1, integer=True)(key, width) for width in value]


def elements(key: str, value: Any) -> list[str]:
    """Return chemical symbols, none of them twice."""
    from ase.data import atomic_numbers

    if not isinstance(value, (list, tuple, np.ndarray)) or not len(value):
        raise TypeError(
            f"{key} must be a list of chemical symbols such as ['Cu', 'O'], got {value!r}"
        )
    symbols = [str(symbol) for symbol in value]
    for symbol in symbols:
        if symbol not in atomic_numbers:
            raise ValueError(f"{key}: {symbol!r} is not a chemical symbol")
    if len(set(symbols)) != len(symbols):
        raise ValueError(f"{key} names an element twice: {symbols}")
    return symbols


def fp_scheme(key: str, value: Any) -> str:
    """Return the kind of fingerprint, in any case."""
    if str(value).lower() == "mcsh":
        raise ValueError(f"{key} {value!r} is called 'gmp' since v1.0")
    return choice("gaussian", "gmp", "gmpordernorm")(key, value)


def fp_params(key: str, value: Any) -> Any:
    """Return parameters of fingerprints: a copy of a dictionary, or a GaussianDescriptorSet; of
    "auto", {"recipe": "auto"}."""
    if value == "auto":
        return {"recipe": "auto"}
    if isinstance(value, Mapping):
        return copy.deepcopy(dict(value))
    if hasattr(value, "descriptor_setup"):
        return value
    raise TypeError(f"{key} must be a dictionary, 'auto' or a GaussianDescriptorSet, got {value!r}")


def of_functions(fp_params: Any) -> bool:
    """Tell whether parameters of fingerprints are symmetry functions, or a recipe for them."""
    from ase.data import atomic_numbers

    keys = {"default", "recipe", *atomic_numbers}
    return hasattr(fp_params, "descriptor_setup") or not keys.isdisjoint(fp_params or ())


def known_keys(key: str, value: Any, known: Collection[str]) -> None:
    """Raise ValueError where a dictionary holds other keys than the known ones."""
    for name in mapping(key, value):
        if name not in known:
            raise ValueError(f"{key} has no key {name!r}{nearest(name, known)}")


def scaling(key: str = "scaling", value: Any = None) -> dict[str, Any]:
    """Return the settings of feature scaling with their defaults: `type`, `range`, `elementwise`,
    `threshold`.

    A feature whose range (or standard deviation) is below `threshold` is divided by 1.
    """
    value = {} if value is None else value
    known_keys(key, value, ["type", "range", "elementwise", "threshold"])
    kind = choice("normalize", "standardize")(f"{key}.type", value.get("type", "normalize"))
    limits = value.get("range", (0, 1))
    if not isinstance(limits, (list, tuple, np.ndarray)) or len(limits) != 2:
        raise TypeError(f"{key}.range must be two numbers such as (0, 1), got {limits!r}")
    low, high = (number()(f"{key}.range", limit) for limit in limits)
    if not low < high:
        raise ValueError(f"{key}.range must rise, got {limits!r}")
    return {
        "type": kind,
        "range": (low, high),
        "elementwise": boolean(f"{key}.elementwise", value.get("elementwise", True)),
        "threshold": number(minimum=0)(f"{key}.threshold", value.get("threshold", 1e-6)),
    }


def pca(key: str, value: Any) -> dict[str, Any]:
    """Return the settings of principal components with their defaults: `num_pc` and
    `elementwise`."""
    known_keys(key, value, ["num_pc", "elementwise"])
    return {
        "num_pc": number(minimum=1, integer=True)(f"{key}.num_pc", value.get("num_pc", 20)),
        "elementwise": boolean(f"{key}.elementwise", value.get("elementwise", False)),
    }


def repulsion(key: str, value: Any) -> dict[str, Any]:
    """Return the settings of a repulsive pair potential with their defaults, of "zbl" or of
    options."""
    options = {"kind": value} if isinstance(value, str) else mapping(key, value)
    known_keys(key, options, ["kind", "inner", "outer"])
    kind = choice("zbl")(f"{key}.kind", options.get("kind", "zbl"))
    outer = number(above=0)(f"{key}.outer", options.get("outer", 0.9))
    inner = number(minimum=0, below=outer)(f"{key}.inner", options.get("inner", outer / 2))
    return {"kind": kind, "inner": inner, "outer": outer}


def atomic_correction(key: str, value: Any) -> bool | dict[str, float]:
    """Return True, False, or reference energies {symbol: eV}."""
    if not isinstance(value, Mapping):
        try:
            return boolean(key, value)
        except TypeError:
            raise TypeError(
                f"{key} must be True, False, or energies in eV such as {{'Cu': -3.7}}, "
                f"got {value!r}"
            ) from None
    symbols = elements(key, list(value)) if value else []
    return {symbol: number()(f"{key}[{symbol!r}]", value[symbol]) for symbol in symbols}


def weights(key: str, value: Any) -> np.ndarray | str:
    """Return positive numbers (F,), one for each frame, or their name in `Atoms.info`."""
    if isinstance(value, str):
        return value
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.ndim != 1:
        raise TypeError(
            f"{key} must be a list of a number for each frame, or a key of Atoms.info, "
            f"got {value!r}"
        )
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if len(bad):
        raise ValueError(
            f"{key}[{bad[0]}] is {array[bad[0]]}; weights must be positive (leave out frames that "
            "are not to count)"
        )
    return array


def group_weights(key: str, value: Any) -> dict[str, float]:
    """Return positive numbers by the names of groups of frames."""
    of_group = number(above=0)
    return {str(name): of_group(f"{key}[{name!r}]", w) for name, w in mapping(key, value).items()}


# --- classes, given as such or by name ---


def _named_classes(modules: Iterable[str], base: type) -> dict[str, type]:
    """Return {lower-case name: class} of the subclasses of `base` in the modules named."""
    return {
        name.lower(): member
        for module in modules
        for name, member in vars(importlib.import_module(module)).items()
        if isinstance(member, type) and issubclass(member, base) and not name.startswith("_")
    }


def torch_class(modules: Iterable[str], base: str, example: str) -> Check:
    """Return the check of a class: itself, any callable that makes one, or a name in `modules`.

    A name with dots is looked up among the modules that are already imported: reading a
    configuration never imports what it names.
    """

    def check(key: str, value: Any) -> Any:
        parent, _, name = base.rpartition(".")
        base_class = getattr(importlib.import_module(parent), name)
        if isinstance(value, str):
            known = _named_classes(modules, base_class)
            holder, _, name = value.strip().rpartition(".")
            found = (
                getattr(sys.modules.get(holder), name, None) if holder else known.get(name.lower())
            )
            if not (isinstance(found, type) and issubclass(found, base_class)):
                hint = (
                    "; import what defines it first, or give the class itself"
                    if holder
                    else nearest(name, list(known))
                )
                raise ValueError(f"{key}: no class {value!r} is known{hint}")
            return found
        if isinstance(value, base_class) or not callable(value):
            raise TypeError(f"{key} must be a class such as {example}, got {value!r}")
        return value

    return check


_module_class = torch_class(
    ("torch.nn", "amptorch.model.activations"), "torch.nn.Module", "torch.nn.Tanh"
)
optimizer_class = torch_class(
    ("torch.optim", "amptorch.optimizers"), "torch.optim.Optimizer", "torch.optim.Adam"
)
_loss_class = torch_class(("torch.nn",), "torch.nn.Module", "amptorch.model.CustomLoss")
policy_class = torch_class(
    ("torch.optim.lr_scheduler", "skorch.callbacks.lr_scheduler"),
    "torch.optim.lr_scheduler.LRScheduler",
    "torch.optim.lr_scheduler.StepLR",
)


@ordinary_tensors()
def activation_class(key: str, value: Any) -> Callable[[], Any]:
    """Return a class that, made without arguments, gives numbers of double precision for such
    numbers."""
    import torch

    made, x = _module_class(key, value), torch.zeros(2, 3, dtype=torch.float64)
    try:
        result = made()(x)
        works = result.shape == x.shape and result.dtype == x.dtype
        reason = f"it makes {tuple(result.shape)} {result.dtype} of {tuple(x.shape)} {x.dtype}"
    except Exception as error:  # whatever a class of the user's own raises
        works, reason = False, str(error)
    if not works:
        raise ValueError(
            f"{key}: {_name(made)} is no activation of a layer ({reason}); take a class such as "
            "torch.nn.Tanh, which needs no arguments and has no parameters"
        )
    return made


def activations(key: str, value: Any) -> Any:
    """Return an `activation_class`, or a list of them, one for each layer."""
    if isinstance(value, (list, tuple)):
        return [activation_class(f"{key}[{place}]", one) for place, one in enumerate(value)]
    return activation_class(key, value)


def loss_class(key: str, value: Any) -> Any:
    """Return a class of losses that are about energies and forces, as torch's own are not."""
    made = _loss_class(key, value)
    if str(getattr(made, "__module__", "")).startswith("torch.nn"):
        raise ValueError(
            f"{key}: {_name(made)} compares two tensors, and a prediction is (energy, forces); "
            "set optim.loss to 'mse' or 'mae', or give a class as amptorch.model.CustomLoss is"
        )
    return made


@ordinary_tensors()
def optimizer_takes(make: Any, lr: float, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError where an optimizer cannot be made with these arguments, or cannot step on
    the parameters of a layer."""
    import torch

    weight, bias = (torch.nn.Parameter(torch.ones(*n, dtype=torch.float64)) for n in ((2, 2), (2,)))
    try:
        optimizer = make([weight, bias], lr=lr, **arguments)
    except (TypeError, ValueError) as error:
        key = "optim.optimizer_args" if arguments else "optim.optimizer"
        raise ValueError(
            f"{key}: {_name(make)} cannot be made with lr={lr:g} and {arguments}: {error}"
        ) from error
    if getattr(make, "by_observations", False):
        return

    def closure():
        optimizer.zero_grad()
        loss = (weight.square().sum() + bias.square().sum()) / 2
        loss.backward()
        return loss

    try:
        optimizer.step(closure)
    except RuntimeError as error:
        raise ValueError(
            f"optim.optimizer: {_name(make)} cannot train these networks: {error}"
        ) from error


@ordinary_tensors()
def policy_takes(policy: Any, params: Mapping[str, Any]) -> None:
    """Raise ValueError where a learning rate scheduler cannot be made with `params`."""
    import torch

    # Of skorch's LRScheduler itself; and lists may be one for each group of parameters.
    own = ("monitor", "event_name", "step_every")
    params = {name: value for name, value in params.items() if name not in own}
    if any(isinstance(value, (list, tuple)) for value in params.values()):
        return
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    try:
        policy(optimizer, **params)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"optim.scheduler: {_name(policy)} cannot be made with params {params}: {error}"
        ) from error


def _name(value: Any) -> str:
    return getattr(value, "__name__", repr(value))


# Half a cosine until training ends: `trainer.progress.CosineTime`.
COSINE_TIME = "cosine_time"


def scheduler(key: str, value: Any) -> dict[str, Any]:
    """Return "policy", a class or COSINE_TIME, and "params" of a learning rate scheduler."""
    known_keys(key, value, ["policy", "params"])
    if "policy" not in value:
        raise ValueError(f"{key} needs 'policy', the name or class of a learning rate scheduler")
    params = mapping(f"{key}.params", value.get("params", {}))
    if isinstance(value["policy"], str) and value["policy"].lower() == COSINE_TIME:
        known_keys(f"{key}.params", params, ["final"])
        final = number(minimum=0, maximum=1)(f"{key}.params.final", params.get("final", 0.01))
        return {"policy": COSINE_TIME, "params": {"final": final}}
    policy = policy_class(f"{key}.policy", value["policy"])
    policy_takes(policy, params)
    return {"policy": policy, "params": params}


def averaging(key: str, value: Any) -> dict[str, Any]:
    """Return the settings of weight averaging with their defaults, of its kind or of options."""
    options = {"kind": value} if isinstance(value, str) else mapping(key, value)
    known_keys(key, options, ["kind", "decay", "share"])
    kind = choice("ema", "swa")(f"{key}.kind", options.get("kind"))
    name, default = {"ema": ("decay", 0.999), "swa": ("share", 0.25)}[kind]
    known_keys(key, options, ["kind", name])
    checked = number(above=0, below=1)(f"{key}.{name}", options.get(name, default))
    return {"kind": kind, name: checked}


def dtype(key: str, value: Any) -> Any:
    """Return torch.float64 or torch.float32, of v1.0's tensor types, of dtypes, or their names."""
    import torch

    name = str(value).removeprefix("torch.").removeprefix("<class 'torch.").removesuffix("'>")
    kinds = {
        **dict.fromkeys(["doubletensor", "float64", "double"], torch.float64),
        **dict.fromkeys(["floattensor", "float32", "float"], torch.float32),
    }
    if name.lower() not in kinds:
        raise ValueError(
            f"{key} must be torch.DoubleTensor or torch.FloatTensor (or 'float64', 'float32'), "
            f"got {value!r}"
        )
    return kinds[name.lower()]
