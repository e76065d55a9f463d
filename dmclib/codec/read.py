"""Read compressed frames: picture, motion and residual of every frame of a clip (paper, 3.1).

Plain and accumulated, whole-pixel and sub-pixel reading differ here only.
"""

import mmap
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from dmclib.codec import vectors
from dmclib.codec.container import (
    checked,
    damaged,
    decoded,
    find_packets,
    needs_transcode,
    opened,
    to_rgb,
)
from dmclib.codec.vectors import predict, rasterize_motion_vectors
from dmclib.errors import VideoError

_EXPORT_VECTORS = {"flags2": "+export_mvs"}  # for the codec; av.open would ignore it in silence


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
        path: MPEG-4 Part 2 without B-frames, as :func:`encode` and :func:`transcode` make it.
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
        VideoError: a file that is missing, damaged, cut short, in another codec or with B-frames;
            frames before the damage have been yielded by then.
    """
    path = Path(path)
    reader = Reader(path, accumulate=accumulate, subpixel=subpixel)
    with opened(path, codec="mpeg4") as (container, stream):
        stream.codec_context.options = _EXPORT_VECTORS
        for group in _groups(path, decoded(path, container, stream)):
            yield from reader.read(group)


def read_at(
    path: str | Path,
    frame_indices: Sequence[int],
    *,
    accumulate: bool = False,
    subpixel: bool = False,
) -> list[CompressedFrame]:
    """Read single frames, decoding only the GOPs they are in, each up to the frame asked for.

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
    with (
        opened(path, codec="mpeg4") as (container, stream),
        open(path, "rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        spans, is_key = find_packets(path, container, stream, data)
        for i in indices:
            if not 0 <= i < len(spans):
                raise VideoError(
                    f"{path}: has {len(spans)} frames, numbered from 0; there is no frame {i}."
                )
        decoder = av.CodecContext.create("mpeg4", "r")
        decoder.extradata = stream.codec_context.extradata  # an .mp4 keeps the VOL header there
        decoder.thread_count = 1
        decoder.options = _EXPORT_VECTORS
        keys = np.flatnonzero(is_key)
        wanted = np.unique(np.array(indices, np.int64))
        gop_of = np.searchsorted(keys, wanted, side="right") - 1
        found = {}
        for gop in np.unique(gop_of).tolist():
            members = wanted[gop_of == gop].tolist()
            if gop < 0:
                raise needs_transcode(path, "begins with a P-frame without its I-frame")
            first = int(keys[gop])
            chunks = [data[begin:end] for begin, end in spans[first : members[-1] + 1]]
            group = []
            for index, frame in enumerate(checked(path, _decode(decoder, chunks), first), first):
                _check_kind(path, frame, index)
                if (frame.pict_type == PictureType.I) != (index == first):
                    raise damaged(path, f"its index is wrong about frame {index}")
                # A frame that no other one needs is let go, so that its memory is used again.
                needed = accumulate or index == first or index in members or index + 1 in members
                group.append(frame if needed else None)
            if len(group) != len(chunks):
                raise damaged(path, f"{len(group)} of {len(chunks)} frames can be decoded")
            reader = Reader(path, accumulate=accumulate, subpixel=subpixel)
            reader.index, reader.gop_index = first - 1, gop - 1
            found |= {frame.index: frame for frame in reader.read(group, members)}
            decoder.flush_buffers()
    return [found[i] for i in indices]


def _decode(decoder: av.CodecContext, chunks: list[bytes]) -> Iterator[av.VideoFrame]:
    for chunk in chunks:
        # Copied by update: av.Packet(bytes) lends the bytes without the zero padding that FFmpeg's
        # bit reader needs behind them, and now and then a good frame comes out marked corrupt.
        packet = av.Packet(len(chunk))
        packet.update(chunk)
        yield from decoder.decode(packet)
    yield from decoder.decode(None)


def _check_kind(path: Path, frame: av.VideoFrame, index: int) -> None:
    """Raise a ``VideoError`` unless the frame is an I- or a P-frame."""
    if frame.pict_type not in (PictureType.I, PictureType.P):
        kind = PictureType(frame.pict_type).name
        raise needs_transcode(path, f"frame {index} is a {kind}-frame")


def _groups(path: Path, frames: Iterable[av.VideoFrame]) -> Iterator[list[av.VideoFrame]]:
    """Frames to be read together: of one GOP, and few enough to hold in memory."""
    group = []
    try:
        for index, frame in enumerate(frames):
            _check_kind(path, frame, index)
            if group and (frame.pict_type == PictureType.I or len(group) == 16):
                yield group
                group = []
            group.append(frame)
    except VideoError:
        if group:
            yield group  # what came before the damage is good
        raise
    if group:
        yield group


class _Picture:
    """A decoded frame; its RGB is made once somebody asks, for most on the way are never shown."""

    def __init__(self, frame: av.VideoFrame, reformatter: VideoReformatter):
        self._frame, self._reformatter = frame, reformatter
        self.size = frame.height, frame.width

    @cached_property
    def rgb(self) -> np.ndarray:
        """uint8 ``(H, W, 3)``, for the caller."""
        return to_rgb(self._frame, self._reformatter)

    @cached_property
    def reference(self) -> np.ndarray:
        """A copy for the next frame to refer to, padded to whole macroblocks."""
        height, width = self.size
        room = np.empty((vectors.padded(height), vectors.padded(width), 3), np.uint8)
        room[:height, :width] = self.rgb
        return room


class Reader:
    """Turns decoded frames, given in order, into compressed frames.

    It keeps what the next frame refers to: the frame before it or, when accumulating, the GOP's
    I-frame and how far each pixel has come from there.
    """

    def __init__(self, path: Path, *, accumulate: bool, subpixel: bool):
        self.path, self.accumulate, self.subpixel = path, accumulate, subpixel
        self.index, self.gop_index, self.gop_position = -1, -1, -1  # of the last frame
        self._reference: _Picture | None = None
        # dx and dy since the I-frame: float32 (H, W, 1) each, padded as vectors.carry wants it
        self._way: list[np.ndarray] | None = None
        self._reformatter = VideoReformatter()

    def read(
        self, group: list[av.VideoFrame | None], wanted: Container[int] | None = None
    ) -> Iterator[CompressedFrame]:
        """Take the next frames, of one GOP; yield those wanted, or all.

        A frame that neither is wanted nor referred to by a wanted one may be None.
        """
        height, width = group[0].height, group[0].width
        numbers = range(self.index + 1, self.index + 1 + len(group))
        shown = [wanted is None or number in wanted for number in numbers]
        blocks = [
            _motion_vectors(frame) if show or self.accumulate else _NO_VECTORS
            for frame, show in zip(group, shown, strict=True)
        ]
        if not self.subpixel:
            blocks = vectors.whole_pixel_moves(blocks, height, width)
        for frame, moves, show in zip(group, blocks, shown, strict=True):
            self.index += 1
            self.gop_position += 1
            if frame is None:
                continue
            picture = _Picture(frame, self._reformatter)
            if frame.pict_type == PictureType.I:
                self.gop_index, self.gop_position = self.gop_index + 1, 0
                self._reference, self._way = picture, None
                if show:
                    motion = np.zeros((2, height, width), np.float32)
                    yield self._frame(picture, motion, np.zeros((3, height, width), np.int16))
                continue
            if self._reference is None:
                raise needs_transcode(self.path, "begins with a P-frame without its I-frame")
            if picture.size != self._reference.size:
                found = f"the picture size changes at frame {self.index}"
                raise needs_transcode(self.path, found)
            if show or self.accumulate:
                motion, predicted = self._predict(moves, height, width, show)
            if show:
                residual = np.subtract(picture.rgb, predicted, dtype=np.int16)
                yield self._frame(picture, motion, residual.transpose(2, 0, 1))
            if not self.accumulate:
                self._reference = picture

    def _predict(self, moves, height: int, width: int, show: bool) -> tuple:
        """Motion of a P-frame and, if it is to be shown, what it makes of the reference."""
        if self.subpixel:
            motion = rasterize_motion_vectors(moves, height, width, subpixel=True)
        else:
            motion = vectors.motion_field(moves, height, width)
        if self.accumulate:
            motion = self._add_to_way(motion, moves)
        if not show:
            return motion, None
        reference = self._reference.reference
        if self.accumulate or self.subpixel:
            return motion, predict(reference[:height, :width], motion)
        return motion, vectors.carry(reference, moves)[:height, :width]  # the same, sooner

    def _add_to_way(self, motion: np.ndarray, moves) -> np.ndarray:
        """The way of a pixel is its last step and the way of the pixel it stepped from."""
        _, height, width = motion.shape
        if self._way is None:
            sides = vectors.padded(height), vectors.padded(width)
            self._way = [np.zeros((*sides, 1), np.float32) for _ in "xy"]
        if self.subpixel:
            # Between pixels the nearest one: ways of neighbouring blocks are not to be mixed.
            rows, columns = (np.rint(side).astype(np.intp) for side in vectors.sources(motion))
            for way in self._way:
                way[:height, :width] = way[rows, columns]
        else:
            self._way = [vectors.carry(way, moves) for way in self._way]
        for way, step in zip(self._way, motion, strict=True):
            way[:height, :width, 0] += step
        return np.stack([way[:height, :width, 0] for way in self._way])

    def _frame(self, picture: _Picture, motion, residual) -> CompressedFrame:
        _ = picture.reference  # copied now: the caller may change rgb before the next frame
        key = self.gop_position == 0
        return CompressedFrame(
            self.index, self.gop_index, self.gop_position, key, picture.rgb, motion, residual
        )


def _motion_vectors(frame: av.VideoFrame) -> np.ndarray:
    exported = frame.side_data.get("MOTION_VECTORS")
    return np.frombuffer(exported, vectors.VECTOR) if exported else _NO_VECTORS


_NO_VECTORS = np.empty(0, vectors.VECTOR)
