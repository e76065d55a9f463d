"""From a compressed file to class scores as it plays: vectors and residual -> cue -> logits.

All that DMC-Net does at test time (paper, Figure 3), in one pass over the file: a thread decodes
the next frames while the network has the last ones.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmclib import codec, transforms
from dmclib.errors import VideoError

# Normalised motion (N, 2, H, W) and residual (N, 3, H, W) to logits (N, classes) and the cue.
Network = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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
        path: MPEG-4 Part 2 as :func:`dmclib.codec.encode` makes it; I-frames carry no motion and
            are passed over.
        network: a :class:`dmclib.models.DMCNet` in evaluation mode, on ``device``.
        size: (height, width) of the centre crop (``transforms.center_crop``).
        batch: P-frames that the network takes at once, and the delay before the first score. At
            most two batches are in memory.
        device: where the network is.

    Yields:
        ``(frame index, logits)``: logits float32 ``(classes,)``, on the CPU, raw.

    Raises:
        VideoError: as :func:`dmclib.codec.read_frames`; what came before the damage has been
            yielded by then.
        ValueError: ``batch`` below 1.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}; at least one frame must go through the network.")
    batches = _batches(path, batch)
    try:
        with ThreadPoolExecutor(1, "decode") as ahead:
            coming = ahead.submit(next, batches, None)
            while (current := coming.result()) is not None:
                coming = ahead.submit(next, batches, None)
                indices, sample = current
                with torch.inference_mode():
                    logits, _ = network(*_prepared(sample, size, device))
                yield from zip(indices, logits.float().cpu(), strict=True)
    finally:
        batches.close()  # the file too, where the caller stops early


def _batches(path: str | Path, batch: int) -> Iterator[tuple[list[int], transforms.Sample]]:
    """Indices and, whole pictures still, motion and residual (int16) of the next P-frames."""
    frames: list[codec.CompressedFrame] = []

    def together() -> tuple[list[int], transforms.Sample]:
        motion = torch.from_numpy(np.stack([frame.motion for frame in frames]))
        residual = torch.from_numpy(np.stack([frame.residual for frame in frames]))
        return [frame.index for frame in frames], transforms.Sample(motion, residual)

    try:
        for frame in codec.read_frames(path):
            if frame.is_key:
                continue
            frames.append(frame)
            if len(frames) == batch:
                yield together()
                frames.clear()
    except VideoError:
        if frames:
            yield together()
        raise
    if frames:
        yield together()


def _prepared(
    sample: transforms.Sample, size: tuple[int, int], device: str
) -> tuple[Tensor, Tensor]:
    """What the network takes; the int16 residual is widened on the device."""
    sample = sample.to(device)
    sample = transforms.Sample(sample.motion, sample.residual.float())
    sample = transforms.normalize(transforms.center_crop(sample, size))
    return sample.motion, sample.residual
