"""Rows of ``dmc bench codec``: reading a clip beside bare FFmpeg, in turn, on one core."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from dmclib.codec import packets, read_at, read_frames
from dmclib.errors import VideoError
from dmclib.speed.clips import decode_bare, default_clip, exhaust
from dmclib.speed.timing import Call, measure

# How many times as long as bare decoding we may take: the project's own limits.
LIMITS = {"every frame": 3.0, "three P-frames": 2.0}
# Names an interpreter that has the package, where this one has not.
OTHER_PYTHON = "DMC_MVEXTRACTOR_PYTHON"


def rows(clip: str | Path | None = None, *, repeats: int = 15) -> list[dict]:
    """Time reading a clip against bare decoding of the same frames.

    Bare means :func:`decode_bare`. Ours makes RGB, motion and residual of the frames. A third row
    is the package motion-vector-extractor, which brings its own FFmpeg and makes RGB and a list of
    vectors; it runs in a process of its own, told when to start.

    Args:
        clip: MPEG-4 Part 2 of three GOPs or more; see :func:`default_clip`.
        repeats: timed runs of each side.

    Returns:
        One row per task: ``task``, ``clip``, ``frames`` that the other side decodes, ``bare_ms``
        (or ``theirs_ms``) and ``ours_ms`` per run with quartiles, ``ratio`` of ours to theirs,
        ``limit``.

    Raises:
        VideoError: ``clip`` cannot be read, or has fewer than three GOPs with P-frames.
    """
    with default_clip(clip) as path:
        return [*_beside_bare(path, repeats), _beside_extractor(path, repeats)]


def _beside_bare(clip: Path, repeats: int) -> list[dict]:
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
        "every frame": (range(len(is_key)), lambda: exhaust(read_frames(clip))),
        "three P-frames": (needed, lambda: read_at(clip, asked)),
    }
    table = []
    for task, (numbers, ours) in tasks.items():
        bare = partial(decode_bare, clip, numbers)
        row = {"task": task, "clip": clip.name, "frames": len(numbers)}
        table.append(row | _race("bare", bare, ours, LIMITS[task], repeats))
    return table


def _race(name: str, theirs: Call, ours: Call, limit: float, repeats: int) -> dict:
    """The columns of a row that say how long both sides take."""
    times = measure({name: theirs, "ours": ours}, repeats=repeats)
    row = times[name].ms(name) | times["ours"].ms("ours")
    ratio = row["ours_ms"] / row[f"{name}_ms"]
    return row | {"ratio": ratio, "limit": limit, "repeats": repeats}


def _beside_extractor(clip: Path, repeats: int) -> dict:
    row = {"task": "every frame, beside motion-vector-extractor"}
    python = os.environ.get(OTHER_PYTHON)
    if python is None and importlib.util.find_spec("mvextractor"):
        python = sys.executable
    if python is None:
        needed = f"pip install motion-vector-extractor, here or where {OTHER_PYTHON} points"
        return row | {"needs": needed}
    try:
        with _extractor(python, clip) as theirs:
            row |= {"clip": clip.name, "frames": theirs()}
            return row | _race("theirs", theirs, lambda: exhaust(read_frames(clip)), 1.0, repeats)
    except (OSError, ValueError) as error:
        return row | {"needs": f"an interpreter with motion-vector-extractor ({error})"}


# Told to start by a line, answers with how many frames it has read.
_EXTRACTOR = """
import sys
from mvextractor.videocap import VideoCap
for line in sys.stdin:
    clip = VideoCap()
    clip.open(sys.argv[1])
    frames = 0
    while clip.read()[0]:
        frames += 1
    clip.release()
    print(frames, flush=True)
"""


@contextmanager
def _extractor(python: str, clip: Path) -> Iterator[Callable[[], int]]:
    """A process that reads the whole clip each time the function is called."""
    command = [python, "-c", _EXTRACTOR, str(clip)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, bufsize=1, **pipes) as child:

        def read_all() -> int:
            child.stdin.write("\n")
            return int(child.stdout.readline())  # a ValueError where the process has ended

        try:
            yield read_all
        finally:
            child.kill()
