"""How far a training is: the share of its epochs, or of its time."""

import math
import time
from collections.abc import Callable
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback

from amptorch.training.ranks import Ranks


class Progress(Callback):
    """Count the epochs of a training and, where `seconds` are given, its time.

    seconds : `optim.max_seconds`, or None
    ranks : processes that train together; the time is that of the first
    clock : called for a time in seconds

    Attributes: `epochs_`, finished epochs, and `elapsed_`, seconds of training. A resumed training
    goes on with them.
    """

    def __init__(
        self,
        seconds: float | None = None,
        ranks: Ranks | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self.ranks = ranks
        self.clock = clock

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin to count."""
        self.epochs_, self.elapsed_ = 0, 0.0
        self._last = self.clock()

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Measure the time after each batch."""
        self._measure_time()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Count the epoch."""
        self.epochs_ += 1
        self._measure_time()

    def _measure_time(self) -> None:
        """Add the time since the last call to `elapsed_`."""
        if self.seconds is None:
            return
        now = self.clock()
        spent = self.elapsed_ + now - self._last
        self._last = now
        self.elapsed_ = (self.ranks or Ranks()).from_first(lambda: spent)

    @property
    def over(self) -> bool:
        """Return whether the time is over."""
        return self.seconds is not None and self.elapsed_ >= self.seconds

    def share(self, epochs: int) -> float:
        """Return how far a training of so many epochs is, 0 to 1: by epochs or time, the larger."""
        by_time = 0.0 if self.seconds is None else self.elapsed_ / self.seconds
        return min(1.0, max(self.epochs_ / max(epochs, 1), by_time))


class CosineTime(Callback):
    """Lower the learning rate along half a cosine, from `optim.lr` to `final` times that.

    It is lowest when the training ends, by its epochs or its time. Records `event_lr` as skorch's
    LRScheduler does.
    """

    def __init__(self, progress: Progress, final: float = 0.01) -> None:
        self.progress = progress
        self.final = final

    def on_batch_begin(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        """Set the learning rate of the next batch."""
        if not training:
            return
        share = self.progress.share(net.max_epochs)
        factor = self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * share))
        for group in net.optimizer_.param_groups:
            group["lr"] = factor * group.setdefault("initial_lr", group["lr"])

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the learning rate."""
        net.history.record("event_lr", net.optimizer_.param_groups[0]["lr"])
