"""Colours and orientation: a decoded frame as RGB, or as what the encoder takes."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from dmclib.codec.container import AV_ERRORS, damaged, opened, shown, side_data

# Colour matrices (ISO/IEC 23091-2) to tell swscale of. It refuses those that it does not know; like
# players, we take them for BT.601. So we take FCC's (4), which is equal but for its third digit.
_KNOWN = frozenset({0, 1, 2, 5, 6, 7, 9})
_BT2020 = 10  # in another form
# A change of matrix goes through RGB: with colour at every pixel, or it would be blurred.
_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
)

Turns = tuple[bool, bool, bool]  # exchange rows with columns, then reverse rows, then columns


def _matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The source's colour matrix for swscale; None: as the frame says."""
    if frame.colorspace in _KNOWN:
        return None
    return Colorspace.BT2020 if frame.colorspace == _BT2020 else Colorspace.ITU601


def to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Convert a decoded frame to RGB: uint8 ``(H, W, 3)``, its rows perhaps padded in memory.

    Always rgb24: the fast paths of FFmpeg 8 to gbrp and rgba leave the last ``W % 8`` columns
    unwritten (CoViAR's FFmpeg has the same fault in bgr24).
    """
    rgb = reformatter.reformat(frame, format="rgb24", src_colorspace=_matrix(frame), threads=1)
    return samples(rgb.planes[0], 3).reshape(rgb.height, rgb.width, 3)


def samples(plane: av.video.plane.VideoPlane, per_pixel: int = 1) -> np.ndarray:
    """A plane's bytes, ``(height, width * per_pixel)``, shared with it."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width * per_pixel]


def turns(frame: av.VideoFrame) -> Turns:
    """What a player does to show the frame upright, by its display matrix (phones, scanners).

    Of a matrix that turns by other than quarter turns, the nearest one that does.
    """
    matrix = side_data(frame, "DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    # A stored pixel (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def turn(picture: np.ndarray, by: Turns) -> np.ndarray:
    """Turn a picture ``(H, W, ...)`` as :func:`turns` says; a view."""
    exchange, rows, columns = by
    picture = picture.swapaxes(0, 1) if exchange else picture
    return picture[:: -1 if rows else 1, :: -1 if columns else 1]


def to_yuv(
    frame: av.VideoFrame, reformatter: VideoReformatter, size: tuple[int, int]
) -> av.VideoFrame:
    """Convert to what the encoder takes, of ``size`` (width, height).

    Rounded exactly; in BT.601 of limited range, which readers of MPEG-4 assume.
    """
    return reformatter.reformat(
        frame,
        width=size[0],
        height=size[1],
        format="yuv420p",
        src_colorspace=_matrix(frame),
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
        interpolation=_EXACT,
        threads=1,
    )


def upright(
    frame: av.VideoFrame, reformatter: VideoReformatter, size: tuple[int, int]
) -> av.VideoFrame:
    """Convert a decoded frame as :func:`to_yuv` does, turned as a player shows it."""
    by = turns(frame)
    if frame.format.is_rgb:
        # A new frame without tags: for swscale the place of colour samples that some decoders name
        # is that of the result, half a pixel beside where it is put otherwise.
        rgb = np.ascontiguousarray(to_rgb(frame, reformatter))
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    yuv = to_yuv(frame, reformatter, (size[by[0]], size[not by[0]]))
    if not any(by):
        return yuv
    turned = av.VideoFrame(*size, "yuv420p")
    for source, target in zip(yuv.planes, turned.planes, strict=True):
        samples(target)[:] = turn(samples(source), by)
    return turned


def letterboxed(
    frame: av.VideoFrame, reformatter: VideoReformatter, size: tuple[int, int]
) -> av.VideoFrame:
    """Convert as :func:`upright` does, but in the picture's own shape, between two black bars.

    Its sides are rounded to even pixels, and it begins at one, since colour has half the size; so
    it may lie a pixel off the centre. The frame's pixels are taken as square.
    """
    sides = (frame.height, frame.width) if turns(frame)[0] else (frame.width, frame.height)
    scale = min(size[0] / sides[0], size[1] / sides[1])
    width, height = (max(2, 2 * round(side * scale / 2)) for side in sides)
    left, top = (size[0] - width) // 4 * 2, (size[1] - height) // 4 * 2
    picture = upright(frame, reformatter, (width, height))
    boxed = av.VideoFrame(*size, "yuv420p")
    black = (16, 1), (128, 2), (128, 2)  # of brightness and both colours; px to one of theirs
    for (value, px), source, target in zip(black, picture.planes, boxed.planes, strict=True):
        whole = samples(target)
        whole[:] = value
        inside = np.s_[top // px : (top + height) // px, left // px : (left + width) // px]
        whole[inside] = samples(source)
    return boxed


def decode_rgb(path: str | Path) -> Iterator[np.ndarray]:
    """Yield every frame that a video in any codec shows, upright, as RGB uint8 ``(H, W, 3)``.

    Frames before the first I-frame are left out with a warning.

    Raises:
        VideoError: a file that is missing, damaged, cut short or without video; frames before the
            damage have been yielded by then.
    """
    path, reformatter = Path(path), VideoReformatter()
    with opened(path) as (container, stream):
        for frame in shown(path, container, stream):
            try:
                rgb = to_rgb(frame, reformatter)
            except AV_ERRORS as error:
                raise damaged(path, f"a picture cannot be converted to RGB ({error})") from error
            yield np.ascontiguousarray(turn(rgb, turns(frame)))
