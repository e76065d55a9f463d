"""Rows of ``dmc bench classify``: how the cost of labelling videos grows, and with what it falls.

It labels copies of one drawn clip with the networks that a profile trained, as ``dmc classify``
does: starting the processes and reading the networks are timed too.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmclib import codec, demo
from dmclib.classify import classify
from dmclib.speed.clips import drifting_texture


def rows(*, profile: str = "laptop", counts: tuple[int, ...] = (10, 100, 1000)) -> list[dict]:
    """Time one run for each number of short videos on all cores, and for 100 on one core.

    Args:
        profile: whose networks.
        counts: of videos, each of 26 frames of 128 px.

    Returns:
        A row per run: ``cores``, ``files``, ``seconds``, ``ms_per_file``. Without the networks, or
        on a system that cannot hold a process to one core, a row that says what it ``needs``.
    """
    if demo.find_weights(profile).config is None:
        return [{"task": "a folder", "needs": f"dmc reproduce {profile} --only 06"}]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        codec.encode(drifting_texture(26, height=128, width=128), clip)
        for cores, files in [(os.cpu_count(), count) for count in counts] + [(1, 100)]:
            if cores == 1 and not hasattr(os, "sched_setaffinity"):
                found.append({"task": "a folder", "cores": 1, "needs": "Linux"})
                continue
            videos = Path(folder) / f"{cores}-{files}"
            videos.mkdir()
            for number in range(files):
                os.link(clip, videos / f"{number}.mp4")
            with _held_to(cores):
                begun = time.perf_counter()
                classify([videos], profile=profile)
                seconds = time.perf_counter() - begun
            row = {"task": "a folder", "cores": cores, "files": files, "seconds": seconds}
            found.append(row | {"ms_per_file": 1e3 * seconds / files})
    return found


@contextmanager
def _held_to(cores: int) -> Iterator[None]:
    """Let this process and those that it starts have one core, if that is what is asked."""
    if cores > 1:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
