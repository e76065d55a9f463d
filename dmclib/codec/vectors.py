"""Motion vectors of blocks, spread over pixels, and pictures carried along them.

The whole-pixel reading follows CoViAR's loader to the digit and copies blocks as blocks; the
sub-pixel one keeps what the loader truncates. Motion: destination - source, at the destination.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dmclib.codec.memory import RECYCLED
from dmclib.errors import VideoError

MACROBLOCK = 16  # pixels: what MPEG-4 gives one vector, unless it splits it into four of 8

# FFmpeg's AVMotionVector, as PyAV's to_ndarray gives it (which builds this anew at each call).
VECTOR = np.dtype(
    [
        *(("source", "i4"), ("w", "u1"), ("h", "u1")),
        *((name, "i2") for name in ("src_x", "src_y", "dst_x", "dst_y")),
        *(("flags", "u8"), ("motion_x", "i4"), ("motion_y", "i4"), ("motion_scale", "u2")),
    ],
    align=True,
)


class Moves(NamedTuple):
    """What moves between two frames, in whole pixels: macroblocks, then odd rectangles."""

    cells: np.ndarray  # float32 (2, rows, columns): dx and dy of every macroblock
    # int64 (K,): where those that move begin, and where they come from, as y * padded width + x.
    targets: np.ndarray
    sources: np.ndarray
    rectangles: list[list[int]]  # top, bottom, dy, dx, left, right of the rest, in order
    shifts: np.ndarray  # float32 (rectangles, 2, 1, 1): their dx and dy


def padded(side: int) -> int:
    """A side in pixels, rounded up to whole macroblocks."""
    return -(-side // MACROBLOCK) * MACROBLOCK


def whole_pixel_moves(batch: Sequence[np.ndarray], height: int, width: int) -> list[Moves]:
    """Keep what CoViAR's loader keeps of the vectors of some frames: for each frame, its moves.

    Blocks that do not move are dropped, and so is a pixel whose source lies outside the frame, so a
    block leaves a rectangle. numpy needs as long for a dozen frames' vectors as for one frame's.
    """
    rows = np.frombuffer(b"".join(batch), batch[0].dtype)
    # int32: w and h are uint8 and the rest int16, and their sums must not wrap.
    table = np.array([rows[name] for name in ("dst_y", "dst_x", "src_y", "src_x", "h", "w")], "i4")
    moving = np.flatnonzero((table[0] != table[2]) | (table[1] != table[3]))
    table = table.take(moving, axis=1)
    frame = np.repeat(np.arange(len(batch), dtype=np.int32), [len(one) for one in batch])[moving]
    (top, left), (dy, dx) = table[:2] - MACROBLOCK // 2, table[:2] - table[2:4]
    high, wide = padded(height) // MACROBLOCK, padded(width) // MACROBLOCK
    place = (frame * high + top // MACROBLOCK) * wide + left // MACROBLOCK
    # Macroblocks of the grid, in raster order: none overlap, so their order does not matter.
    if (
        (table[4:] == MACROBLOCK).all()
        and not ((top | left) % MACROBLOCK).any()
        and ((top >= 0) & (top < height) & (left >= 0) & (left < width)).all()
        and (place[1:] > place[:-1]).all()
    ):
        # One over the right or bottom edge counts as what the picture shows of it.
        inside = (dy <= top) & (dy >= np.minimum(top + MACROBLOCK - height, 0))
        inside &= (dx <= left) & (dx >= np.minimum(left + MACROBLOCK - width, 0))
    elif len(batch) > 1:
        return [whole_pixel_moves([one], height, width)[0] for one in batch]
    else:
        inside = np.zeros(len(moving), bool)
    whole, odd = np.flatnonzero(inside), np.flatnonzero(~inside)
    cells, place = np.zeros((2, len(batch) * high * wide), np.float32), place[whole]
    cells[0, place], cells[1, place] = dx[whole], dy[whole]
    begins, shifts = (y * wide * MACROBLOCK + x for y, x in ((top, left), (dy, dx)))
    targets = begins[whole].astype(np.intp)
    sources = targets - shifts[whole]
    found = _rectangles(frame[odd], table[:, odd], height, width)
    fields = cells.reshape(2, len(batch), high, wide).swapaxes(0, 1)
    shifts = found[[4, 3], :, None, None].swapaxes(0, 1).astype(np.float32)
    odd, rectangles = found[0], found[1:].T.tolist()
    ends = np.arange(1, len(batch) + 1)
    bounds = (pairwise([0, *np.searchsorted(of, ends).tolist()]) for of in (frame[whole], odd))
    return [
        Moves(field, targets[a:b], sources[a:b], rectangles[c:d], shifts[c:d])
        for field, (a, b), (c, d) in zip(fields, *bounds, strict=True)
    ]


def _rectangles(frame: np.ndarray, table: np.ndarray, height: int, width: int) -> np.ndarray:
    """What blocks bring from inside the picture, those side by side as one.

    Args:
        frame: int32 ``(K,)``: of each block, in order.
        table: int32 ``(6, K)``: centre, source and size, y before x.

    Returns:
        int32 ``(7, rectangles)``: frame, top, bottom, dy, dx, left and right.
    """
    centre, source, size = table.reshape(3, 2, -1)
    start, shift = centre - size // 2, centre - source
    begin = np.maximum(np.maximum(start, shift), 0)
    end = np.minimum(start + size, np.minimum(shift, 0) + np.array([[height], [width]], np.int32))
    found = np.stack([frame, begin[0], end[0], *shift, begin[1], end[1]])
    found = found[:, (begin < end).all(axis=0)]
    alike = (found[:5, 1:] == found[:5, :-1]).all(axis=0) & (found[5, 1:] == found[6, :-1])
    bounds = np.concatenate([[True], ~alike, [True]])[: found.shape[1] + 1].nonzero()[0]
    rights = found[6, bounds[1:] - 1]
    found = found[:, bounds[:-1]]
    found[6] = rights
    return found


def motion_field(moves: Moves, height: int, width: int) -> np.ndarray:
    """Spread whole-pixel moves over their pixels: float32 ``(2, height, width)``, dx and dy."""
    field = RECYCLED.empty((2, moves.cells.shape[1], MACROBLOCK, width), np.float32)
    field[:] = moves.cells.repeat(MACROBLOCK, axis=2)[:, :, None, :width]
    field = field.reshape(2, -1, width)[:, :height]
    for (top, bottom, _, _, left, right), shift in zip(moves.rectangles, moves.shifts, strict=True):
        field[:, top:bottom, left:right] = shift
    return field


def carry(picture: np.ndarray, moves: Moves) -> None:
    """Carry a picture along whole-pixel moves, in place; what does not move stays.

    As :func:`predict`, fast. ``picture`` is ``(H, W, C)``, contiguous, H and W :func:`padded`.
    """
    blocks = _blocks_at(picture)
    # All are taken before one is put. What a macroblock over the edge brings from beyond the
    # picture lands beyond the picture.
    moved = blocks[moves.sources]
    patches = [
        picture[top - dy : bottom - dy, left - dx : right - dx].copy()
        for top, bottom, dy, dx, left, right in moves.rectangles
    ]
    blocks[moves.targets] = moved
    for (top, bottom, _, _, left, right), patch in zip(moves.rectangles, patches, strict=True):
        picture[top:bottom, left:right] = patch


def _blocks_at(picture: np.ndarray) -> np.ndarray:
    """At [y * W + x], the macroblock that starts there: 16 pieces of memory, a row apart.

    numpy copies such pieces whole; pixel by pixel would take three times as long.
    """
    height, width, _ = picture.shape
    pixel = picture.strides[1]
    starts = (height - MACROBLOCK) * width + width - MACROBLOCK + 1
    piece = f"V{MACROBLOCK * pixel}"
    return np.ndarray((starts, MACROBLOCK), piece, picture, strides=(pixel, width * pixel))


def rasterize_motion_vectors(
    vectors: np.ndarray, height: int, width: int, *, subpixel: bool = False
) -> np.ndarray:
    """Spread per-block motion vectors over the pixels of the blocks they move.

    Pixels of intra-coded blocks have no vector and stay at zero. Where blocks overlap, the later
    one counts.

    Args:
        vectors: array of :data:`VECTOR`, shape ``(K,)``, one row per block. ``dst_x, dst_y`` is the
            block's centre in this frame, in pixels.
        height, width: of the frame, in pixels.
        subpixel: False follows CoViAR's loader to the digit: whole pixels, ``dst - src`` with the
            truncated ``src_x, src_y``; a zero vector keeps what was there; a pixel whose source
            lies outside the frame is skipped. True keeps the half and quarter pixels of
            ``motion_x, motion_y`` and skips nothing, since MPEG-4 lets vectors leave the frame.

    Returns:
        float32 array, shape ``(2, height, width)``: dx (right is positive), dy (down is positive),
        how far the content moved *from* the reference frame *to* this frame, in pixels.

    Raises:
        VideoError: a block is predicted from a future frame, as only B-frames do.

    Source:
        Sign: FFmpeg's ``libavutil/motion_vector.h`` gives ``src = dst + motion / scale``, so
        ``dst - src = -motion / scale``. Paper section 3.1; the default is CoViAR's C loader.
    """
    from_future = vectors["source"] > 0
    if from_future.any():
        raise VideoError(
            f"{from_future.sum()} of {len(vectors)} motion vectors point to a future frame; "
            "re-encode the clip without B-frames (codec.encode and codec.transcode do)."
        )
    if not subpixel:
        return motion_field(whole_pixel_moves([vectors], height, width)[0], height, width)
    field = np.zeros((2, height, width), np.float32)
    scale = vectors["motion_scale"].astype(np.float32)
    motion = np.array([-vectors["motion_x"] / scale, -vectors["motion_y"] / scale], np.float32)
    size = np.array([vectors["h"], vectors["w"]], np.int32)
    start = np.array([vectors["dst_y"], vectors["dst_x"]], np.int32) - size // 2
    # A block may hang over the frame edge; clip it instead of wrapping to the far side.
    corners = np.maximum(np.concatenate([start, start + size]), 0).T.tolist()
    for k, (top, left, bottom, right) in enumerate(corners):
        field[:, top:bottom, left:right] = motion[:, k, None, None]
    return field


def sources(motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel came from: rows and columns, float32 ``(H, W)``, held inside the frame."""
    height, width = motion.shape[1:]
    rows = np.arange(height, dtype=np.float32)[:, None] - motion[1]
    columns = np.arange(width, dtype=np.float32) - motion[0]
    return rows.clip(0, height - 1), columns.clip(0, width - 1)


