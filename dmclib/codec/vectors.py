"""Motion vectors of blocks, spread over pixels, and pictures carried along them.

The whole-pixel reading follows CoViAR's loader to the digit and copies blocks as blocks; the
sub-pixel one keeps what the loader truncates. Motion: destination - source, at the destination.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

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

    # int32, one value a macroblock of the picture in raster order: destination - source.
    dy: np.ndarray
    dx: np.ndarray
    rectangles: list[list[int]]  # top, left, bottom, right, dy, dx of the rest, in order


def padded(side: int) -> int:
    """A side in pixels, rounded up to whole macroblocks."""
    return -(-side // MACROBLOCK) * MACROBLOCK


class _Grid:
    """The macroblocks of a picture in raster order: int32 arrays, one value each."""

    def __init__(self, height: int, width: int):
        self.columns = padded(width) // MACROBLOCK
        rows = padded(height) // MACROBLOCK
        self.y, self.x = np.indices((rows, self.columns), np.int32).reshape(2, -1) * MACROBLOCK
        # Moved by d, a macroblock comes from ``first - d``: in the picture if low <= d <= first.
        # One over the right or bottom edge counts as what the picture shows of it.
        self.low_y = np.minimum(self.y + MACROBLOCK - height, 0)
        self.low_x = np.minimum(self.x + MACROBLOCK - width, 0)


_grid = lru_cache(maxsize=16)(_Grid)


def whole_pixel_moves(batch: Sequence[np.ndarray], height: int, width: int) -> list[Moves]:
    """Keep what CoViAR's loader keeps of the vectors of some frames: for each frame, its moves.

    Blocks that do not move are dropped, and so is a pixel whose source lies outside the frame, so a
    block leaves a rectangle. numpy needs as long for a dozen frames' vectors as for one frame's.
    """
    names = ("dst_y", "dst_x", "src_y", "src_x", "h", "w")
    # int32: w and h are uint8 and the rest int16, and their sums must not wrap. Column by column:
    # numpy joins whole rows ten times slower.
    columns = [np.concatenate([vectors[name] for vectors in batch]) for name in names]
    table = np.array(columns, np.int32)
    y, x, source_y, source_x = table[:4]
    grid, half = _grid(height, width), MACROBLOCK // 2
    count = len(grid.y)
    frame = np.repeat(np.arange(len(batch)), [len(one) for one in batch])
    cell = (y - half) // MACROBLOCK * grid.columns + (x - half) // MACROBLOCK
    place = frame * count + cell  # of the cell among those of all frames
    dy, dx = np.zeros((2, len(batch) * count), np.int32)
    odd = (y != source_y) | (x != source_x)
    # Macroblocks of the grid, in raster order: none overlap, so their order does not matter.
    if (
        (table[4:] == MACROBLOCK).all()
        and ((cell >= 0) & (cell < count)).all()
        and (grid.y[cell] + half == y).all()
        and (grid.x[cell] + half == x).all()
        and (place[1:] > place[:-1]).all()
    ):
        dy[place], dx[place] = y - source_y, x - source_x
        dy, dx = dy.reshape(-1, count), dx.reshape(-1, count)
        outside = (dy > grid.y) | (dy < grid.low_y) | (dx > grid.x) | (dx < grid.low_x)
        dy[outside] = dx[outside] = 0
        odd = outside.reshape(-1)[place]
    elif len(batch) > 1:
        return [whole_pixel_moves([one], height, width)[0] for one in batch]
    rectangles = [[] for _ in batch]
    odd = np.flatnonzero(odd)
    for n, rectangle in zip(frame[odd], _rectangles(table[:, odd], height, width), strict=True):
        if rectangle[0] < rectangle[2] and rectangle[1] < rectangle[3]:
            rectangles[n].append(rectangle)
    cells = dy.reshape(-1, count), dx.reshape(-1, count)
    return [Moves(*one) for one in zip(*cells, rectangles, strict=True)]


def _rectangles(table: np.ndarray, height: int, width: int) -> list[list[int]]:
    centre, source, size = table[:2], table[2:4], table[4:]
    start, shift = centre - size // 2, centre - source
    begin = np.maximum(np.maximum(start, shift), 0)
    end = np.minimum(start + size, np.minimum(shift, 0) + np.array([[height], [width]]))
    return np.concatenate([begin, end, shift]).T.tolist()


def motion_field(moves: Moves, height: int, width: int) -> np.ndarray:
    """Spread whole-pixel moves over their pixels: float32 ``(2, height, width)``, dx and dy."""
    cells = np.array([moves.dx, moves.dy], np.float32)
    cells = cells.reshape(2, padded(height) // MACROBLOCK, padded(width) // MACROBLOCK)
    field = np.empty((2, cells.shape[1], MACROBLOCK, width), np.float32)
    field[:] = cells.repeat(MACROBLOCK, axis=2)[:, :, None, :width]
    field = field.reshape(2, -1, width)[:, :height]
    for top, left, bottom, right, dy, dx in moves.rectangles:
        field[0, top:bottom, left:right] = dx
        field[1, top:bottom, left:right] = dy
    return field


def carry(reference: np.ndarray, moves: Moves) -> np.ndarray:
    """Carry a picture along whole-pixel moves; what does not move stays. As :func:`predict`, fast.

    ``reference`` and result: ``(H, W, C)`` of one type, contiguous, H and W :func:`padded`.
    """
    result = reference.copy()
    moving = np.flatnonzero(moves.dy | moves.dx)
    grid, pitch = _grid(*reference.shape[:2]), reference.shape[1]
    target = grid.y[moving] * pitch + grid.x[moving]
    source = target - (moves.dy[moving] * pitch + moves.dx[moving])
    # What a macroblock over the edge brings from beyond the picture lands beyond the picture.
    _blocks_at(result)[target] = _blocks_at(reference)[source]
    for top, left, bottom, right, dy, dx in moves.rectangles:
        moved = reference[top - dy : bottom - dy, left - dx : right - dx]
        result[top:bottom, left:right] = moved
    return result


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
