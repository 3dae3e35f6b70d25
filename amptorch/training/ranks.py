"""Training by several processes, as `torchrun` starts them on one machine or many.

Every process goes through the same batches in the same order, and evaluates its share of each:
frames that lie in its part of the store, which nobody else reads, or where the data set is in every
process's memory, as many atoms as the others. Energies and forces are then exchanged, so that every
process has the loss and the scores of the whole batch, whatever the loss is, and the sum of the
gradients that they find is that of one process.
"""

import atexit
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from amptorch.data.batch import Batch, Share, rows_inside
from amptorch.data.samplers import cuts_of
from amptorch.threads import num_threads
from amptorch.training.random_state import RandomState

Prediction = tuple[torch.Tensor, ...]
Made = TypeVar("Made")

# torchrun ends the others when one process ends; one that preprocesses may take long.
TIMEOUT = timedelta(days=1)


class Ranks:
    """Let processes train together; this one is number `rank` of `size`.

    They are those that torchrun started, or those of torch's process group where the program has
    made one, or this process alone. Those of torchrun connect when they first exchange data.
    """

    def __init__(self) -> None:
        self.rank, self.size, self._local = 0, 1, (0, 1)
        if dist.is_available() and dist.is_torchelastic_launched():
            self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            self._local = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        elif dist.is_available() and dist.is_initialized():
            self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cpu")
        self._cores = num_threads()

    @property
    def first(self) -> bool:
        """Return whether this is the process that writes and reports."""
        return self.rank == 0

    def use_device(self, gpus: int) -> torch.device:
        """Choose and return the device of this process, where `optim.gpus` is `gpus`.

        Raises ValueError where a GPU is asked for and there is none.
        """
        self.device = torch.device("cpu")
        if gpus == 0:
            return self.device
        if not torch.cuda.is_available():
            raise ValueError(f"optim.gpus is {gpus}, but torch finds no GPU here; set it to 0")
        if gpus > 1 and self.size == 1:
            message = f"optim.gpus is {gpus}; only the first GPU is used; torchrun uses one each"
            warnings.warn(message, stacklevel=5)
        self.device = torch.device(f"cuda:{self._local[0]}")
        return self.device

    @property
    def threads(self) -> int | None:
        """Return the threads of this process, its part of the cores; None for the usual number."""
        if self._local[1] == 1 or "AMPTORCH_NUM_THREADS" in os.environ:
            return None
        return max(1, self._cores // self._local[1])

    @property
    def threads_alone(self) -> int | None:
        """Return its threads while the other processes wait for it; None for the usual number."""
        return None if self.threads is None else self._cores

    # --- a batch ---

    def evaluate(self, batch: Batch | Share, model: Callable[[Batch], Prediction]) -> Prediction:
        """Return what `model` gives of a batch, of which each process evaluates its share.

        Only the rows of this process carry a graph.

        batch : the whole batch, or this process's `Share` of it
        model : gives (energy, forces), with the stresses where the batch has some to compare
        """
        if self.size == 1 and isinstance(batch, Batch):
            return model(batch)
        share = batch if isinstance(batch, Share) else share_of(batch, self.rank, self.size)
        if share.part is None:
            # It still takes part, and needs something for the loss to go back to.
            options: dict[str, Any] = {"dtype": share.energy.dtype, "device": self.device}
            own = [torch.zeros(0, requires_grad=torch.is_grad_enabled(), **options)]
            own += [torch.zeros((0, width), **options) for width in (3, 6)]
        else:
            own = list(model(share.part))
        own = own if share.stress is not None else own[:2]
        sizes = [
            size.tolist()
            for size in self._gather(
                torch.tensor([one.numel() for one in own], device=own[0].device)
            )
        ]
        flat = torch.cat([one.flatten() for one in own])
        padded = flat.detach().new_zeros(max(map(sum, sizes)))
        padded[: len(flat)] = flat.detach()
        values = self._gather(padded)
        values[self.rank] = flat
        parts = [value[: sum(size)].split(size) for value, size in zip(values, sizes, strict=True)]
        energy, *others = (torch.cat(of_all) for of_all in zip(*parts, strict=True))
        shaped = [one.view(-1, width) for one, width in zip(others, (3, 6), strict=False)]
        return (energy, *shaped)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace the gradients of all processes by their sum; one that none has stays None."""
        if self.size == 1:
            return
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        found = [parameter.grad is not None for parameter in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        like = gradients[0]
        total = torch.cat([*map(torch.flatten, gradients), like.new_tensor(found)])
        self._join_group()
        dist.all_reduce(total)
        total, found = total[: -len(found)], total[-len(found) :].tolist()
        pieces = total.split([parameter.numel() for parameter in parameters])
        for parameter, piece, number in zip(parameters, pieces, found, strict=True):
            parameter.grad = piece.view_as(parameter) if number else None

    def align(self, module: torch.nn.Module, random: RandomState | None = None) -> None:
        """Give all processes the parameters and the random numbers of the first.

        Rounding and dropout differ between processes; without this their parameters would too.
        """
        if self.size == 1:
            return
        self._join_group()
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)
        states = [] if random is None else [state.to(self.device) for state in random.get()]
        for state in states:
            dist.broadcast(state, 0)
        if random is not None:
            random.set([state.cpu() for state in states])

    # --- in order ---

    def from_first(self, make: Callable[[], Made]) -> Made:
        """Return in all processes what `make()` gave in the first; the others do not call it."""
        if self.size == 1:
            return make()
        self._join_group()
        values: list[Any] = [make() if self.first else None]
        dist.broadcast_object_list(values, 0, device=self.device)
        return values[0]

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Run a block in the first process, and then in the others."""
        if self.size > 1 and not self.first:
            self.from_first(lambda: None)
        yield
        if self.size > 1 and self.first:
            self.from_first(lambda: None)

    def _gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all processes, which have one shape."""
        self._join_group()
        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(tensors, tensor)
        return tensors

    def _join_group(self) -> None:
        """Connect with the other processes, unless that is done."""
        if dist.is_initialized():
            return
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
        # Kept for the next training: a second group would find what the first has left behind.
        atexit.register(_leave_group)


def _leave_group() -> None:
    """Close the connection to the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def share_of(batch: Batch, rank: int, size: int) -> Share:
    """Return the `Share` of process `rank` of `size` in a batch that every process has.

    The shares are consecutive frames with about equally many atoms.
    """
    first, last = cuts_of(frame_counts(batch), size)[rank : rank + 2]
    part = part_of(batch, first, last) if first < last else None
    energy: Any = batch.energy
    return Share(
        part,
        len(batch),
        energy,
        batch.forces,
        batch.weights,
        batch.force_weights,
        batch.counts,
        batch.stress,
    )


def frame_counts(batch: Batch) -> np.ndarray:
    """Return the number of atoms of each frame of a batch, (frames,)."""
    return batch.counts.cpu().numpy()


def part_of(batch: Batch, first: int, last: int) -> Batch:
    """Return the frames `first` to `last` (without it) of a batch, without their targets."""
    counts = frame_counts(batch)
    start, stop = int(counts[:first].sum()), int(counts[:last].sum())
    element_rows = batch.element_rows
    if element_rows is not None:
        element_rows = [rows_inside(rows, start, stop) for rows in element_rows]
    force_rows: Any = batch.force_rows
    force_rows = None if force_rows is None else rows_inside(force_rows, start, stop)
    return replace(
        batch,
        fingerprint=batch.fingerprint[start:stop],
        atomic_numbers=batch.atomic_numbers[start:stop],
        image_idx=batch.image_idx[start:stop] - first,
        num_images=last - first,
        element_rows=element_rows,
        slope=None if batch.slope is None else batch.slope[start:stop],
        frame_ids=None if batch.frame_ids is None else batch.frame_ids[first:last],
        energy=None,
        forces=None,
        weights=None,
        force_weights=None,
        stress=None,
        volumes=None if batch.volumes is None else batch.volumes[first:last],
        force_rows=force_rows,
    )
