"""The terms of equation 4: L = L_cls + alpha * L_mse + lambda * L_adv.

All motion fields are normalised (:func:`dmclib.transforms.normalize`), shape (N, 2, H, W).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FAKE, REAL = 0, 1  # columns of the discriminator's logits


@dataclass(frozen=True)
class LossWeights:
    """What each term of equation 4 counts; zero leaves the term out, and its cost too."""

    classification: float = 1.0
    reconstruction: float = 0.0  # alpha; the released runs use 10
    adversarial: float = 0.0  # lambda; the released runs use 1
    discriminator: float = 1.0  # of equation 2 in its own step; the released runs use 0.01


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax loss (paper, 3.3.3) of logits (N, classes) for labels (N,), mean over the batch."""
    return F.cross_entropy(logits, labels)


def reconstruction(cue: Tensor, flow: Tensor, attention: Tensor | None = None) -> Tensor:
    """Mean squared error between cue and flow (equation 1), mean over pixels and both components.

    Equation 1 writes a squared norm; the released code takes the mean, which its alpha of 10 fits.
    With ``attention`` (N, 1, H, W) each pixel counts so many times (the supplement's variant).
    """
    if attention is None:
        return F.mse_loss(cue, flow)
    return (attention * (cue - flow).square()).mean()


def block_means(field: Tensor, block: int = 16) -> Tensor:
    """A field (N, C, H, W) whose value in each block of so many pixels is the block's mean.

    The released runs' target in stage 1 (RELEASED_CODE.md, section 3), as coarse as the vectors
    are. Blocks begin at the top left; those at the other edges may be cut.
    """
    height, width = field.shape[-2:]
    coarse = F.avg_pool2d(field, block, ceil_mode=True, count_include_pad=False)
    fine = coarse.repeat_interleave(block, -2).repeat_interleave(block, -1)
    return fine[..., :height, :width]


def discriminator_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Equation 2: call the cue fake and the flow real. Logits (N, 2), columns FAKE and REAL."""
    return _says(fake_logits, FAKE) + _says(real_logits, REAL)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Equation 3: have the discriminator call the cue real. Logits (N, 2)."""
    return _says(fake_logits, REAL)


def _says(logits: Tensor, answer: int) -> Tensor:
    return F.cross_entropy(logits, torch.full_like(logits[:, 0], answer, dtype=torch.long))
