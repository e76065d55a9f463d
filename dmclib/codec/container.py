"""FFmpeg's part: open a file, choose its video stream, decode, find pictures.

What FFmpeg raises becomes a sentence here.
"""

import mmap
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from dmclib.errors import VideoError

_BEFORE_PICTURE = re.compile(rb"\x00\x00\x01[\xb0\xb3\x00-\x2f]")  # its headers

# What PyAV raises on damaged files. The last three come from inside it, on odd metadata, so they
# are caught around single calls into av only, never around code of ours.
AV_ERRORS = (
    *(av.FFmpegError, OSError, ValueError, MemoryError, NotImplementedError),
    *(AttributeError, IndexError, UnicodeDecodeError),
)


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its first video stream."""

    codec: str  # FFmpeg's name; "mpeg4" is MPEG-4 Part 2
    width: int  # pixels, as stored: before any rotation
    height: int
    fps: float  # frames per second
    frames: int
    counted: bool  # True: packets in the file were counted; False: the header's word


@dataclass(frozen=True)
class Packet:
    """One compressed frame as it lies in the file."""

    size_bytes: int
    is_key: bool
    pts: int | None  # in units of the stream's time base; None where the file has none


def damaged(path: Path, found: object) -> VideoError:
    """The error of a file that nobody can read."""
    return VideoError(f"{path}: {found}. The file is damaged: fetch or make it again.")


def needs_transcode(path: Path, found: str) -> VideoError:
    """The error of a file that is fine, but not what vectors are read from; names the call."""
    target = path.with_name(f"{path.stem}_mpeg4.mp4")
    return VideoError(
        f"{path}: {found}; motion vectors are read from MPEG-4 Part 2 without B-frames. Convert it "
        f"first: codec.transcode({str(path)!r}, {str(target)!r})"
    )


def steps(path: Path, iterable: Iterable) -> Iterator:
    """Yield from one of av's iterators; only what av itself raises becomes a VideoError."""
    iterator = iter(iterable)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except AV_ERRORS as error:
            raise damaged(path, f"cannot be decoded ({type(error).__name__}: {error})") from error
        yield item


@contextmanager
def opened(path: str | Path, *, codec: str | None = None) -> Iterator[tuple]:
    """Open ``path`` and give its container and first video stream, of ``codec`` if one is named."""
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: no such file. Check the path.")
    # Messages of FFmpeg are dropped in C. With PyAV's logging on they take a Python lock inside
    # FFmpeg's calls, a known deadlock; some libraries turn it on when they are imported.
    av.logging.set_level(None)
    try:
        with open(path, "rb") as handle:
            bare = handle.read(4) == b"\x00\x00\x01\xb0"  # FFmpeg takes long to guess these
        # This file alone: a playlist that calls itself .mp4 must not open other addresses.
        only = {"protocol_whitelist": "file"}
        container = av.open(str(path), format="m4v" if bare else None, options=only)
    except AV_ERRORS as error:
        raise damaged(path, f"is not a readable video ({error})") from error
    with container:
        cover = av.stream.Disposition.attached_pic  # a song's cover counts as video for FFmpeg
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            found = ", ".join(sorted({s.type for s in container.streams})) or "no stream"
            raise VideoError(f"{path}: holds {found} but no video. Give a video file.")
        context = streams[0].codec_context
        if context is None:
            raise VideoError(
                f"{path}: its video is in a codec that this FFmpeg cannot decode. Convert it with "
                "another tool first."
            )
        if codec and context.codec.canonical_name != codec:
            raise needs_transcode(path, f"the video is {context.codec.canonical_name}")
        context.thread_count = 1  # workers of a DataLoader must not multiply; results are the same
        yield container, streams[0]


def checked(path: Path, frames: Iterable[av.VideoFrame], first: int = 0) -> Iterator[av.VideoFrame]:
    """Yield decoded frames, numbered from ``first``; one that the decoder doubts is an error."""
    for index, frame in enumerate(steps(path, frames), first):
        if frame.is_corrupt:
            raise damaged(path, f"frame {index} is marked corrupt by the decoder")
        yield frame


def decoded(path: Path, container, stream) -> Iterator[av.VideoFrame]:
    """Yield every frame of the stream; a damaged, missing or absent picture is an error."""
    if _is_encrypted(path, container, stream):
        raise VideoError(f"{path}: is encrypted. Decrypt it first, or get a copy that is not.")
    count = 0
    for frame in checked(path, container.decode(stream)):
        yield frame
        count += 1
    if count == 0:
        raise VideoError(f"{path}: has a video stream but no frames. Fetch or make it again.")
    # Only .mp4 and .mov have an index to trust; an .avi's header may just be wrong. Frames that an
    # edit list cuts away (a trimmed phone video) are in the file, but not to be shown.
    if container.format.name.startswith("mov"):
        promised = sum(not entry.is_discard for entry in stream.index_entries)
        if count < promised:
            raise damaged(path, f"is cut short: {count} of {promised} frames can be decoded")


