"""Several networks trained one after another in one training, whose mean is the potential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback
from tqdm import tqdm

from amptorch.config import Config
from amptorch.model import AtomicModel, make_model
from amptorch.model.committee import join, part
from amptorch.training.progress import Progress

# Epochs that each network has at least: where there is no time for that, there are fewer networks.
FEWEST_EPOCHS = 40


def one_member(settings: Config) -> Config:
    """Return the settings of a single network of those that `model.members` asks for."""
    return replace(settings, model=replace(settings.model, members=1))


class Committee(Callback):
    """Begin with a fresh network when the one before has had its share of the training.

    members : the largest number of networks; each has an equal share of the time (or of the
        epochs), and FEWEST_EPOCHS at least
    progress : how far the training is
    fresh : called for the parameters, a state dict, that network `number` begins with

    `parts_` holds the best parameters of those that have ended, at the end those of all. It comes
    after the callback that keeps the best epoch. Its state makes a resumed training go on.
    """

    def __init__(
        self, members: int, progress: Progress, fresh: Callable[[int], dict[str, Any]]
    ) -> None:
        self.members = members
        self.progress = progress
        self.fresh = fresh

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin with the first network."""
        self.parts_: list[dict[str, Any]] = []
        self.first_share_, self.number_ = 0.0, 0
        self.begun_, self.first_epochs_ = 0, 0

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin with the next network where it is its turn."""
        share, epochs = self.progress.share(net.max_epochs), self.progress.epochs_
        if not self.parts_:
            number = min(self.members, int(1.02 / share))
            if epochs < FEWEST_EPOCHS or share < 1 / self.members or number < 2:
                return
            self.first_share_, self.number_, self.first_epochs_ = share, number, epochs
        ended = len(self.parts_)
        others = (1 - self.first_share_) * ended / max(1, self.number_ - 1)
        if share < self.first_share_ + others - 1e-9 or ended + 1 >= self.number_:
            return
        self.parts_.append(self._best(net))
        self.begun_ = epochs
        net.module_.load_state_dict(self.fresh(len(self.parts_)))
        net.optimizer_.state.clear()
        for name, callback in net.callbacks_:
            if hasattr(callback, "best_score_") or name == "checkpoint":
                callback.initialize()
            elif name in ("averaging", "divergence"):
                callback.on_train_begin(net)
        if net.verbose:
            # The errors in the table of the epochs begin anew.
            tqdm.write(f"network {len(self.parts_) + 1} of {self.number_}")

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the last network, unless it was ended long before the others."""
        if not self.parts_ or self.progress.epochs_ - self.begun_ >= self.first_epochs_ / 2:
            self.parts_.append(self._best(net))

    @staticmethod
    def _best(net: NeuralNet) -> dict[str, Any]:
        best = getattr(dict(net.callbacks_).get("checkpoint"), "best_", None)
        state = net.module_.state_dict() if best is None else best
        return {name: values.clone() for name, values in state.items()}


def mean_of(net: NeuralNet, settings: Config, n_inputs: int) -> tuple[AtomicModel, Config]:
    """Return the model that a net has been trained to, the mean of a `Committee` where it has one,
    and its settings."""
    committee = dict(net.callbacks_).get("committee")
    parts = [] if committee is None else committee.parts_
    single = one_member(settings)
    elements: Any = settings.dataset.elements
    arguments = elements, n_inputs, settings.cmd.dtype
    if len(parts) < 2:
        if parts:
            net.module_.load_state_dict(parts[0])
        return net.module_, single
    settings = replace(settings, model=replace(settings.model, members=len(parts)))
    members = []
    for parameters in parts:
        members.append(make_model(single.model, *arguments))
        members[-1].load_state_dict(parameters)
    model = make_model(settings.model, *arguments).to(net.device)
    join(members, model)
    return model, settings


def parts_of(model: AtomicModel, settings: Config, n_inputs: int) -> list[dict[str, Any]]:
    """Return the parameters of the networks that `model` is the mean of."""
    members, single = settings.model.members, one_member(settings)
    elements: Any = settings.dataset.elements
    found = []
    for number in range(members):
        own = make_model(single.model, elements, n_inputs, settings.cmd.dtype)
        part(model, number, members, own)
        found.append(own.state_dict())
    return found
