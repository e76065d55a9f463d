"""Class scores of a compressed file while it is read: vectors and residual -> cue -> logits.

All that DMC-Net does at test time (paper, Figure 3), in one pass over the file: a thread decodes
the next frames while the network computes.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dmclib import codec, transforms
from dmclib.errors import VideoError

# Normalised motion (N, 2, H, W) and residual (N, 3, H, W) to logits (N, classes) and the cue.
Network = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Item = TypeVar("Item")


def classify(
    path: str | Path,
    network: Network,
    *,
    size: tuple[int, int] = (224, 224),
    batch: int = 16,
    device: str = "cpu",
) -> Iterator[tuple[int, Tensor]]:
    """Score every P-frame of a clip, in order, while reading it.

    Args:
        path: MPEG-4 Part 2 as :func:`dmclib.codec.encode` writes it; I-frames carry no motion and
            are skipped.
        network: a :class:`dmclib.models.DMCNet` in evaluation mode, on ``device``.
        size: (height, width) of the centre crop (``transforms.center_crop``).
        batch: P-frames that the network takes at once, and the delay before the first score. At
            most two batches are in memory.
        device: where the network is.

    Yields:
        ``(frame index, logits)``: logits float32 ``(classes,)``, on the CPU, raw.

    Raises:
        VideoError: as :func:`dmclib.codec.read_frames`, after the scores of all earlier frames.
        ValueError: ``batch`` below 1.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}: the network must take at least one frame at a time.")
    batches = _batches(path, batch)
    # If the caller stops early: first the thread ends, then the file is closed.
    with closing(batches), closing(read_ahead(batches)) as ahead:
        for indices, sample in ahead:
            with torch.inference_mode():
                logits, _ = network(*_prepared(sample, size, device))
            yield from zip(indices, logits.float().cpu(), strict=True)


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items, while a thread already makes the next one; none of them may be None."""
    with ThreadPoolExecutor(1, "decode") as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item


def _batches(path: str | Path, batch: int) -> Iterator[tuple[list[int], transforms.Sample]]:
    """Yield indices, whole motion and whole residual (int16) of the next P-frames."""
    frames: list[codec.CompressedFrame] = []

    def stacked() -> tuple[list[int], transforms.Sample]:
        motion = torch.from_numpy(np.stack([frame.motion for frame in frames]))
        residual = torch.from_numpy(np.stack([frame.residual for frame in frames]))
        return [frame.index for frame in frames], transforms.Sample(motion, residual)

    damage = None
    try:
        for frame in codec.read_frames(path):
            if frames and frame.rgb.shape != frames[0].rgb.shape:  # a new size, at a key frame
                yield stacked()
                frames.clear()
            if not frame.is_key:
                frames.append(frame)
            if len(frames) == batch:
                yield stacked()
                frames.clear()
    except VideoError as problem:
        damage = problem
    if frames:
        yield stacked()
    if damage is not None:
        raise damage


def _prepared(
    sample: transforms.Sample, size: tuple[int, int], device: str
) -> tuple[Tensor, Tensor]:
    """What the network takes; the int16 residual is converted on the device."""
    sample = sample.to(device)
    sample = transforms.Sample(sample.motion, sample.residual.float())
    sample = transforms.normalize(transforms.center_crop(sample, size))
    return sample.motion, sample.residual