def _is_encrypted(path: Path, container, stream) -> bool:
    """Whether the container says so; FFmpeg without a key decodes the ciphertext in silence."""
    if "enc_key_id" in stream.metadata:  # Matroska
        return True
    if not container.format.name.startswith("mov"):
        return False
    # An .mp4's "encv" stands for the codec, which FFmpeg reports instead; "tenc" describes the key.
    with open(path, "rb") as handle:
        while len(head := handle.read(8)) == 8:
            size, kind = struct.unpack(">I4s", head)
            if size == 1:  # it has 64 bits, and they follow
                size = int.from_bytes(handle.read(8)) - 8
            if kind == b"moov":
                header = handle.read(max(0, min(size - 8, 1 << 28)))
                return b"encv" in header and b"tenc" in header
            if not 8 <= size <= path.stat().st_size:
                break  # it goes on to the end of the file, or is damaged
            handle.seek(size - 8, os.SEEK_CUR)
    return False


def frame_rate(stream) -> Fraction:
    """Frames per second; 25 where the file names none that MPEG-4 could hold."""
    rate = Fraction(stream.average_rate or stream.guessed_rate or 25).limit_denominator(1001)
    return rate if rate >= 1 and rate.numerator < 1 << 16 else Fraction(25)


def probe(path: str | Path) -> VideoInfo:
    """Describe a video without decoding it.

    The number of frames is the header's where it gives one, else packets are counted.

    Raises:
        VideoError: a file that is missing, unreadable or without video.
    """
    with opened(path) as (container, stream):
        counted = stream.frames <= 0
        frames = len(_packets(Path(path), container, stream)) if counted else stream.frames
        context = stream.codec_context
        name, rate = context.codec.canonical_name, float(frame_rate(stream))
        return VideoInfo(name, context.width, context.height, rate, frames, counted)


def packets(path: str | Path) -> list[Packet]:
    """List the compressed frames of a video in file order, without decoding them.

    Raises:
        VideoError: a file that is missing, unreadable or without video.
    """
    with opened(path) as (container, stream):
        return _packets(Path(path), container, stream)


def _packets(path: Path, container, stream) -> list[Packet]:
    demuxed = steps(path, container.demux(stream))  # ends with an empty one
    return [Packet(p.size, p.is_keyframe, p.pts) for p in demuxed if p.size]


def to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Convert a decoded frame to RGB: uint8 ``(H, W, 3)``, its rows perhaps padded in memory.

    Always rgb24: the fast paths of FFmpeg 8 to gbrp and rgba leave the last ``W % 8`` columns
    unwritten (CoViAR's FFmpeg has the same fault in bgr24).
    """
    plane = reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)


def upright(frame: av.VideoFrame, reformatter: VideoReformatter) -> av.VideoFrame:
    """Turn a frame by the quarter turns that its display matrix asks for (phone videos)."""
    turns = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 counts
    if not turns:
        return frame
    turned = np.rot90(to_rgb(frame, reformatter), turns)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="rgb24")


def decode_rgb(path: str | Path) -> Iterator[np.ndarray]:
    """Yield every frame of a video in any codec, upright, as RGB uint8 ``(H, W, 3)``.

    Raises:
        VideoError: a file that is missing, damaged, cut short or without video; frames before the
            damage have been yielded by then.
    """
    path, reformatter = Path(path), VideoReformatter()
    with opened(path) as (container, stream):
        for frame in decoded(path, container, stream):
            try:
                rgb = to_rgb(upright(frame, reformatter), reformatter)
            except AV_ERRORS as error:
                raise damaged(path, f"a picture cannot be converted to RGB ({error})") from error
            yield np.ascontiguousarray(rgb)


def find_packets(path: Path, container, stream, data: mmap.mmap) -> tuple[list, np.ndarray]:
    """Where each frame's bytes lie in the file, and which are I-frames, without decoding."""
    if container.format.name == "m4v":
        return _scan(data)
    if not container.format.name.startswith("mov"):
        found = f"frames of a {container.format.name} file cannot be found without reading it all"
        raise needs_transcode(path, found)
    entries = list(stream.index_entries)
    if len(entries) != stream.frames or any(entry.is_discard for entry in entries):
        raise needs_transcode(path, "its index is in pieces, or an edit list cuts frames away")
    spans = [(entry.pos, entry.pos + entry.size) for entry in entries]
    if any(end > len(data) for _, end in spans):
        raise damaged(path, f"is cut short: its index names {len(spans)} frames")
    return spans, np.array([entry.is_keyframe for entry in entries], bool)


def _scan(data: mmap.mmap) -> tuple[list, np.ndarray]:
    """Find the pictures of a bare stream by their start codes.

    CoViAR's streams repeat the headers at every I-frame; they belong to the picture that follows.
    """
    byte = np.frombuffer(data, np.uint8)
    found = np.flatnonzero(byte[3:] == 0xB6)  # far faster than a search for all four bytes
    found = found[(byte[found] == 0) & (byte[found + 1] == 0) & (byte[found + 2] == 1)]
    pictures = found.tolist()
    # Two bits behind the start code tell the type: 00 is an I-frame.
    is_key = np.array([data[p + 4 : p + 5] < b"\x40" for p in pictures], bool)
    begins = list(pictures)
    for n in np.flatnonzero(is_key).tolist():
        header = _BEFORE_PICTURE.search(data, pictures[n - 1] + 4 if n else 0, pictures[n])
        if header:
            begins[n] = header.start()
    return list(zip(begins, [*begins[1:], len(data)], strict=True)), is_key
