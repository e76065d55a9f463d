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
    """The factors of equation 4; a term whose factor is zero is not computed."""

    classification: float = 1.0
    reconstruction: float = 0.0  # alpha; the released runs use 10
    adversarial: float = 0.0  # lambda; the released runs use 1
    discriminator: float = 1.0  # of equation 2 in its own step; the released runs use 0.01


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax loss (paper, 3.3.3) of logits (N, classes) for labels (N,), mean over the batch."""
    return F.cross_entropy(logits, labels)


def reconstruction(cue: Tensor, flow: Tensor, attention: Tensor | None = None) -> Tensor:
    """Mean squared error between cue and flow (equation 1), over pixels and both components.

    Equation 1 writes a squared norm. The released code takes the mean, to which its alpha of 10
    belongs. ``attention`` (N, 1, H, W) multiplies each pixel's error (the supplement's variant).
    """
    if attention is None:
        return F.mse_loss(cue, flow)
    return (attention * (cue - flow).square()).mean()


def block_means(field: Tensor, block: int = 16) -> Tensor:
    """Replace each ``block`` x ``block`` pixels of a field (N, C, H, W) by their mean.

    The released runs' target in stage 1, as coarse as the vectors are. Blocks begin at the top
    left; those at the right and bottom edges may be cut.
    """
    height, width = field.shape[-2:]
    coarse = F.avg_pool2d(field, block, ceil_mode=True, count_include_pad=False)
    fine = coarse.repeat_interleave(block, -2).repeat_interleave(block, -1)
    return fine[..., :height, :width]


def discriminator_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Equation 2: the cue should be called fake, the flow real. Logits (N, 2): FAKE, REAL."""
    return _cross_entropy(fake_logits, FAKE) + _cross_entropy(real_logits, REAL)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Equation 3: the discriminator should call the cue real. Logits (N, 2): FAKE, REAL."""
    return _cross_entropy(fake_logits, REAL)


def _cross_entropy(logits: Tensor, answer: int) -> Tensor:
    return F.cross_entropy(logits, torch.full_like(logits[:, 0], answer, dtype=torch.long))
