"""Read compressed frames: picture, motion and residual of every frame of a clip (paper, 3.1).

Plain and accumulated, whole-pixel and sub-pixel reading differ here only.
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from dmclib.codec import vectors
from dmclib.codec.container import (
    damaged,
    decode,
    decoded,
    is_hidden,
    mapped,
    needs_transcode,
    opened,
    side_data,
    silence,
)
from dmclib.codec.index import Index, read_index
from dmclib.codec.memory import RECYCLED
from dmclib.codec.pictures import to_rgb
from dmclib.codec.vectors import predict, rasterize_motion_vectors
from dmclib.errors import VideoError

EXPORT_VECTORS = {"flags2": "+export_mvs"}  # for the codec; av.open would ignore it in silence


@dataclass(slots=True, eq=False)
class CompressedFrame:
    """One frame as a network of compressed video sees it."""

    index: int  # in the clip, from 0
    gop_index: int  # which GOP, from 0
    gop_position: int  # in the GOP; 0 is the I-frame
    is_key: bool
    rgb: np.ndarray  # uint8 (H, W, 3)
    motion: np.ndarray  # float32 (2, H, W): dx, dy in pixels; zero on key frames
    residual: np.ndarray  # int16 (3, H, W), RGB, -255..255; zero on key frames


def read_frames(
    path: str | Path, *, accumulate: bool = False, subpixel: bool = False
) -> Iterator[CompressedFrame]:
    """Read every frame of a clip in one pass: picture, motion and residual.

    Args:
        path: MPEG-4 Part 2 of I- and P-frames, as :func:`encode` and :func:`transcode` make it.
            Frames that an edit list hides are not yielded, but later ones may refer to them.
        accumulate: False: motion from the frame before, residual against it (all released DMC-Net
            runs). True: every pixel is traced back to the GOP's I-frame; motion is the whole way,
            residual is against the I-frame (the paper's text, CoViAR's streams).
        subpixel: False: CoViAR's whole pixels. True: half pixels are kept, and the residual is what
            bilinear prediction at the half pixel misses (see :func:`predict`), so that motion and
            residual still belong together. With ``accumulate`` the steps of the way are added with
            their fractions, each from the pixel nearest to where the last one came from.

    Yields:
        :class:`CompressedFrame`, in order. ``residual`` added to ``predict(reference, motion)`` is
        ``rgb`` exactly. ``residual`` is a view whose colours lie side by side in memory.

    Raises:
        VideoError: a file that is missing, damaged, cut short, in another codec or with motion that
            is not held here: B-frames, global motion, vectors of fields, a P-frame without its
            I-frame. Frames before it have been yielded by then.
    """
    path = Path(path)
    reader = Reader(path, accumulate=accumulate, subpixel=subpixel)
    with opened(path, codec="mpeg4") as (container, stream):
        stream.codec_context.options = EXPORT_VECTORS
        yield from reader.read(_groups(_numbered(path, decoded(path, container, stream))))


def read_at(
    path: str | Path,
    frame_indices: Sequence[int],
    *,
    accumulate: bool = False,
    subpixel: bool = False,
) -> list[CompressedFrame]:
    """Read single frames, decoding only the GOPs they are in, each up to the frame asked for.

    Where the frames lie is found once for each of the files read last and remembered until a file
    changes (its size or time of modification), so that further calls cost no more on a long film.

    Args:
        path: as for :func:`read_frames`, but .mp4, where frames are found by its index, or a bare
            .m4v stream, where they are found by their start codes.
        frame_indices: frame numbers from 0, in any order; a number may come twice.
        accumulate, subpixel: as for :func:`read_frames`.

    Returns:
        The frames, in the order asked for, equal to those of :func:`read_frames`.

    Raises:
        VideoError: as :func:`read_frames`, and for a number that the clip does not have.
    """
    path, indices = Path(path), [int(i) for i in frame_indices]
    reader = Reader(path, accumulate=accumulate, subpixel=subpixel)
    index = read_index(path)
    for i in indices:
        if not 0 <= i < len(index.shown):
            raise VideoError(
                f"{path}: has {len(index.shown)} frames, numbered from 0; there is no frame {i}."
            )
    if index.before:
        raise needs_transcode(path, "begins with a P-frame without its I-frame")
    silence()
    decoder = av.CodecContext.create("mpeg4", "r")
    decoder.extradata = index.extradata or None  # an .mp4 keeps the VOL header there
    decoder.thread_count = 1
    decoder.options = EXPORT_VECTORS
    wanted = np.unique(index.shown[indices])
    gop_of = np.searchsorted(index.keys, wanted, side="right") - 1
    found = {}
    with mapped(path) as data:
        for gop in np.unique(gop_of).tolist():
            if gop < 0:
                raise needs_transcode(path, "its index does not name its I-frames")
            reader.gop_index = gop - 1
            members = wanted[gop_of == gop].tolist()
            frames = _gop(path, decoder, data, index, int(index.keys[gop]), members, accumulate)
            found |= {frame.index: frame for frame in reader.read(_groups(frames))}
            decoder.flush_buffers()
    return [found[i] for i in indices]


class _Numbered(NamedTuple):
    """A decoded frame on its way to the reader."""

    frame: av.VideoFrame | None  # None: neither wanted nor referred to by a wanted one
    number: int  # in the clip; of a hidden frame, the next one's
    wanted: bool


def _numbered(path: Path, frames: Iterable[av.VideoFrame]) -> Iterator[_Numbered]:
    number = 0
    for frame in frames:
        check_kind(path, frame, number)
        hidden = is_hidden(frame)
        yield _Numbered(frame, number, not hidden)
        number += not hidden


def _gop(
    path: Path,
    decoder: av.CodecContext,
    data: mmap.mmap,
    index: Index,
    first: int,
    members: list[int],
    accumulate: bool,
) -> Iterator[_Numbered]:
    """Decode from the I-frame ``first`` to the last of ``members``; pictures by their place in the
    index. A frame that no other one needs is let go, so that its memory is used again.
    """
    last, place = members[-1], first
    for frame in _decode(path, decoder, data, index, first, last):
        number = int(np.searchsorted(index.shown, place))
        if frame.is_corrupt:
            raise damaged(path, f"frame {number} is marked corrupt by the decoder")
        check_kind(path, frame, number)
        if (frame.pict_type == PictureType.I) != (place == first):
            raise needs_transcode(path, f"its index is wrong about frame {number}")
        needed = accumulate or place == first or place in members or place + 1 in members
        yield _Numbered(frame if needed else None, number, place in members)
        place += 1
    if place != last + 1:
        number = int(np.searchsorted(index.shown, place))
        raise needs_transcode(path, f"its index is wrong about frame {number}")


def _decode(
    path: Path, decoder: av.CodecContext, data: mmap.mmap, index: Index, first: int, last: int
) -> Iterator[av.VideoFrame]:
    begin, end = index.headers[first].tolist()
    header = data[begin:end] if begin < index.spans[first, 0] else b""  # else it has them itself
    for begin, end in index.spans[first : last + 1].tolist():
        # Copied by update: av.Packet(bytes) lends the bytes without the zero padding that FFmpeg's
        # bit reader needs behind them, and now and then a good frame comes out marked corrupt.
        packet = av.Packet(len(header) + end - begin)
        packet.update(header + data[begin:end])
        header = b""
        yield from decode(path, decoder, packet)
    yield from decode(path, decoder, None)


def check_kind(path: Path, frame: av.VideoFrame, number: int) -> None:
    """Raise a ``VideoError`` unless the frame is an I- or a P-frame."""
    if frame.pict_type not in (PictureType.I, PictureType.P):
        kind = PictureType(frame.pict_type).name
        raise needs_transcode(
            path, f"frame {number} is {'an' if kind == 'S' else 'a'} {kind}-frame"
        )


def _groups(frames: Iterable[_Numbered]) -> Iterator[list[_Numbered]]:
    """Frames to be read together: of one GOP, and few enough to hold in memory."""
    group = []
    try:
        for one in frames:
            is_key = one.frame is not None and one.frame.pict_type == PictureType.I
            if group and (is_key or len(group) == 16):
                yield group
                group = []
            group.append(one)
    except VideoError:
        if group:
            yield group  # what came before the damage is good
        raise
    if group:
        yield group


class Reader:
    """Turns decoded frames, given in order, into compressed frames.

    It keeps what the next frame refers to: the frame before it or, when accumulating, the GOP's
    I-frame and how far each pixel has come from there.
    """

    def __init__(self, path: Path, *, accumulate: bool, subpixel: bool):
        self.path, self.accumulate, self.subpixel = path, accumulate, subpixel
        self.gop_index, self.gop_position = -1, -1  # of the last frame
        self._reference: av.VideoFrame | None = None
        # Its RGB, padded to whole macroblocks. It is made once somebody asks, for most frames on
        # the way are never shown.
        self._room: np.ndarray | None = None
        # dx and dy since the I-frame: float32 (H, W, 1) each, padded as vectors.carry wants it
        self._way: list[np.ndarray] | None = None
        self._reformatter = VideoReformatter()

    def read(self, groups: Iterable[list[_Numbered]]) -> Iterator[CompressedFrame]:
        """Take the next frames, in groups of one GOP; yield those wanted."""
        for group in groups:
            for (frame, number, wanted), moves in zip(group, self._moves(group), strict=True):
                self.gop_position += 1
                if wanted:
                    yield self._frame(frame, number, moves)  # not held here: its memory is recycled
                elif frame is not None:
                    self._step(frame, number, None, moves)

    def _frame(self, frame: av.VideoFrame, number: int, moves) -> CompressedFrame:
        rgb = to_rgb(frame, self._reformatter)
        motion, residual = self._step(frame, number, rgb, moves)
        place = number, self.gop_index, self.gop_position, frame.pict_type == PictureType.I
        return CompressedFrame(*place, rgb, motion, residual.transpose(2, 0, 1))

    def _step(self, frame: av.VideoFrame, number: int, rgb: np.ndarray | None, moves) -> tuple:
        """Motion and residual of the next frame; None twice without ``rgb``: it is not shown."""
        if frame.pict_type != PictureType.I:
            return self._predict(frame, number, rgb, moves)
        self.gop_index, self.gop_position, self._way = self.gop_index + 1, 0, None
        self._refer(frame, rgb)
        if rgb is None:
            return None, None
        height, width = frame.height, frame.width
        motion = RECYCLED.empty((2, height, width), np.float32)
        residual = RECYCLED.empty((height, width, 3), np.int16)
        motion[:] = residual[:] = 0
        return motion, residual

    def _moves(self, group: list[_Numbered]) -> list:
        """What moves in each frame of a group: vectors, or what whole pixels keep of them."""
        blocks = [
            motion_vectors(self.path, frame, number) if wanted or self.accumulate else _NO_VECTORS
            for frame, number, wanted in group
        ]
        if self.subpixel:
            return blocks
        sizes = ((one.frame.height, one.frame.width) for one in group if one.frame is not None)
        return vectors.whole_pixel_moves(blocks, *next(sizes, (0, 0)))

    def _predict(self, frame: av.VideoFrame, number: int, rgb: np.ndarray | None, moves) -> tuple:
        """As :meth:`_step`, of a P-frame."""
        size = height, width = frame.height, frame.width
        if self._reference is None:
            raise needs_transcode(self.path, "begins with a P-frame without its I-frame")
        if size != (self._reference.height, self._reference.width):
            raise needs_transcode(self.path, f"the picture size changes at frame {number}")
        if rgb is None and not self.accumulate:
            self._refer(frame, None)
            return None, None
        if self.subpixel:
            motion = rasterize_motion_vectors(moves, height, width, subpixel=True)
        else:
            motion = vectors.motion_field(moves, height, width)
        if self.accumulate:
            motion = self._add_to_way(motion, moves)
        if rgb is None:
            return None, None
        if self._room is None:
            self._refer(self._reference, to_rgb(self._reference, self._reformatter))
        before = self._room
        if not self.accumulate:
            self._refer(frame, rgb)
        if self.accumulate or self.subpixel:
            predicted = predict(before[:height, :width], motion)
            return motion, np.subtract(rgb, predicted, dtype=np.int16)
        vectors.carry(before, moves)  # what predict gives, sooner
        return motion, np.subtract(self._room, before, out=before)[:height, :width]

    def _refer(self, frame: av.VideoFrame, rgb: np.ndarray | None) -> None:
        """Let the next frames refer to this one; a copy, for the caller may change ``rgb``."""
        self._reference, self._room = frame, None
        if rgb is not None:
            height, width = rgb.shape[:2]
            sides = vectors.padded(height), vectors.padded(width), 3
            # What is carried becomes the residual, and numpy is twice as fast with types alike.
            is_carried = not (self.accumulate or self.subpixel)
            self._room = RECYCLED.empty(sides, np.int16 if is_carried else np.uint8)
            self._room[:height, :width] = rgb

    def _add_to_way(self, motion: np.ndarray, moves) -> np.ndarray:
        """The way of a pixel is its last step and the way of the pixel it stepped from."""
        _, height, width = motion.shape
        if self._way is None:
            sides = vectors.padded(height), vectors.padded(width)
            self._way = [np.zeros((*sides, 1), np.float32) for _ in "xy"]
        if self.subpixel:
            # Between pixels the nearest one: ways of neighbouring blocks are not to be mixed.
            rows, columns = (np.rint(side).astype(np.intp) for side in vectors.sources(motion))
        for way, step in zip(self._way, motion, strict=True):
            if self.subpixel:
                way[:height, :width] = way[rows, columns]
            else:
                vectors.carry(way, moves)
            way[:height, :width, 0] += step
        return np.stack([way[:height, :width, 0] for way in self._way])


def motion_vectors(path: Path, frame: av.VideoFrame, number: int) -> np.ndarray:
    """The vectors that the decoder exports with a frame: ``(K,)``, one row per block.

    Raises:
        VideoError: they are of fields, not frames.
    """
    exported = side_data(frame, "MOTION_VECTORS")
    if not exported:
        return _NO_VECTORS
    blocks = np.frombuffer(exported, vectors.VECTOR)
    if (blocks["w"] != blocks["h"]).any():
        # Each field (every other row) of a macroblock has a vector of its own. FFmpeg gives both as
        # if they were of its upper and lower half, and does not say which field they refer to.
        raise needs_transcode(path, f"frame {number} is interlaced and has vectors of fields")
    return blocks


_NO_VECTORS = np.empty(0, vectors.VECTOR)
