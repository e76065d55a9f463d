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
        path: MPEG-4 Part 2 as :func:`dmclib.codec.encode` writes it; I-frames are skipped.
        network: a :class:`dmclib.models.DMCNet` in evaluation mode, on ``device``.
        size: (height, width) of the centre crop.
        batch: P-frames that the network takes at once; at most two batches are in memory.
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
        for indices, motion, residual in ahead:
            with torch.inference_mode():
                # The residual is int16 until it is on the device: less to move.
                sample = transforms.Sample(motion.to(device), residual.to(device).float())
                sample = transforms.normalize(transforms.center_crop(sample, size))
                logits, _ = network(sample.motion, sample.residual)
            yield from zip(indices, logits.float().cpu(), strict=True)


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items, while a thread already makes the next one; none of them may be None."""
    with ThreadPoolExecutor(1, "decode") as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item


def _batches(path: str | Path, batch: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield indices, whole motion and whole residual (int16) of the next P-frames."""
    frames: list[codec.CompressedFrame] = []

    def stacked() -> tuple[list[int], Tensor, Tensor]:
        fields = zip(*((frame.motion, frame.residual) for frame in frames), strict=True)
        return [frame.index for frame in frames], *(torch.from_numpy(np.stack(f)) for f in fields)

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