def predict(reference_rgb: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Move a reference picture along a motion field: the decoder's guess, before the residual.

    ``predict(reference, frame.motion) + residual`` is the decoded frame, exactly, where
    ``reference`` is the frame before (plain) or the GOP's I-frame (accumulated).

    Args:
        reference_rgb: uint8 ``(H, W, 3)``.
        motion: float32 ``(2, H, W)``, pixels, from the reference to the predicted frame.

    Returns:
        uint8 ``(H, W, 3)``: at each pixel the reference at ``pixel - motion``. Between pixels it is
        bilinear, rounded half up, and beyond the edge the edge is repeated, as MPEG-4 does it.
    """
    rows, columns = sources(motion)
    if (rows == np.floor(rows)).all() and (columns == np.floor(columns)).all():
        return reference_rgb[rows.astype(np.intp), columns.astype(np.intp)]
    # Exact in float32 for half and quarter pixels: the weights are sixteenths.
    return (bilinear(reference_rgb, rows, columns) + np.float32(0.5)).astype(np.uint8)


def bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Look an image ``(H, W)`` or ``(H, W, C)``, uint8 or float32, up between its pixels: float32.

    ``rows`` and ``columns`` are float32 ``(H, W)`` inside the image, as of :func:`sources`.
    """
    top, left = rows.astype(np.intp), columns.astype(np.intp)  # both >= 0: truncation is the floor
    below = np.minimum(top + 1, image.shape[0] - 1)
    beside = np.minimum(left + 1, image.shape[1] - 1)
    every_channel = *rows.shape, *(1,) * (image.ndim - 2)
    # float32: rows less whole numbers of 64 bits would be float64, and so would the picture.
    down = (rows - top).astype(np.float32).reshape(every_channel)
    right = (columns - left).astype(np.float32).reshape(every_channel)
    upper = image[top, left] * (1 - right) + image[top, beside] * right
    lower = image[below, left] * (1 - right) + image[below, beside] * right
    return upper * (1 - down) + lower * down
