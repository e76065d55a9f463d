"""Several processes that train one network together, or one process alone: the same loop.

``torchrun`` starts the processes; each sees its share of every batch. What has to be common is made
so by sums over the team: gradients, the moments of batch normalisation, the log. So a batch gives
the same step however many share it, up to the order of the sums.

Written on torch.distributed's collectives alone. Wrappers that average gradients while they are
computed assume that every step uses every weight once, and ours does not: discriminator and
generator take turns, and a classifier may wait.
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

PATIENCE = timedelta(hours=2)  # for the first process, while it scores the validation clips


@dataclass(frozen=True)
class Team:
    """Where this process stands among those that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the team."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        joined = torch.cat([tensor.flatten() for tensor in tensors])  # one message, not one each
        dist.all_reduce(joined)
        parts = joined.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join(device: str) -> Iterator[Team]:
    """The team that ``torchrun`` started, or a team of one.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``; in a team on GPUs each process has its own.
    """
    if not dist.is_torchelastic_launched():
        yield Team(torch.device(device))
        return
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Team(place, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class _SumOverTeam(torch.autograd.Function):
    """A sum over the team, through which gradients flow to all who gave a part."""

    @staticmethod
    def forward(ctx, part: Tensor) -> Tensor:
        whole = part.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        whole = gradient.contiguous().clone()
        dist.all_reduce(whole)
        return whole


class TeamBatchNorm(_BatchNorm):
    """Batch normalisation over the whole team's batch, on any device.

    torch's own SyncBatchNorm does the same on GPUs alone.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected at least (N, C), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...) over all but C, and over the team while training."""
        if not self.training:
            return super().forward(x)
        rest = [0, *range(2, x.ndim)]
        wide = [1, -1, *[1] * (x.ndim - 2)]
        values = x.float()
        count = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        total = _SumOverTeam.apply(torch.cat([values.sum(rest), count]))
        mean = total[:-1] / total[-1]
        # In two passes: a mean of squares less a squared mean would lose digits.
        squares = (values - mean.view(wide)).square().sum(rest)
        variance = _SumOverTeam.apply(squares) / total[-1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = variance * total[-1] / (total[-1] - 1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return ((values - mean.view(wide)) * scale.view(wide) + self.bias.view(wide)).to(x.dtype)


def share_norms(network: nn.Module) -> None:
    """Let every batch normalisation of ``network`` see the whole team's batch; weights stay."""
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            made = TeamBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            made.load_state_dict(child.state_dict())
            setattr(network, name, made.train(child.training))
        else:
            share_norms(child)
