"""Several processes that train one network together, or one process alone: the same loop.

``torchrun`` starts the processes; each sees its share of every batch. Gradients, the moments of
batch normalisation and the log are summed over the group. So a batch gives the same step for any
number of processes, up to the order of the sums.

Only torch.distributed's collectives are used. Wrappers that average gradients during the backward
pass assume that every step uses every weight once. Ours does not: discriminator and generator take
turns, and a classifier may be frozen.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

PATIENCE = timedelta(hours=2)  # the others wait while the first process scores validation clips


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, and which of them this one is."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the group."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        joined = torch.cat([tensor.flatten() for tensor in tensors])  # one message for all
        dist.all_reduce(joined)
        parts = joined.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Return when all processes have called this."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started; without it the group is this process alone.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``; several processes on GPUs have one each.
    """
    own = torch.device(device)
    if not dist.is_torchelastic_launched():
        yield ProcessGroup(own)
        return
    if own.type == "cuda":
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield ProcessGroup(own, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class _SumOverGroup(torch.autograd.Function):
    """A sum over the group, with gradients for every process's part."""

    @staticmethod
    def forward(ctx, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class GroupBatchNorm(_BatchNorm):
    """Batch normalisation over the batch of the whole group, on any device.

    torch's own SyncBatchNorm does the same, but only on GPUs.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected at least (N, C), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...) over all but C; in training over the group's whole batch."""
        if not self.training:
            return super().forward(x)
        rest = [0, *range(2, x.ndim)]
        wide = [1, -1, *[1] * (x.ndim - 2)]
        values = x.float()
        count = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        total = _SumOverGroup.apply(torch.cat([values.sum(rest), count]))
        mean = total[:-1] / total[-1]
        # In two passes: the mean of squares minus the squared mean would lose digits.
        squares = (values - mean.view(wide)).square().sum(rest)
        variance = _SumOverGroup.apply(squares) / total[-1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = variance * total[-1] / (total[-1] - 1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return ((values - mean.view(wide)) * scale.view(wide) + self.bias.view(wide)).to(x.dtype)


def share_norms(network: nn.Module) -> None:
    """Normalise over the group's whole batch in every batch normalisation of ``network``."""
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            shared = GroupBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(network, name, shared.train(child.training))
        else:
            share_norms(child)
