"""What a file holds, without decoding it where its headers tell: probe, packets, read_at's index.

A packet is not always a picture: a VOP may say that nothing was coded, a sample may be empty, an
edit list may hide frames, and decoders leave out leading pictures whose reference is missing. What
is counted here is what they show.
"""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dmclib.codec import mpeg4
from dmclib.codec.container import (
    Sent,
    check_is_file,
    check_readable,
    damaged,
    demuxed,
    frame_rate,
    mapped,
    movie_header,
    needs_transcode,
    opened,
    shown,
)

_DESCRIPTIONS = re.compile(rb"stsd....(....)", re.DOTALL)  # how many sample descriptions
_KEY, _HIDDEN = 1, 2  # flags of FFmpeg's index entries


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its best video stream."""

    codec: str  # FFmpeg's name; "mpeg4" is MPEG-4 Part 2
    width: int  # pixels, as stored: before any rotation
    height: int
    fps: float  # frames per second
    frames: int  # as many as decoding shows
    counted: bool  # True: packets in the file were counted; False: its index was read


@dataclass(frozen=True)
class Packet:
    """One compressed frame as it lies in the file."""

    size_bytes: int
    is_key: bool
    pts: int | None  # in units of the stream's time base; None where the file has none


@dataclass(frozen=True)
class Index:
    """Where the pictures of an MPEG-4 Part 2 stream lie in its file, in the order of decoding."""

    spans: np.ndarray  # int64 (N, 2): the first byte and the one behind the last
    headers: np.ndarray  # int64 (N, 2): the latest headers up to here; 0, 0: the container's
    keys: np.ndarray  # int64 (I,): places of the I-frames among the N
    shown: np.ndarray  # int64 (F,): places of the frames that no edit list cuts away
    before: int  # pictures before the first I-frame; they are left out
    extradata: bytes  # headers that the container holds, as an .mp4 does


def probe(path: str | Path) -> VideoInfo:
    """Describe a video; its frames are counted as decoding shows them.

    MPEG-4 Part 2 is counted by its headers where they suffice (always without B-frames). Anything
    else is decoded for it, since packets do not tell which of them are shown.

    Raises:
        VideoError: a file that is missing, unreadable, cut short or without video; one that has to
            be decoded, also if it is damaged.
    """
    path = Path(path)
    with opened(path) as (container, stream):
        context = stream.codec_context
        name, size = context.codec.canonical_name, (context.width, context.height)
        rate = float(frame_rate(path, container, stream))
        header = movie_header(path, container)
        indexed = name == "mpeg4" and _why_no_index(container, header) is None
        if indexed:
            with mapped(path) as data:
                index = _index(path, container, stream, header, data)
            frames = len(index.shown)
        counted = not (indexed and header)
    if not indexed:
        frames = len(packets(path))
    return VideoInfo(name, *size, rate, frames, counted)


def packets(path: str | Path) -> list[Packet]:
    """List the compressed frames of a video, those that it shows, in file order.

    Decodes where :func:`probe` does; the same errors.
    """
    path = Path(path)
    with opened(path) as (container, stream):
        sent = None
        if stream.codec_context.codec.canonical_name == "mpeg4":
            sent = _coded(path, container, stream)
    if sent is None:
        with opened(path) as (container, stream):
            sent = [frame.opaque for frame in shown(path, container, stream)]
            sent.sort(key=lambda one: one.number)
    return [Packet(one.size_bytes, one.is_key, one.pts) for one in sent if not one.hidden]


def _coded(path: Path, container, stream) -> list[Sent] | None:
    """Packets with a picture, from the first I-frame on; None where headers do not tell which."""
    within = mpeg4.layer(stream.codec_context.extradata or b"")
    sent, kinds = [], []
    for packet in demuxed(path, container, stream):
        data = bytes(packet)
        at = data.find(mpeg4.VOP)
        within = mpeg4.layer(data[: at if at >= 0 else None]) or within
        if at < 0:
            continue
        plane = mpeg4.plane(data[at : at + mpeg4.NOT_CODED_BYTES], within)
        if plane.kind in (mpeg4.BIDIRECTIONAL, mpeg4.SPRITE) or mpeg4.VOP in data[at + 4 :]:
            return None
        if plane.coded:
            sent.append(packet.opaque)
            kinds.append(plane.kind)
    return sent[mpeg4.leading(kinds)[0] :]


def read_index(path: Path) -> Index:
    """Find the pictures of an MPEG-4 Part 2 stream without decoding and without reading it all.

    A file is looked at once; what was found is kept for the files asked for last, as long as they
    do not change, so that another picture of a long film costs what one of a short clip does.

    Raises:
        VideoError: a file that is missing, in another codec, in a container without such an index,
            encrypted or cut short.
    """
    check_is_file(path)
    state = path.stat()
    return _look(path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=32)  # of 40 bytes a picture: half a megabyte for a film of 12,000
def _look(path: Path, *_state: int) -> Index:
    with opened(path, codec="mpeg4") as (container, stream), mapped(path) as data:
        header = movie_header(path, container)
        if why := _why_no_index(container, header):
            raise needs_transcode(path, why)
        check_readable(path, stream, header)
        return _index(path, container, stream, header, data)


def _why_no_index(container, header: bytes) -> str | None:
    """What keeps pictures from being found, in words; None where they can be."""
    if container.format.name == "m4v":
        return None
    if not header:
        return f"in the format {container.format.name} no frame is found without reading them all"
    if b"mvex" in header:
        return "its index is in pieces"
    if any(int.from_bytes(count) > 1 for count in _DESCRIPTIONS.findall(header)):
        return "it has more than one sample description"
    return None


def _index(path: Path, container, stream, header: bytes, data: mmap.mmap) -> Index:
    if header:
        entries = ((entry.pos, entry.size, entry.flags) for entry in stream.index_entries)
        table = np.array([entry for entry in entries if entry[1]], np.int64).reshape(-1, 3)
        spans = np.stack([table[:, 0], table[:, 0] + table[:, 1]], axis=1)
        if spans.max(initial=0) > len(data):
            raise damaged(path, f"is cut short: its index names {len(spans)} frames")
        is_key, hidden = table[:, 2] & _KEY > 0, table[:, 2] & _HIDDEN > 0
        vops, looked_at = spans[:, 0].copy(), is_key
    else:
        spans, vops = mpeg4.scan(data)
        is_key = (
            np.frombuffer(data, np.uint8)[np.minimum(vops + 4, len(data) - 1)] >> 6 == mpeg4.INTRA
        )
        hidden, looked_at = np.zeros(len(spans), bool), vops > spans[:, 0]
    # Not every picture is looked at: that would read a large file from its beginning to its end.
    looked_at = np.flatnonzero(looked_at | (spans[:, 1] - spans[:, 0] <= mpeg4.NOT_CODED_BYTES))
    for n in looked_at if header else ():
        vops[n] = data.find(mpeg4.VOP, *spans[n].tolist())
    extradata = stream.codec_context.extradata or b""
    spans, headers, kept = mpeg4.coded(data, spans, vops, looked_at, mpeg4.layer(extradata))
    before, behind = mpeg4.leading(_kinds(data, spans))
    keep = np.ones(len(spans), bool)
    keep[:before] = keep[before + 1 : before + 1 + behind] = False
    kept = kept[keep]
    keys, shown = np.flatnonzero(is_key[kept]), np.flatnonzero(~hidden[kept])
    return Index(spans[keep], headers[keep], keys, shown, before, extradata)


def _kinds(data: mmap.mmap, spans: np.ndarray) -> Iterator[int]:
    for span in spans:
        at = data.find(mpeg4.VOP, *span.tolist())
        yield data[at + 4] >> 6 if 0 <= at < len(data) - 4 else mpeg4.PREDICTED
