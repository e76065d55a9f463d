"""One call for every method of optical flow; the convention is that of :mod:`dmclib.flow`."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dmclib import errors

Method = Literal["tvl1", "tvl1-torch", "farneback", "dis", "raft", "raft-small"]
METHODS: tuple[str, ...] = get_args(Method)


def estimate(
    previous: np.ndarray,
    current: np.ndarray,
    *,
    method: Method = "tvl1",
    device: str = "cpu",
    weights: str | Path | None = None,
) -> np.ndarray:
    """Estimate how far each pixel of the current frame has moved since the previous one.

    Args:
        previous, current: successive frames, uint8, ``(H, W, 3)``, RGB.
        method: "tvl1" is OpenCV's, with which the paper trains (section 4.2), about a second for
            340x256 on one core; "tvl1-torch" is :mod:`tvl1`, which takes batches and a GPU;
            "farneback" (14 ms) and "dis" (9 ms) are quick substitutes. OpenCV's methods run at its
            defaults (Farneback has none: we take those of OpenCV's tutorial). "raft" and
            "raft-small" are torchvision's trained networks, for which weights must be at hand.
        device: where torch's methods run; OpenCV's run on the CPU alone.
        weights: a file of RAFT's weights; by default as for :func:`raft.load`.

    Returns:
        float32, ``(2, H, W)``, pixels per frame, module convention.

    Raises:
        DMCError: OpenCV's contrib build is not installed, the frames are not two RGB frames of
            one size, or ``method`` is unknown.
        CheckpointError: as :func:`raft.load`.
    """
    return next(estimate_clip([previous, current], method=method, device=device, weights=weights))


def estimate_clip(
    frames: Iterable[np.ndarray],
    *,
    method: Method = "tvl1",
    device: str = "cpu",
    batch: int = 16,
    weights: str | Path | None = None,
) -> Iterator[np.ndarray]:
    """Yield the flow into each frame of a clip but the first, in one pass; see :func:`estimate`.

    ``frames`` are read no further than needed. A torch method takes ``batch`` pairs at once.
    Errors are raised once the first field is asked for.
    """
    if method in ("tvl1-torch", "raft", "raft-small"):
        compute = _torch(method, device, weights)
    else:
        compute, batch = _opencv(method), 1
    pairs = pairwise(_checked(frames))
    while taken := list(islice(pairs, batch)):
        for field in compute(*map(np.stack, zip(*taken, strict=True))):
            yield np.ascontiguousarray(field, dtype=np.float32)


def _checked(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    size = None
    for frame in frames:
        size = frame.shape if size is None else size
        if frame.shape != size or frame.ndim != 3 or frame.shape[2] != 3:
            sizes = f"{size} and {frame.shape}"
            raise errors.DMCError(f"Flow needs RGB frames of one size (H, W, 3); got {sizes}.")
        if frame.dtype != np.uint8:
            raise errors.DMCError(f"Flow needs uint8 frames, 0 to 255; got {frame.dtype}.")
        yield frame


# (previous frames, current frames), each uint8 (N, H, W, 3) -> N fields, module convention.
_Compute = Callable[[np.ndarray, np.ndarray], Iterable[np.ndarray]]


def _opencv(method: str) -> _Compute:
    try:
        import cv2

        tvl1 = cv2.optflow.DualTVL1OpticalFlow_create
    except (ImportError, AttributeError) as error:
        raise errors.DMCError(
            "Optical flow needs OpenCV's contrib build, which is not installed here: "
            "pip install opencv-contrib-python-headless (and remove opencv-python, which "
            "overwrites it)."
        ) from error

    if method == "tvl1":
        calc = tvl1().calc
    elif method == "farneback":
        calc = cv2.FarnebackOpticalFlow_create(3, 0.5, False, 15, 3, 5, 1.2).calc
    elif method == "dis":
        calc = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc
    else:
        raise errors.DMCError(f"Unknown flow method {method!r}; choose {', '.join(METHODS)}.")

    def compute(previous, current):
        # OpenCV's flow is defined at its first image and points to the second. Ours is defined at
        # the current frame and points away from the previous one: first = current, sign turned.
        for pair in zip(current, previous, strict=True):
            first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pair)
            yield -calc(first, second, None).transpose(2, 0, 1)

    return compute


def _torch(method: str, device: str, weights: str | Path | None) -> _Compute:
    # Not above: torch takes seconds to import, RAFT's torchvision some more.
    import torch

    if method != "tvl1-torch":
        from dmclib.flow import raft

        model = raft.load(method, path=weights, device=device)
        return lambda *frames: raft.estimate(model, *_on(device, frames)).cpu().numpy()

    from dmclib.flow import tvl1

    # ITU-R BT.601, rounded to whole levels, as OpenCV makes grey.
    shares = torch.tensor([0.299, 0.587, 0.114], device=device)

    def compute(*frames):
        grey = ((stack * shares).sum(-1).round() for stack in _on(device, frames))
        return tvl1.estimate(*grey).cpu().numpy()

    return compute


def _on(device: str, frames: Iterable[np.ndarray]) -> Iterator:
    import torch

    return (torch.from_numpy(stack).to(device) for stack in frames)
