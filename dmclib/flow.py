"""Optical flow: the teacher's target, a picture, and the paper's eight bits.

Flow here has the same convention as motion vectors: float32, ``(2, H, W)`` = dx, dy in pixels per
frame, right and down positive, from the reference to the current frame (destination - source) and
defined at the *current* frame's pixels. So ``previous(p - flow(p))`` looks like ``current(p)``.
"""

from typing import Literal

import numpy as np

from dmclib import errors

Method = Literal["tvl1", "farneback", "dis"]


def estimate(previous: np.ndarray, current: np.ndarray, *, method: Method = "tvl1") -> np.ndarray:
    """Estimate how far each pixel of the current frame has moved since the previous one.

    Args:
        previous: uint8, shape ``(H, W, 3)``, RGB.
        current: like ``previous``, one frame later.
        method: "tvl1" is what the paper trains with (section 4.2), about 630 ms for 340x256 on one
            core; "farneback" (14 ms) and "dis" (9 ms) are quick stand-ins, all at OpenCV's defaults
            (Farneback has none: we take those of OpenCV's tutorial).

    Returns:
        float32, shape ``(2, H, W)``, pixels per frame, module convention.

    Raises:
        DMCError: if OpenCV's contrib build is not installed, the frames are not two RGB frames of
            one size, or ``method`` is unknown.
    """
    if previous.shape != current.shape or current.ndim != 3 or current.shape[2] != 3:
        raise errors.DMCError(
            f"Flow needs two RGB frames of one size (H, W, 3); got {previous.shape} and "
            f"{current.shape}."
        )
    if not previous.dtype == current.dtype == np.uint8:
        raise errors.DMCError(
            f"Flow needs uint8 frames, 0 to 255; got {previous.dtype} and {current.dtype}."
        )
    try:
        import cv2  # an optional extra, so that the rest of the package works without it

        tvl1 = cv2.optflow.DualTVL1OpticalFlow_create
    except (ImportError, AttributeError) as error:
        raise errors.DMCError(
            "Optical flow needs OpenCV's contrib build, which is not installed here: "
            "pip install opencv-contrib-python-headless (and remove opencv-python, which "
            "overwrites it)."
        ) from error

    # OpenCV's flow is defined at its first image and points to the second. Ours is defined at the
    # current frame and points away from the previous one: first = current, then the other sign.
    first = cv2.cvtColor(current, cv2.COLOR_RGB2GRAY)
    second = cv2.cvtColor(previous, cv2.COLOR_RGB2GRAY)
    if method == "tvl1":
        backward = tvl1().calc(first, second, None)
    elif method == "farneback":
        backward = cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    elif method == "dis":
        backward = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(
            first, second, None
        )
    else:
        raise errors.DMCError(f"Unknown flow method {method!r}; choose tvl1, farneback or dis.")
    return np.ascontiguousarray(-backward.transpose(2, 0, 1), dtype=np.float32)


def endpoint_error(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the distance in pixels between two fields ``(2, H, W)``: float32, ``(H, W)``."""
    return np.hypot(*(estimate.astype(np.float32) - truth.astype(np.float32)))


def warp(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Predict the current frame from the reference: the value at ``p`` is ``image(p - motion(p))``.

    Args:
        image: the reference, any number type, shape ``(H, W)`` or ``(H, W, C)``.
        motion: float, shape ``(2, H, W)``, pixels, module convention.

    Returns:
        float32, the shape of ``image``; bilinear between pixels (exact where motion is whole
        pixels), and sources outside the frame take the nearest border pixel.
    """
    height, width = motion.shape[1:]
    y, x = np.mgrid[:height, :width]
    x = np.clip(x - motion[0], 0, width - 1)
    y = np.clip(y - motion[1], 0, height - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)  # both >= 0: truncation is the floor
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    extra = (1,) * (image.ndim - 2)
    to_right = (x - left).astype(np.float32).reshape(height, width, *extra)
    to_bottom = (y - top).astype(np.float32).reshape(height, width, *extra)

    image = image.astype(np.float32)
    upper = image[top, left] * (1 - to_right) + image[top, right] * to_right
    lower = image[bottom, left] * (1 - to_right) + image[bottom, right] * to_right
    return upper * (1 - to_bottom) + lower * to_bottom


def flow_to_rgb(field: np.ndarray, *, full_colour_px: float) -> np.ndarray:
    """Colour a field ``(2, H, W)`` by direction (hue) and length (saturation).

    White is no motion; right is red, down yellow-green, left cyan, up violet. Lengths of
    ``full_colour_px`` pixels and more have full colour. The scale has no default, so that panels to
    be compared cannot silently get different ones.

    Returns:
        uint8, shape ``(H, W, 3)``, RGB.
    """
    dx, dy = field.astype(np.float32)
    hue = np.arctan2(dy, dx) * (6 / (2 * np.pi))  # in sixths of the wheel: red, yellow, green ...
    saturation = np.clip(np.hypot(dx, dy) / full_colour_px, 0, 1)
    # The HSV wheel at value 1: each primary is full within one sixth of its own hue, gone beyond
    # two sixths, linear between.
    primary = np.stack([hue, hue - 2, hue - 4], axis=-1)
    distance = np.abs((primary + 3) % 6 - 3)
    pure = np.clip(2 - distance, 0, 1)
    return np.rint(255 * (1 - saturation[..., None] * (1 - pure))).astype(np.uint8)


def quantize(motion: np.ndarray, *, limit_px: float = 20.0) -> np.ndarray:
    """Store a field in eight bits as the authors do: 128 is zero, one step 0.157 px.

    ``trunc(127.5 * motion / limit_px) + 128``, clipped to 0..255 (CoViAR's ``clip_and_scale``,
    which truncates towards zero). :func:`dequantize` gives back a value never longer than the
    original and less than one step (``limit_px / 127.5``) shorter, for lengths up to ``limit_px``;
    longer ones become -20.08 or +19.92 px. Zero is kept exactly.

    The networks of the released code read the same bytes as ``byte / 255 - 0.5``, in which 127.5
    is zero: for them a pixel at rest moves by half a step, 0.078 px (0.0087 after division by
    0.226). :func:`dequantize` has no such offset, and neither has ``transforms.normalize``.

    Args:
        motion: float, any shape, pixels per frame.
        limit_px: displacement at which the scale ends.

    Returns:
        uint8, the shape of ``motion``.
    """
    steps = np.trunc(motion * (127.5 / limit_px)) + 128
    return np.clip(steps, 0, 255).astype(np.uint8)


def dequantize(codes: np.ndarray, *, limit_px: float = 20.0) -> np.ndarray:
    """Undo :func:`quantize` to within one step: uint8 codes to float32 pixels, 128 to zero."""
    return (codes.astype(np.float32) - 128) * np.float32(limit_px / 127.5)
