"""A proof of the vectors that can fail: do they predict decoded blocks to the last bit?"""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from dmclib.codec import mpeg4
from dmclib.codec.container import decoded, mapped, needs_transcode, opened
from dmclib.codec.index import read_index
from dmclib.codec.pictures import samples
from dmclib.codec.read import EXPORT_VECTORS, check_kind, motion_vectors
from dmclib.codec.vectors import rasterize_motion_vectors
from dmclib.errors import VideoError


def prediction_share(path: str | Path) -> dict[str, float]:
    """Predict every inter block of a clip from the picture before, and count exact ones.

    Where the encoder left a block's residual away, the decoded block is its prediction. So of a
    coarsely encoded clip (``quantizer=31``) the right vectors give most blocks exactly, in
    brightness, and wrong ones do not. Between pixels MPEG-4 takes (a + b + c + d + 2 - r) >> 2 of
    the four around, where r, the rounding type, is a bit of each P-frame's header that the encoder
    alternates; beyond the edge it repeats the edge.

    Args:
        path: a clip as for :func:`read_at`, with vectors of half pixels. It should move: a block
            that stands still is predicted by any of these.

    Returns:
        The share of blocks, 0 to 1, equal to their prediction by the vectors ``as read`` and, for
        comparison, ``flipped`` in sign, ``swapped`` (dx for dy) and by ``none`` (no motion).

    Raises:
        VideoError: as :func:`read_at`; no inter blocks; or vectors of quarter pixels.

    Source:
        ISO/IEC 14496-2, 7.6.2.1 (half-sample interpolation, ``vop_rounding_type``).
    """
    path = Path(path)
    equal, count = dict.fromkeys(("as read", "flipped", "swapped", "none"), 0), 0
    before = None
    for number, (frame, rounding) in enumerate(_frames(path)):
        check_kind(path, frame, number)
        luma = samples(frame.planes[0]).astype(np.int32)
        blocks = motion_vectors(path, frame, number)
        if (blocks["motion_scale"] != 2).any():
            raise VideoError(f"{path}: has vectors of quarter pixels. Give a clip of codec.encode.")
        if len(blocks):
            if before is None:
                raise needs_transcode(path, "begins with a P-frame without its I-frame")
            motion = rasterize_motion_vectors(blocks, *luma.shape, subpixel=True)
            fields = (motion, -motion, motion[::-1], np.zeros_like(motion))
            for name, field in zip(equal, fields, strict=True):
                exact = _predict(before, field, rounding) == luma
                equal[name] += sum(bool(exact[place].all()) for place in _places(blocks))
        count += len(blocks)
        before = luma
    if not count:
        raise VideoError(f"{path}: has no inter blocks. Give a clip with P-frames.")
    return {name: exact / count for name, exact in equal.items()}


def _frames(path: Path) -> Iterator[tuple[av.VideoFrame, int]]:
    """Every decoded frame with its rounding type."""
    index = read_index(path)
    first = mpeg4.layer(index.extradata)
    with opened(path, codec="mpeg4") as (container, stream), mapped(path) as data:
        stream.codec_context.options = EXPORT_VECTORS
        for place, frame in enumerate(decoded(path, container, stream)):
            header, (begin, end) = slice(*index.headers[place]), index.spans[place].tolist()
            at = data.find(mpeg4.VOP, begin, end)
            within = mpeg4.layer(data[header]) or first
            yield frame, mpeg4.plane(data[at:end], within).rounding


def _predict(before: np.ndarray, motion: np.ndarray, rounding: int) -> np.ndarray:
    """The brightness that ``motion`` (half pixels) takes from ``before``: int32 ``(H, W)``."""
    height, width = before.shape
    dx, dy = np.rint(motion * 2).astype(np.int32)
    y = 2 * np.arange(height, dtype=np.int32)[:, None] - dy  # in half pixels
    x = 2 * np.arange(width, dtype=np.int32) - dx
    rows = [np.clip(y + odd >> 1, 0, height - 1) for odd in (0, 1)]
    columns = [np.clip(x + odd >> 1, 0, width - 1) for odd in (0, 1)]
    # Of a whole pixel all four are the same one, of a half pixel two and two.
    around = sum(before[row, column] for row in rows for column in columns)
    return around + 2 - rounding >> 2


def _places(blocks: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each block, as far as they are in the picture."""
    size = np.array([blocks["h"], blocks["w"]], np.int32)
    start = np.array([blocks["dst_y"], blocks["dst_x"]], np.int32) - size // 2
    for top, left, bottom, right in np.concatenate([start, start + size]).T.tolist():
        yield slice(max(top, 0), bottom), slice(max(left, 0), right)
