"""Rows of ``dmc bench codec``: reading a clip beside bare FFmpeg, in turn, on one core."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from dmclib.codec import encode, packets, read_at, read_frames
from dmclib.errors import VideoError
from dmclib.speed.clips import decode_bare, default_clip, drifting_texture, exhaust
from dmclib.speed.timing import Call, Timing, cumulative, measure

# Names an interpreter that has the package, where this one has not.
OTHER_PYTHON = "DMC_MVEXTRACTOR_PYTHON"


def rows(clip: str | Path | None = None, *, repeats: int = 15) -> list[dict]:
    """Time reading clips against bare decoding of the same frames.

    Bare means :func:`decode_bare`. Ours makes RGB, motion and residual of the frames. The package
    motion-vector-extractor brings its own FFmpeg and makes RGB and a list of vectors; it runs in a
    process of its own, told when to start. A raw stream of a film's length is read in its last
    GOPs, beside the first of its 48 equal parts.

    Args:
        clip: MPEG-4 Part 2 of three GOPs or more; by default :func:`default_clip` and a drawn .mp4.
        repeats: timed runs of each side.

    Returns:
        One row per clip and task: ``task``, ``clip``, ``frames`` that the other side decodes,
        ``bare_ms`` (or ``theirs_ms``) and ``ours_ms`` per run with quartiles, ``ratio`` of ours to
        theirs. Then where a frame's time goes: rows of ``part_ms`` with quartiles, told apart by a
        profiler, whose own time is in them.

    Raises:
        VideoError: ``clip`` cannot be read, or has fewer than three GOPs with P-frames.
    """
    with default_clip(clip) as first, tempfile.TemporaryDirectory() as folder:
        table = [*_beside_bare(first, repeats), _beside_extractor(first, repeats)]
        if clip is None:
            encode(drifting_texture(250), Path(folder) / "drawn.mp4")
            table += _beside_bare(Path(folder) / "drawn.mp4", repeats)
            table.append(_in_a_film(Path(folder), repeats))
        return [*table, *_parts(first, repeats)]


def _parts(clip: Path, repeats: int) -> Iterator[dict]:
    """Where the time of reading every frame goes, per frame."""
    frames, seconds = len(packets(clip)), defaultdict(list)
    for _ in range(repeats):
        spent = cumulative(lambda: exhaust(read_frames(clip)))
        parts = {
            "decode": spent["read._groups"],
            "RGB": spent["pictures.to_rgb"],
            "vectors of blocks": spent["read.motion_vectors"] + spent["vectors.whole_pixel_moves"],
            "their field": spent["vectors.motion_field"],
            "prediction": spent["vectors.carry"],
            "reference kept": spent["read._refer"],
        }
        parts["residual and the rest"] = spent["read.read_frames"] - sum(parts.values())
        for part, value in parts.items():
            seconds[part].append(value / frames)
    for part, values in seconds.items():
        row = {"task": f"a frame: {part}", "clip": clip.name, "repeats": repeats}
        yield row | Timing.of(values).ms("part")


def _in_a_film(folder: Path, repeats: int, *, parts: int = 48) -> dict:
    """Reading near the end of a long raw stream that was looked at before, beside a short one."""
    short, film = folder / "part.m4v", folder / "film.m4v"
    encode(drifting_texture(250), short)
    with open(film, "wb") as stream:
        for _ in range(parts):
            stream.write(short.read_bytes())
    asked = np.array([100, 150, 200])
    theirs, ours = (
        partial(read_at, path, (asked + before).tolist())
        for path, before in ((short, 0), (film, 250 * (parts - 1)))
    )
    row = {"task": "in a film", "clip": film.name, "frames": 250 * parts}
    return row | _race("theirs", theirs, ours, repeats)


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
        table.append(row | _race("bare", bare, ours, repeats))
    return table


def _race(name: str, theirs: Call, ours: Call, repeats: int) -> dict:
    """The columns of a row that say how long both sides take."""
    times = measure({name: theirs, "ours": ours}, repeats=repeats)
    row = times[name].ms(name) | times["ours"].ms("ours")
    ratio = row["ours_ms"] / row[f"{name}_ms"]
    return row | {"ratio": ratio, "repeats": repeats}


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
            return row | _race("theirs", theirs, lambda: exhaust(read_frames(clip)), repeats)
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
