"""v1.0's classes for training on several GPUs, on torch.distributed: one process for each GPU.

For training loops of one's own: `AtomsTrainer` does the same by itself under torchrun, see
`trainer.ranks`.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.func import functional_call

from amptorch.data.batch import Batch, Share
from amptorch.data.samplers import cuts_of
from amptorch.training.ranks import Ranks, frame_counts, part_of, share_of
from amptorch.v1.sparse import SparseDerivatives


class ParallelCollater:
    """Serve as the `collate_fn` of a torch DataLoader whose batches go to a `DataParallel`.

    num_gpus : with 0 or 1, and one process, what `collater` makes of the data; otherwise, in place
        of the batch, a list of one for each GPU or process, of consecutive frames with about
        equally many atoms. Where there are fewer frames, the list is shorter.
    collater : `DataCollater`
    """

    def __init__(self, num_gpus: int, collater: Any):
        self.num_gpus = num_gpus
        self.collater = collater
        self.parts = max(num_gpus, Ranks().size)

    def __call__(self, data_list: Any) -> Any:
        if self.parts <= 1:
            return self.collater(data_list)
        if isinstance(data_list, Batch):
            cuts = _ranges(cuts_of(frame_counts(data_list), self.parts))
            batches = [part_of(data_list, *ends) for ends in cuts]
            return (batches, data_list.targets) if self.collater.train else batches
        data = list(data_list)
        cuts = _ranges(cuts_of([len(one.fingerprint) for one in data], self.parts))
        collated = [self.collater(data[first:last]) for first, last in cuts]
        if not self.collater.train:
            return collated
        parts_of_batch: Any
        targets: Any
        parts_of_batch, targets = zip(*collated, strict=True)
        return list(parts_of_batch), [torch.cat(parts) for parts in zip(*targets, strict=True)]


class DataParallel(nn.Module):
    """Wrap a model whose batches are evaluated by several processes together.

    module : BPNN or SingleNN; output_device : the GPU where there is one process, number or name,
        the first by default; num_gpus : 0 for the CPU

    Called with a batch, or a list of them as `ParallelCollater` makes, it gives (energy, forces) of
    all frames. Under torchrun, or in a process group of the program's own, every process is called
    with the same batches, evaluates its share and gets the results of all; a backward pass then
    leaves the gradients of the whole batch in every process, whatever the loss is. A single process
    uses one device, with a warning where `num_gpus` is larger.

    Parameters start from those of the first process. Raises ValueError where there is no GPU.
    """

    def __init__(self, module: torch.nn.Module, output_device: Any = None, num_gpus: int = 0):
        super().__init__()
        self.ranks = Ranks()
        self.device = self.ranks.use_device(num_gpus)
        if num_gpus > 0 and self.ranks.size == 1 and output_device is not None:
            name = f"cuda:{output_device}" if isinstance(output_device, int) else output_device
            self.device = torch.device(name)
        self.output_device = self.device
        self.num_gpus = num_gpus
        self.module = module.to(self.device)
        self.ranks.align(self.module)

    def forward(self, batch_list: Any) -> Any:
        batches = [batch_list] if isinstance(batch_list, Batch) else list(batch_list)
        if self.ranks.size == 1:
            return _concatenated([self.module(part.to(self.device)) for part in batches])
        return self._evaluate_together(batches)

    def _evaluate_together(self, batches: Any) -> Any:
        """Return energies and forces of all frames, of which this process evaluates its share."""
        named = self.module.named_parameters()
        parameters: dict[str, Any] = {name: value for name, value in named if value.requires_grad}
        shared = _SumOfGradients.apply(*parameters.values())
        parameters = dict(zip(parameters, shared, strict=True))

        def evaluate(part: Any) -> Any:
            results = [
                functional_call(self.module, parameters, (one.to(self.device),)) for one in part
            ]
            return _concatenated(results)

        energy, forces = self.ranks.evaluate(self._share(batches), evaluate)
        # Every process goes back through the sum, also one whose share is empty.
        nothing = sum(0 * parameter.sum() for parameter in shared)
        return energy + nothing, forces

    def _share(self, batches: Any) -> Any:
        """Return the `Share` of this process, whose part is a list of batches, or None."""
        rank, size = self.ranks.rank, self.ranks.size
        whole = isinstance(batches[0].derivatives, SparseDerivatives)
        if len(batches) == 1 and not whole:
            part = share_of(batches[0], rank, size).part
            own: Any = [] if part is None else [part]
        else:
            # One matrix for a whole batch is not taken apart.
            atoms = [len(batch.fingerprint) for batch in batches]
            first, last = cuts_of(atoms, size)[rank : rank + 2]
            own = batches[first:last]
        n_frames, nothing = sum(map(len, batches)), batches[0].fingerprint.new_zeros(0)
        return Share(own or None, n_frames, nothing)


class _SumOfGradients(torch.autograd.Function):
    """Return parameters as they are; backward, sum the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, *parameters: torch.Tensor) -> Any:
        return tuple(parameter.view_as(parameter) for parameter in parameters)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        total = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(total)
        pieces = total.split([gradient.numel() for gradient in gradients])
        return tuple(p.view_as(g) for p, g in zip(pieces, gradients, strict=True))


def _concatenated(results: Any) -> Any:
    energies, forces = zip(*results, strict=True)
    return torch.cat(energies), torch.cat(forces)


def _ranges(places: Any) -> list[tuple[int, int]]:
    """Return (first, last) of the ranges between `places` that are not empty."""
    return [(first, last) for first, last in pairwise(places) if first < last]
