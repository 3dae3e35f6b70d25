"""Reproducible training that leaves the user's random numbers alone."""

from contextlib import contextmanager

import torch


class RandomState:
    """torch's random state of one trainer, kept apart from that of the program.

    `with state():` runs a block on the trainer's own stream of random numbers, which starts at
    `seed` and goes on from block to block; after each block the program's stream is as it was.
    """

    def __init__(self, seed, device="cpu"):
        self.seed = seed
        device = torch.device(device)
        self._cuda = [device.index or 0] if device.type == "cuda" else []
        self._state = None

    @contextmanager
    def __call__(self):
        with torch.random.fork_rng(devices=self._cuda):
            self._enter()
            try:
                yield
            finally:
                self._state = self.get()

    def get(self):
        """Within a block: where the stream is, as a list of tensors, that of the CPU first."""
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in self._cuda)]

    def set(self, state):
        """Within a block: go on from what `get` gave; on a GPU from a state of the CPU alone, the
        GPU's numbers go on as they would have."""
        torch.set_rng_state(state[0])
        for index, of_gpu in zip(self._cuda, state[1:], strict=False):
            torch.cuda.set_rng_state(of_gpu, index)

    def _enter(self):
        if self._state is not None:
            self.set(self._state)
            return
        # torch.manual_seed would also seed devices that are not forked here.
        torch.default_generator.manual_seed(self.seed)
        for index in self._cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(self.seed)
