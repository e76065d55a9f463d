"""RAFT, torchvision's trained flow networks, from weights that are already here.

Teed and Deng, "RAFT: recurrent all-pairs field transforms for optical flow" (ECCV 2020).
"""

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import optical_flow

from dmclib import weights

SMALLEST = 128  # pixels: under it, the coarsest of RAFT's correlation maps would be empty

_NETWORKS = {
    "raft": (optical_flow.raft_large, optical_flow.Raft_Large_Weights.DEFAULT),
    "raft-small": (optical_flow.raft_small, optical_flow.Raft_Small_Weights.DEFAULT),
}


def weights_path(network: str) -> Path:
    """Where torchvision itself keeps the weights of "raft" or "raft-small": the torch cache."""
    name = _NETWORKS[network][1].url.rpartition("/")[2]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def load(network: str, *, path: str | Path | None = None, device: str = "cpu") -> nn.Module:
    """Load a network; the two that were loaded last stay in memory.

    Args:
        network: "raft" or "raft-small".
        path: a file of weights as torchvision publishes them; by default :func:`weights_path`.
            Nothing is ever downloaded.
        device: where the network shall run.

    Raises:
        CheckpointError: as :func:`weights.read_published`.
    """
    return _load(network, Path(path or weights_path(network)), device)


@lru_cache(maxsize=2)
def _load(network: str, path: Path, device: str) -> nn.Module:
    build, published = _NETWORKS[network]
    remedy = f"nothing is downloaded unasked: fetch {published.url}, or name a file with weights="
    model = build(weights=None)
    weights.fill(model, weights.read_published(model, path, remedy=remedy), path)
    return model.to(device).eval()


@torch.no_grad()
def estimate(model: nn.Module, previous: Tensor, current: Tensor) -> Tensor:
    """Flow between batches of successive frames, uint8 ``(N, H, W, 3)`` RGB on the model's device.

    Returns float32 ``(N, 2, H, W)``, pixels per frame, in the convention of :mod:`dmclib.flow`.
    """
    height, width = current.shape[1:3]
    # RAFT defines flow at its first picture and lets it point to the second; ours is defined at the
    # current one and points away from the previous.
    refinements = model(_prepared(current), _prepared(previous))
    return -refinements[-1][:, :, :height, :width]


def _prepared(frames: Tensor) -> Tensor:
    """Pictures (N, 3, H, W), -1 to 1, their border repeated right and below to whole eights."""
    pictures = frames.movedim(3, 1) / 127.5 - 1
    below, right = (max(SMALLEST, side + -side % 8) - side for side in pictures.shape[2:])
    return F.pad(pictures, (0, right, 0, below), mode="replicate")
