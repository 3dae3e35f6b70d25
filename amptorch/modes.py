"""Leave aside what a program has set for torch: networks are trained and evaluated without it."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Let torch make tensors on the CPU that can have gradients, although the caller has set
    another default device, or is in `torch.inference_mode()`."""
    import torch

    if torch.get_default_device().type == "cpu" and not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.device("cpu"):
        yield
