"""Reproducible training that leaves the user's random numbers alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch.utils.data import DataLoader

# All threads of a process share torch's own random numbers.
_TORCH_LOCK = Lock()


class RandomState:
    """Hold the random numbers of one training.

    They are apart from those of the program and of other trainings, in other threads too. They are
    a stream that starts at `seed`, and another one on the GPU where `device` is a GPU.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        device = torch.device(device)
        devices = [torch.device("cpu")] + ([device] if device.type == "cuda" else [])
        self._generators = {device.type: torch.Generator(device) for device in devices}
        for generator in self._generators.values():
            generator.manual_seed(seed)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the torch.Generator on a device."""
        return self._generators[torch.device(device).type]

    def get(self) -> list[torch.Tensor]:
        """Return the states of the streams, that of the CPU first."""
        return [generator.get_state() for generator in self._generators.values()]

    def set(self, states: Sequence[torch.Tensor]) -> None:
        """Go on from the states that `get` gave.

        With a state of the CPU alone, the numbers of a GPU go on as they are.
        """
        for generator, state in zip(self._generators.values(), states, strict=False):
            generator.set_state(state)

    @contextmanager
    def used_by_torch(self) -> Iterator[None]:
        """Make torch draw from this stream (that of the CPU) within a block.

        It is for calls that take no generator, such as making layers. One thread at a time can be
        in such a block. Afterwards torch's own numbers are as before.
        """
        generator = self.generator()
        with _TORCH_LOCK:
            before = torch.get_rng_state()
            torch.set_rng_state(generator.get_state())
            try:
                yield
            finally:
                generator.set_state(torch.get_rng_state())
                torch.set_rng_state(before)

    # Generators of older torch cannot be copied or pickled.
    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied or pickled."""
        return {"seed": self.seed, "device": list(self._generators)[-1], "states": self.get()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the generators anew, in the states that were pickled."""
        vars(self).update(vars(RandomState(state["seed"], state["device"])))
        self.set(state["states"])


def seeded_loader(*args: Any, random: RandomState, **kwargs: Any) -> DataLoader:
    """Return torch's DataLoader whose order is drawn from `random`, a `RandomState`."""
    kwargs["generator"] = random.generator()
    return DataLoader(*args, **kwargs)
