"""Speed rows behind ``dmc bench``: ours beside bare FFmpeg, in turn, in one run, on one core."""

import tempfile
from collections.abc import Container, Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from dmclib import paths
from dmclib.codec import encode, packets, read_at, read_frames
from dmclib.errors import VideoError
from dmclib.timing import measure

# How many times as long as bare decoding we may take: the project's own limits.
LIMITS = {"every frame": 3.0, "three P-frames": 2.0}


def codec(clip: str | Path | None = None, *, repeats: int = 15) -> list[dict]:
    """Time reading a clip against bare decoding of the same frames, print the rows, return them.

    Bare means: open the file, find the packets, decode them with vectors exported, on one thread as
    we do, and look at neither pixels nor vectors. Ours makes RGB, motion and residual of them.

    Args:
        clip: MPEG-4 Part 2 of three GOPs or more; by default ``clips/bikes.m4v`` of the real clips
            or, where they are absent, a clip drawn and encoded here.
        repeats: timed runs of each side.

    Returns:
        One row a task: ``task``, ``clip``, ``frames`` that the bare side decodes, ``bare_ms`` and
        ``ours_ms`` (median of a run, milliseconds), ``ratio`` of the two, ``limit``.

    Raises:
        VideoError: ``clip`` cannot be read, or has fewer than three GOPs with P-frames.
    """
    with tempfile.TemporaryDirectory() as folder:
        if clip is None:
            root = paths.data_root()
            clip = root / "clips" / "bikes.m4v" if root else Path(folder) / "absent"
            if not clip.is_file():
                clip = Path(folder) / "drawn.m4v"
                encode(_drifting_texture(), clip)
        return _codec_rows(Path(clip), repeats)


def _codec_rows(clip: Path, repeats: int) -> list[dict]:
    is_key = [packet.is_key for packet in packets(clip)]
    keys = [*np.flatnonzero(is_key).tolist(), len(is_key)]
    gops = [range(a, b) for a, b in pairwise(keys) if b - a > 1]
    if len(gops) < 3:
        raise VideoError(f"{clip}: has {len(gops)} GOPs with P-frames; give a clip of at least 3.")
    # An early, a middle and a late P-frame, in GOPs spread over the clip.
    gops = [gops[len(gops) // 4], gops[len(gops) // 2], gops[-1]]
    asked = [gop[max(1, (len(gop) - 1) * k // 4)] for k, gop in enumerate(gops, 1)]
    needed = {n for gop, last in zip(gops, asked, strict=True) for n in range(gop[0], last + 1)}
    tasks = {
        "every frame": (
            len(is_key),
            lambda: _decode_bare(clip, range(len(is_key))),
            lambda: _exhaust(read_frames(clip)),
        ),
        "three P-frames": (
            len(needed),
            lambda: _decode_bare(clip, needed),
            lambda: read_at(clip, asked),
        ),
    }
    rows = []
    print(f"{clip.name}, one core, median of {repeats} runs in turn")
    for task, (frames, bare, ours) in tasks.items():
        times = measure({"bare": bare, "ours": ours}, repeats=repeats)
        bare_ms, ours_ms = (1e3 * times[side].median for side in ("bare", "ours"))
        row = {"task": task, "clip": clip.name, "frames": frames}
        row |= {"bare_ms": bare_ms, "ours_ms": ours_ms, "ratio": ours_ms / bare_ms}
        rows.append(row | {"limit": LIMITS[task]})
        print(
            f"{task:15} {frames:4} frames decoded  bare {bare_ms:7.2f} ms  ours {ours_ms:7.2f} ms  "
            f"{ours_ms / bare_ms:.2f} times (limit {LIMITS[task]:g})"
        )
    return rows


def _decode_bare(clip: Path, needed: Container[int]) -> None:
    """Decode the packets of these numbers and nothing else."""
    last = max(needed)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for n, packet in enumerate(container.demux(stream)):
            if n in needed:
                packet.decode()
            if n == last:
                break


def _exhaust(iterator: Iterator) -> None:
    for _ in iterator:
        pass


def _drifting_texture(frames: int = 120) -> Iterator[np.ndarray]:
    """A smooth random texture that drifts, with a patch that drifts against it; 340x256."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (33, 44, 3)).astype(np.float32)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    for axis in (0, 1):  # blurred, as a camera would
        texture = sum(np.roll(texture, shift, axis) for shift in range(8)) / 8
    texture = texture.astype(np.uint8)
    for n in range(frames):
        picture = np.roll(texture, (n, 2 * n), (0, 1))[:256, :340].copy()
        picture[80:176, 120:220] = np.roll(texture, -3 * n, 1)[80:176, 120:220]
        yield picture
