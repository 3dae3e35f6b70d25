"""Reproducible training that leaves the user's random numbers alone."""

from contextlib import contextmanager
from threading import Lock

import torch
from torch.utils.data import DataLoader

# torch's own random numbers are those of the whole process, of all its threads.
_TORCH = Lock()


class RandomState:
    """Holds the random numbers of one trainer, apart from those of the program and of other
    trainers, in other threads too.

    They are a stream that starts at `seed`, and one on the GPU where `device` is one.
    """

    def __init__(self, seed, device="cpu"):
        self.seed = seed
        device = torch.device(device)
        devices = [torch.device("cpu")] + ([device] if device.type == "cuda" else [])
        self._generators = {device.type: torch.Generator(device) for device in devices}
        for generator in self._generators.values():
            generator.manual_seed(seed)

    def generator(self, device="cpu"):
        """Return the torch.Generator on a device."""
        return self._generators[torch.device(device).type]

    def get(self):
        """Return where the streams are, as a list of tensors, that of the CPU first."""
        return [generator.get_state() for generator in self._generators.values()]

    def set(self, states):
        """Go on from what `get` gave; on a GPU from a state of the CPU alone, the GPU's numbers go
        on as they would have."""
        for generator, state in zip(self._generators.values(), states, strict=False):
            generator.set_state(state)

    @contextmanager
    def as_torchs_own(self):
        """Let torch's random numbers be those on the CPU within a block: for what takes no
        generator, as layers do not when they are made. One thread at a time can be in such a
        block; torch's own numbers are as before when it ends."""
        generator = self.generator()
        with _TORCH:
            before = torch.get_rng_state()
            torch.set_rng_state(generator.get_state())
            try:
                yield
            finally:
                generator.set_state(torch.get_rng_state())
                torch.set_rng_state(before)

    # Generators of older torch cannot be copied or pickled.
    def __getstate__(self):
        return {"seed": self.seed, "device": list(self._generators)[-1], "states": self.get()}

    def __setstate__(self, state):
        self.__init__(state["seed"], state["device"])
        self.set(state["states"])


def seeded_loader(*args, random, **kwargs):
    """Return torch's DataLoader whose order is drawn from `random`, a `RandomState`."""
    return DataLoader(*args, generator=random.generator(), **kwargs)
