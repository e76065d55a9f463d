"""The clip that is timed, and decoding it with nothing else."""

import tempfile
from collections import deque
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

from dmclib import paths
from dmclib.codec import container, encode


@contextmanager
def default_clip(clip: str | Path | None = None) -> Iterator[Path]:
    """The clip given; else ``clips/bikes.m4v`` of the real ones; else one drawn and encoded."""
    with tempfile.TemporaryDirectory() as folder:
        if clip is None:
            clip = (paths.data_root() or Path(folder)) / "clips" / "bikes.m4v"
            if not clip.is_file():
                clip = Path(folder) / "drawn.m4v"
                encode(drifting_texture(), clip)
        yield Path(clip)


def decode_bare(clip: Path, needed: Container[int]) -> None:
    """Decode the packets with these numbers on one thread, and do nothing else."""
    last = max(needed)
    with av.open(container.url(clip)) as film:
        stream = film.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for n, packet in enumerate(film.demux(stream)):
            if n in needed:
                packet.decode()
            if n == last:
                break


def exhaust(iterator: Iterable) -> None:
    """Take everything and keep nothing."""
    deque(iterator, maxlen=0)


def drifting_texture(
    frames: int = 120, *, height: int = 256, width: int = 340
) -> Iterator[np.ndarray]:
    """A smooth random texture that drifts, with a patch that drifts the other way: uint8 RGB."""
    rng = np.random.default_rng(0)
    rows, columns = height // 8 + 1, width // 8 + 2
    coarse = rng.integers(0, 256, (rows, columns, 3)).astype(np.float32)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    for axis in (0, 1):  # blurred, as by a camera
        texture = sum(np.roll(texture, shift, axis) for shift in range(8)) / 8
    texture = texture.astype(np.uint8)
    patch = np.s_[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
    for n in range(frames):
        picture = np.roll(texture, (n, 2 * n), (0, 1))[:height, :width].copy()
        picture[patch] = np.roll(texture, -3 * n, 1)[patch]
        yield picture
