"""How far a training is: the share of its epochs, or of its time."""

import math
import time

from skorch.callbacks import Callback

from amptorch.training.ranks import Ranks


class Progress(Callback):
    """Counts the epochs of a training and, where `seconds` are given, its time.

    seconds : `optim.max_seconds`, or None
    ranks : processes that train together; the time is that of the first
    clock : called for seconds since whenever

    Attributes, which a resumed training goes on with: `epochs_`, those that are over, and
    `elapsed_`, seconds of training.
    """

    def __init__(self, seconds=None, ranks=None, clock=time.monotonic):
        self.seconds = seconds
        self.ranks = ranks
        self.clock = clock

    def on_train_begin(self, net, **kwargs):
        self.epochs_, self.elapsed_ = 0, 0.0
        self._last = self.clock()

    def on_batch_end(self, net, **kwargs):
        self._look()

    def on_epoch_end(self, net, **kwargs):
        self.epochs_ += 1
        self._look()

    def _look(self):
        if self.seconds is None:
            return
        now = self.clock()
        spent = self.elapsed_ + now - self._last
        self._last = now
        self.elapsed_ = (self.ranks or Ranks()).from_first(lambda: spent)

    @property
    def over(self):
        """Whether the time is spent."""
        return self.seconds is not None and self.elapsed_ >= self.seconds

    def share(self, epochs):
        """Of a training of so many epochs, or of the time if that is nearer to its end: 0 to 1."""
        by_time = 0.0 if self.seconds is None else self.elapsed_ / self.seconds
        return min(1.0, max(self.epochs_ / max(epochs, 1), by_time))


class CosineTime(Callback):
    """Lets the learning rate fall along half a cosine from `optim.lr` to `final` times that, until
    the training ends, by its epochs or its time. Records `event_lr` as skorch's LRScheduler does.
    """

    def __init__(self, progress, final=0.01):
        self.progress = progress
        self.final = final

    def on_batch_begin(self, net, training=False, **kwargs):
        if not training:
            return
        share = self.progress.share(net.max_epochs)
        factor = self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * share))
        for group in net.optimizer_.param_groups:
            group["lr"] = factor * group.setdefault("initial_lr", group["lr"])

    def on_epoch_end(self, net, **kwargs):
        net.history.record("event_lr", net.optimizer_.param_groups[0]["lr"])
