"""FFmpeg's part: open a file, choose its video stream, decode every picture.

What FFmpeg raises becomes a sentence here.
"""

import mmap
import os
import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
from av.sidedata.sidedata import SideData, SideDataContainer
from av.video.frame import PictureType

from dmclib.codec import mpeg4
from dmclib.errors import VideoError

# What PyAV raises on damaged files. The last three come from inside it, on odd metadata, so they
# are caught around single calls into av only, never around code of ours.
AV_ERRORS = (
    *(av.FFmpegError, OSError, ValueError, MemoryError, NotImplementedError),
    *(AttributeError, IndexError, UnicodeDecodeError),
)
_PREDICTED = (PictureType.P, PictureType.B, PictureType.S, PictureType.SP)
# Their decoders give no frame until one can be decoded, be it by an I-frame or by intra blocks that
# wander over P-frames. Others make up a grey reference for frames before the first I-frame.
_WAIT = frozenset({"h264", "hevc", "vvc", "mpeg1video", "mpeg2video"})


class Sent(NamedTuple):
    """What was sent to the decoder; a decoded frame has it as ``opaque``."""

    number: int  # among the packets of the stream that are not empty
    size_bytes: int
    is_key: bool
    pts: int | None
    hidden: bool  # an edit list cuts the frame away; later frames may still refer to it


def damaged(path: Path, found: object) -> VideoError:
    """The error of a file that nobody can read."""
    return VideoError(f"{path}: {found}. The file is damaged: fetch or make it again.")


def needs_transcode(path: Path, found: str) -> VideoError:
    """The error of a file that is fine, but not what vectors are read from; names the call."""
    target = path.with_name(f"{path.stem}_mpeg4.mp4")
    return VideoError(
        f"{path}: {found}; motion vectors are read from MPEG-4 Part 2 of I- and P-frames, not "
        f"interlaced. Convert it first: codec.transcode({str(path)!r}, {str(target)!r})"
    )


def url(path: Path) -> str:
    """The name under which FFmpeg takes a path for a file, whatever characters are in it."""
    return f"file:{path}"


def steps(path: Path, iterable: Iterable) -> Iterator:
    """Yield from one of av's iterators; only what av itself raises becomes a VideoError."""
    iterator = iter(iterable)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except AV_ERRORS as error:
            raise _undecodable(path, error) from error
        yield item


def decode(path: Path, context: av.CodecContext, packet: av.Packet | None) -> list[av.VideoFrame]:
    """Send a packet to the decoder, or None as the last; what it raises becomes a VideoError."""
    try:
        return context.decode(packet)
    except AV_ERRORS as error:
        raise _undecodable(path, error) from error


def _undecodable(path: Path, error: Exception) -> VideoError:
    return damaged(path, f"cannot be decoded ({type(error).__name__}: {error})")


def check_is_file(path: Path) -> None:
    """Raise a ``VideoError`` if it is not there."""
    if "\0" in str(path) or not path.is_file():
        raise VideoError(f"{path}: no such file. Check the path.")


def silence() -> None:
    """Let messages of FFmpeg be dropped in C, before any call into it.

    With PyAV's logging on they take a Python lock inside FFmpeg's calls, a known deadlock; some
    libraries turn it on when they are imported.
    """
    av.logging.set_level(None)


