"""From what a decoder gives to what a network takes: the frames of a GOP, one after the other.

The work behind ``codec.read_frames`` and ``codec.read_at``; plain and accumulated, whole-pixel and
sub-pixel reading differ here only.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from dmclib import vectors, video
from dmclib.errors import VideoError
from dmclib.vectors import predict, rasterize_motion_vectors


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


def check_kind(path: Path, frame: av.VideoFrame, index: int) -> None:
    """Raise a ``VideoError`` unless the frame is an I- or a P-frame."""
    if frame.pict_type not in (PictureType.I, PictureType.P):
        kind = PictureType(frame.pict_type).name
        raise video.needs_transcode(path, f"frame {index} is a {kind}-frame")


def groups(path: Path, frames: Iterable[av.VideoFrame]) -> Iterator[list[av.VideoFrame]]:
    """Frames to be read together: of one GOP, and few enough to hold in memory."""
    group = []
    try:
        for index, frame in enumerate(frames):
            check_kind(path, frame, index)
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
        return video.to_rgb(self._frame, self._reformatter)

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
                raise video.needs_transcode(self.path, "begins with a P-frame without its I-frame")
            if picture.size != self._reference.size:
                found = f"the picture size changes at frame {self.index}"
                raise video.needs_transcode(self.path, found)
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
