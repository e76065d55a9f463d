"""Videos and arrays that several tests of the codec are about."""

import itertools
from fractions import Fraction

import av
import numpy as np

from dmclib import codec

FIELDS = [
    *(("source", "i4"), ("w", "u1"), ("h", "u1")),
    *((name, "i2") for name in ("src_x", "src_y", "dst_x", "dst_y")),
    *(("motion_x", "i4"), ("motion_y", "i4"), ("motion_scale", "u2")),
]
MODES = list(itertools.product([False, True], [False, True]))  # accumulate, subpixel


def literal_sources(rows, height, width):
    """Where each pixel comes from (y, x), written pixel by pixel as CoViAR's loader does it."""
    origin = np.stack(np.mgrid[:height, :width], -1)
    for row in rows:
        dy, dx = int(row["dst_y"]) - int(row["src_y"]), int(row["dst_x"]) - int(row["src_x"])
        if dy == dx == 0:
            continue
        for v, u in itertools.product(range(row["h"]), range(row["w"])):
            y = int(row["dst_y"]) - int(row["h"]) // 2 + v
            x = int(row["dst_x"]) - int(row["w"]) // 2 + u
            inside = 0 <= y < height and 0 <= x < width
            if inside and 0 <= y - dy < height and 0 <= x - dx < width:
                origin[y, x] = y - dy, x - dx
    return origin


def moving_pictures(count=30, height=34, width=50, seed=0):
    """A smooth texture that moves 2 px right and 1 px down a frame, and a cut in the middle."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 256, (height // 4 + 20, width // 4 + 30, 3), dtype=np.uint8)
    texture = texture.repeat(4, 0).repeat(4, 1).astype(np.int32)
    texture = sum(np.roll(texture, (dy, dx), (0, 1)) for dy in range(4) for dx in range(4)) // 16
    for n in range(count):
        y, x = 40 - n, 80 - 2 * n
        picture = np.roll(texture, (-y, -x), (0, 1))[:height, :width].astype(np.uint8)
        yield 255 - picture if n >= count // 2 else picture


def same(a, b):
    return (a.index, a.gop_index, a.gop_position, a.is_key) == (
        *(b.index, b.gop_index, b.gop_position, b.is_key),
    ) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("rgb", "motion", "residual")
    )


def foreign(
    path, name="mjpeg", *, pix_fmt="yuvj420p", frames=20, rate=25, container=None, **options
):
    """Encode the moving pictures by FFmpeg's own means."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(name, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 50, 34, pix_fmt
        stream.codec_context.options = options
        for n, picture in enumerate(moving_pictures(frames)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = n
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def remuxed(source, target, *, cut=0, **options):
    """The same packets in a new file, the first ``cut`` frames hidden by an edit list."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.pts -= cut * packet.duration
                packet.dts -= cut * packet.duration
                packet.stream = stream
                new.mux(packet)
    return target


# --- MPEG-4 Part 2 by hand ----------------------------------------------------------------------


def bits(text):
    """Bits, written as 0 and 1, as bytes; filled up as MPEG-4 does it: a 0, then 1s."""
    text = text.replace(" ", "") + "0"
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def vop(kind, tick, rest):
    """A picture's bytes: type 0 to 3 (I, P, B, S), time within its second at 25 ticks, the rest."""
    return b"\x00\x00\x01\xb6" + bits(f"{kind:02b} 0 1 {tick:05b} 1 {rest}")


NOT_CODED = vop(1, 3, "0")  # a P-VOP that says: there is no picture, show the last one again


def pieces(path):
    """A bare stream's headers, and the bytes of each picture with its headers."""
    data, at, pictures = path.read_bytes(), 0, []
    for packet in codec.packets(path):
        pictures.append(data[at : at + packet.size_bytes])
        at += packet.size_bytes
    return data[: data.index(b"\x00\x00\x01\xb3")], pictures


def contained(stream, target, **options):
    """The packets of a bare stream in another container, by FFmpeg's own means."""
    with (
        av.open(str(stream), format="m4v") as old,
        av.open(str(target), "w", options=options) as new,
    ):
        track = new.add_stream_from_template(old.streams.video[0])
        track.time_base = Fraction(1, 25)
        for n, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.pts = packet.dts = n
            packet.time_base = track.time_base
            packet.stream = track
            new.mux(packet)
    return target
