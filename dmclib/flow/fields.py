"""A field of motion: its error, what it predicts, its colours, the paper's eight bits.

The convention is that of :mod:`dmclib.flow`.
"""

import numpy as np

from dmclib.codec import vectors

LIMIT_PX = 20.0  # displacement at which the authors' eight bits end


def endpoint_error(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the distance in pixels between two fields ``(2, H, W)``: float32, ``(H, W)``."""
    return np.hypot(*(estimate.astype(np.float32) - truth.astype(np.float32)))


def warp(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Predict the current frame from the reference: the value at ``p`` is ``image(p - motion(p))``.

    ``image`` is the reference, of any number type, ``(H, W)`` or ``(H, W, C)``; ``motion`` is float
    ``(2, H, W)``, pixels. Returns float32, the shape of ``image``: bilinear between pixels, exact
    where motion is whole pixels; sources outside the frame take the nearest border pixel.
    """
    return vectors.bilinear(image.astype(np.float32), *vectors.sources(motion))


def flow_to_rgb(field: np.ndarray, *, full_colour_px: float) -> np.ndarray:
    """Colour a field ``(2, H, W)`` by direction (hue) and length (saturation): uint8 ``(H, W, 3)``.

    White is no motion; right is red, down yellow-green, left cyan, up violet. Lengths of
    ``full_colour_px`` pixels and more have full colour. The scale has no default, so that panels
    that are compared cannot get different scales unnoticed.
    """
    dx, dy = field.astype(np.float32)
    hue = np.arctan2(dy, dx) * (6 / (2 * np.pi))  # in sixths of the wheel: red, yellow, green ...
    saturation = np.clip(np.hypot(dx, dy) / full_colour_px, 0, 1)
    # The HSV wheel at value 1: each primary is full within one sixth of its own hue, zero beyond
    # two sixths, linear between.
    primary = np.stack([hue, hue - 2, hue - 4], axis=-1)
    distance = np.abs((primary + 3) % 6 - 3)
    pure = np.clip(2 - distance, 0, 1)
    return np.rint(255 * (1 - saturation[..., None] * (1 - pure))).astype(np.uint8)


def quantize(motion: np.ndarray) -> np.ndarray:
    """Store float pixels of any shape in eight bits as the authors do: 128 is zero, uint8.

    ``trunc(127.5 * motion / 20) + 128``, clipped to 0..255 (CoViAR's ``clip_and_scale``, which
    truncates towards zero). For lengths up to 20 px, the value that :func:`dequantize` returns is
    not longer than the original and less than one step (0.157 px) shorter; longer ones become
    -20.08 or +19.92 px. Zero is kept exactly.

    The released networks read the same bytes as ``byte / 255 - 0.5``, where 127.5 is zero: for them
    a pixel at rest moves by half a step, 0.078 px (0.0087 after division by 0.226). Neither
    :func:`dequantize` nor ``transforms.normalize`` has such an offset.
    """
    steps = np.trunc(motion * (127.5 / LIMIT_PX)) + 128
    return np.clip(steps, 0, 255).astype(np.uint8)


def dequantize(codes: np.ndarray) -> np.ndarray:
    """Undo :func:`quantize` to within one step: uint8 codes to float32 pixels, 128 to zero."""
    motion = codes.astype(np.float32)
    motion -= 128
    motion *= np.float32(LIMIT_PX / 127.5)
    return motion
