"""The skorch net that trains a potential."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from skorch import NeuralNetRegressor
from skorch.utils import to_device

from amptorch.config import OptimConfig
from amptorch.data.batch import Batch, Share
from amptorch.data.loader import BatchLoader, root_of
from amptorch.data.target_scaler import TargetScaler
from amptorch.optimizers import EKF
from amptorch.training.callbacks import EpochTable, NamedCallback
from amptorch.training.kalman import kalman_step
from amptorch.training.progress import Progress
from amptorch.training.random_state import RandomState
from amptorch.training.ranks import Ranks

Prediction = tuple[torch.Tensor, ...]


class PotentialNet(NeuralNetRegressor):
    """Train a model by skorch on batches of frames with the targets [energy, forces].

    target_scaler : turns errors of scaled targets into eV and eV/Å for the scores
    ranks : the processes that train together; losses and scores are those of whole batches in
        every process
    progress : how far the training is; it ends with its time
    random : random numbers of the training
    """

    def __init__(
        self,
        module: torch.nn.Module | type[torch.nn.Module],
        *args: Any,
        target_scaler: TargetScaler | None = None,
        ranks: Ranks | None = None,
        progress: Progress | None = None,
        random: RandomState | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, *args, **kwargs)
        self.target_scaler = target_scaler
        self.ranks = ranks
        self.progress = progress
        self.random = random

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return skorch's iterator; a `BatchLoader` is told the number of finished epochs."""
        iterator = super().get_iterator(dataset, training)
        if isinstance(iterator, BatchLoader):
            iterator.epoch = lambda: len(self.history)
        return iterator

    def infer(self, x: Batch | Share, **fit_params: Any) -> Prediction:
        """Return (energy, forces), and stresses where these are trained on, of a batch, scaled.

        With several processes each evaluates its share, so all have to call it.
        """

        def evaluate(part: Batch) -> Prediction:
            return self.module_(to_tensor(part, self.device), **fit_params)

        return self._ranks.evaluate(x, evaluate)

    def get_loss(
        self,
        y_pred: Prediction,
        y_true: Sequence[torch.Tensor],
        X: Batch | Share | None = None,
        training: bool = False,
    ) -> torch.Tensor:
        """Return the loss of a batch; y_true is `Batch.targets`."""
        y_true = to_tensor(y_true, self.device)
        if X is not None and self._energy_per_atom:
            return self.criterion_(y_pred, y_true, X.counts)
        return self.criterion_(y_pred, y_true)

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Make skorch's step, or one of the Kalman filter, which takes no gradient of the loss."""
        if isinstance(self.optimizer_, EKF):
            self._set_training(True)
            return kalman_step(self, batch)
        return super().train_step(batch, **fit_params)

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute the gradients as skorch does, and sum those of all processes."""
        step = super().train_step_single(batch, **fit_params)
        self._ranks.sum_gradients(self.module_.parameters())
        return step

    @property
    def _default_callbacks(self) -> list[NamedCallback]:
        """Return skorch's own callbacks, with this package's table of the epochs."""
        callbacks = dict(super()._default_callbacks)
        return list({**callbacks, "print_log": EpochTable(floatfmt=".5g")}.items())

    def run_single_epoch(
        self, iterator: Iterable[Any], training: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Run skorch's epoch; stop with the batch in which the time ends."""
        progress: Progress | None = self.progress
        if training and progress is not None:
            iterator = takewhile(lambda _: not progress.over, iterator)
        super().run_single_epoch(iterator, training, *args, **kwargs)

    def forward_iter(
        self, X: Any, training: bool = False, device: torch.device | str = "cpu"
    ) -> Iterator[Any]:
        """Yield the predictions of batches in the order of the frames, from any data set."""
        if training:
            yield from super().forward_iter(X, training, device)
            return
        iterator = self.get_iterator(self.get_dataset(X))
        if isinstance(iterator, BatchLoader):
            # Batches of a store have frames of every part of it.
            iterator = iterator.in_order()
        for batch in iterator:
            yield to_device(self.evaluation_step(batch), device)

    def on_epoch_begin(self, net: "PotentialNet", **kwargs: Any) -> None:
        """Begin an epoch, unless the time is over."""
        if self.progress is not None and self.progress.over:
            # Before the epoch is in the history; skorch ends the training.
            raise KeyboardInterrupt
        self._forget_batches()
        if self._energy_per_atom and not self.criterion_.mean_atoms:
            dataset, frame_ids = root_of(kwargs["dataset_train"])
            self.criterion_.mean_atoms.fill_(float(dataset.counts[frame_ids].mean()))
        super().on_epoch_begin(net, **kwargs)
        self.align()

    def on_train_end(self, net: "PotentialNet", **kwargs: Any) -> None:
        """End the training."""
        super().on_train_end(net, **kwargs)
        self._forget_batches()

    def _forget_batches(self) -> None:
        """Remove the values of single batches from the history of the last epoch.

        skorch has made the values of the epoch out of them. They would grow with frames times
        epochs.
        """
        if self.history:
            self.history[-1]["batches"] = []

    def align(self) -> None:
        """Give all processes the parameters, and the random numbers, of the first."""
        self._ranks.align(self.module_, self.random)

    @property
    def _energy_per_atom(self) -> bool:
        """Return whether the loss is one of energies per atom."""
        return getattr(self.criterion_, "energy_per_atom", False)

    @property
    def _ranks(self) -> Ranks:
        """Return the processes that train together."""
        return Ranks() if self.ranks is None else self.ranks


def criterion_args(criterion: Callable[..., Any], optim: OptimConfig) -> dict[str, Any]:
    """Return `force_coefficient`, `stress_coefficient`, `loss`, `energy_per_atom` and `huber_delta`
    of the section `optim`, where the criterion takes them, by skorch's names.

    Raises ValueError where a criterion of the user's own cannot do what `optim` asks for.
    """
    given = {
        "force_coefficient": optim.force_coefficient,
        "stress_coefficient": optim.stress_coefficient,
        "loss": optim.loss,
        "energy_per_atom": optim.energy_per_atom,
        "huber_delta": optim.huber_delta,
    }
    taken = inspect.signature(criterion).parameters
    for name in ("energy_per_atom", "stress_coefficient"):
        if given[name] and name not in taken:
            raise ValueError(
                f"optim.{name} is {given[name]}, but optim.loss_fn {criterion.__name__} does not "
                f"take {name}; leave it out, or derive the class from amptorch.model.CustomLoss"
            )
    return {f"criterion__{name}": value for name, value in given.items() if name in taken}


def optimizer_args(optim: OptimConfig, networks: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of the optimizer by skorch's names.

    Those in the section `optim` have skorch's names or the optimizer's own. For the Kalman filter
    each network's parameters are a group of their own, unless `decoupled` is False.

    networks : for each network, a pattern of the names of its parameters
    """
    prefix = "optimizer__"
    arguments = {name.removeprefix(prefix): value for name, value in optim.optimizer_args.items()}
    if optim.optimizer is EKF and arguments.pop("decoupled", True):
        arguments.setdefault("param_groups", [(pattern, {}) for pattern in networks])
    return {f"{prefix}{name}": value for name, value in arguments.items()}


def to_tensor(X: Any, device: torch.device | str, accept_sparse: bool = False) -> Any:
    """Return a batch, tensors or arrays as tensors on `device`, also those in tuples and lists."""
    if isinstance(X, Batch):
        return X.to(device)
    if isinstance(X, (tuple, list)):
        return type(X)(to_tensor(x, device) for x in X)
    return torch.as_tensor(X).to(device)