@contextmanager
def opened(path: str | Path, *, codec: str | None = None) -> Iterator[tuple]:
    """Open ``path`` and give its container and best video stream, of ``codec`` if one is named.

    The best stream is FFmpeg's choice, but no cover, and no single frame beside a film.
    """
    path = Path(path)
    check_is_file(path)
    silence()
    try:
        with open(path, "rb") as handle:
            bare = handle.read(4) == b"\x00\x00\x01\xb0"  # FFmpeg takes long to guess these
        # This file alone: a playlist that calls itself .mp4 must not open other addresses, nor a
        # picture whose name has a "%d" other pictures.
        only = {"protocol_whitelist": "file", "pattern_type": "none"}
        container = av.open(url(path), format="m4v" if bare else None, options=only)
    except AV_ERRORS as error:
        raise damaged(path, f"is not a readable video ({error})") from error
    with container:
        cover = av.stream.Disposition.attached_pic  # a song's cover counts as video for FFmpeg
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            found = ", ".join(sorted({s.type for s in container.streams})) or "no stream"
            raise VideoError(f"{path}: holds {found} but no video. Give a video file.")
        best = container.streams.best("video")
        films = [s for s in streams if s.frames != 1] or streams  # a thumbnail is one frame
        stream = best if best in films else films[0]
        context = stream.codec_context
        if context is None:
            raise VideoError(
                f"{path}: its video is in a codec that this FFmpeg cannot decode. Convert it with "
                "another tool first."
            )
        if codec and context.codec.canonical_name != codec:
            raise needs_transcode(path, f"the video is {context.codec.canonical_name}")
        context.thread_count = 1  # workers of a DataLoader must not multiply; results are the same
        yield container, stream


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file, read where they are looked at."""
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def movie_header(path: Path, container) -> bytes:
    """The ``moov`` box of an .mp4, .mov or other file of that family; empty of other containers."""
    if not container.format.name.startswith("mov"):
        return b""
    with open(path, "rb") as handle:
        while len(head := handle.read(8)) == 8:
            size, kind = struct.unpack(">I4s", head)
            if size == 1:  # it has 64 bits, and they follow
                size = int.from_bytes(handle.read(8)) - 8
            if kind == b"moov":
                return handle.read(max(0, min(size - 8, 1 << 28)))
            if not 8 <= size <= path.stat().st_size:
                break  # it goes on to the end of the file, or is damaged
            handle.seek(size - 8, os.SEEK_CUR)
    return b""


def check_readable(path: Path, stream, header: bytes) -> None:
    """Raise a ``VideoError`` if it is encrypted; FFmpeg without a key decodes that in silence.

    Args:
        header: what :func:`movie_header` gives.
    """
    # An .mp4's "encv" stands for the codec, which FFmpeg reports instead; "tenc" describes the key.
    if "enc_key_id" in stream.metadata or (b"encv" in header and b"tenc" in header):
        raise VideoError(f"{path}: is encrypted. Decrypt it first, or get a copy that is not.")


def demuxed(path: Path, container, stream) -> Iterator[av.Packet]:
    """Yield the packets of a stream as its decoder needs them, each with a :class:`Sent`.

    Left out are empty packets (a sample of no bytes shows the picture before again) and a bare end
    code. A packet that an edit list hides comes without its mark, for the decoder would not give
    its frame. A second sample description of an .mp4 comes in front of its first picture.
    """
    is_mpeg4 = stream.codec_context.codec.canonical_name == "mpeg4"
    number = 0
    for packet in steps(path, container.demux(stream)):  # ends with an empty one
        if not packet.size:
            continue
        header = b""
        if is_mpeg4:
            if packet.size < 8 and bytes(packet).startswith(mpeg4.END):
                continue
            if packet.has_sidedata("new_extradata"):  # FFmpeg's decoder does not look at it
                header = bytes(packet.get_sidedata("new_extradata"))
        sent = Sent(number, packet.size, packet.is_keyframe, packet.pts, packet.is_discard)
        if header or packet.is_discard:
            packet = _copied(packet, header)
        packet.opaque = sent
        number += 1
        yield packet


def _copied(packet: av.Packet, header: bytes) -> av.Packet:
    copy = av.Packet(len(header) + packet.size)
    copy.update(header + bytes(packet))
    copy.pts, copy.dts, copy.is_corrupt = packet.pts, packet.dts, packet.is_corrupt
    copy.is_keyframe = packet.is_keyframe
    for side_data in packet.iter_sidedata():
        copy.set_sidedata(side_data)
    return copy


def decoded(path: Path, container, stream) -> Iterator[av.VideoFrame]:
    """Yield every frame of the stream in the order of showing, also those that are hidden.

    Raises:
        VideoError: a frame that the decoder doubts, no frames at all, or bytes that are missing;
            what came before has been yielded by then.
    """
    header = movie_header(path, container)
    check_readable(path, stream, header)
    context, last, count, partial = stream.codec_context, None, 0, False
    context.copy_opaque = True
    for packet in chain(demuxed(path, container, stream), [None]):
        partial = partial if packet is None else packet.is_corrupt
        for frame in decode(path, context, packet):
            if packet is None and last is not None and _same_memory(frame, last):
                continue  # behind a last VOP that is not coded, the picture before comes again
            if frame.is_corrupt:
                raise damaged(path, f"frame {count} is marked corrupt by the decoder")
            yield frame
            last, count = frame, count + (not is_hidden(frame))
    if count == 0:
        raise VideoError(f"{path}: has a video stream but no frames. Fetch or make it again.")
    ends = [entry.pos + entry.size for entry in stream.index_entries] if header else []
    if partial or max(ends, default=0) > path.stat().st_size:
        raise damaged(path, f"is cut short: its end is missing behind frame {count - 1}")


def _same_memory(frame: av.VideoFrame, other: av.VideoFrame) -> bool:
    return frame.planes[0].buffer_ptr == other.planes[0].buffer_ptr


def is_hidden(frame: av.VideoFrame) -> bool:
    """Whether an edit list cuts this frame away."""
    sent = frame.opaque
    return sent is not None and sent.hidden


def side_data(frame: av.VideoFrame, kind: str) -> SideData | None:
    """What a frame has beside its picture: ``MOTION_VECTORS`` or ``DISPLAYMATRIX``."""
    # frame.side_data would refer to the frame and the frame to it: such a circle keeps the picture
    # in memory until Python's collector comes by.
    return SideDataContainer(frame).get(kind)


def shown(path: Path, container, stream) -> Iterator[av.VideoFrame]:
    """Yield the frames that are to be shown, in order; errors as of :func:`decoded`.

    Frames before the first I-frame are left out with a warning.

    Raises:
        VideoError: also if there is no I-frame.
    """
    frames, left_out = decoded(path, container, stream), 0
    waits = stream.codec_context.codec.canonical_name in _WAIT
    for frame in frames:
        if waits or frame.key_frame or frame.pict_type not in _PREDICTED:
            frames = chain([frame], frames)
            break
        left_out += 1
    else:
        raise VideoError(
            f"{path}: has no I-frame, so its {left_out} frames cannot be decoded. Cut the video "
            "where an I-frame is."
        )
    if left_out:
        warnings.warn(
            f"{path}: {left_out} frames before the first I-frame are left out, since what they "
            "refer to is not in the file.",
            stacklevel=2,
        )
    for frame in frames:
        if not is_hidden(frame):
            yield frame


def frame_rate(path: Path, container, stream) -> Fraction:
    """Frames per second; 25 where the file names none that MPEG-4 could hold."""
    rate = stream.average_rate or stream.guessed_rate
    if container.format.name == "m4v":  # of these FFmpeg always says 25
        with mapped(path) as data:
            rate = mpeg4.rate(data, *mpeg4.scan(data))
    rate = Fraction(rate or 25).limit_denominator(1001)
    return rate if 0 < rate.numerator < 1 << 16 else Fraction(25)
