"""Rows of ``dmc bench storage``: ways to keep a clip's flow in one file, and one frame read back.

``flowstore`` is held against lossless video, pictures in one container and a chunked array store.
All keep the same eight bits (:func:`flow.quantize`), dx above dy in one grey picture. A write
starts from float32 pixels; a read starts with a closed file and ends with them. What lost lives
here alone.
"""

import importlib.util
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from dmclib import codec, flow, paths
from dmclib.data.puppets import ACTIONS, Puppet, Recipe
from dmclib.flow import store
from dmclib.speed.timing import measure, pinned

LIMIT_MS, LIMIT_KB = 2.0, 20.0  # a random read on one core, a stored frame: the project's own
FIELDS = 176  # in the clip that is timed: about as long as those of UCF-101


class Candidate(NamedTuple):
    """A way to keep the flow of a clip in one file."""

    write: Callable[[Path, np.ndarray], object]  # path, float32 (n, 2, H, W)
    open: Callable[[Path], object]  # and close again: what a read pays before it comes to a field
    read: Callable[[Path, int, tuple], np.ndarray]  # path, which from 0, (2, H, W) -> float32
    suffix: str = ".bin"
    needs: str | None = None  # what is missing here, if anything


def rows(*, clips: int = 8, repeats: int = 60, seed: int = 0) -> list[dict]:
    """Measure random reads, sizes and errors of all candidates, in turn, on one thread.

    The files have just been written, so they are in memory (a warm page cache): these are the times
    of opening, seeking and decoding, not of a disk. They are processor time of the one thread that
    reads, so that other work on the machine does not count.

    Args:
        clips: how many of the real UCF-101 clips to take, drawn by ``seed``: DIS of some frames in
            a row, and TV-L1 of the last six pairs, at about a second each. A clip's chance grows
            with its length, so that a mean is that of all frames. Where the clips or OpenCV are
            absent: the exact flow of drawn puppets.
        repeats: timed reads of each candidate, of fields drawn by ``seed``.
        seed: of both draws.

    Returns:
        One row a candidate: ``candidate``, ``clip`` (whose flow), ``read_ms`` (median) with its
        quartiles, ``open_ms`` of that for opening alone, ``write_ms`` a field (one run),
        ``kb_<method>`` a field (1000 bytes, container included), ``error_px`` (largest difference
        from what the eight bits stand for), ``limit_ms``, ``limit_kb``. A candidate whose library
        is not installed has ``needs``.
    """
    what, fields = _fields(clips, seed)
    found: list[dict] = []
    with tempfile.TemporaryDirectory() as folder, pinned(1):
        reads: dict[str, Callable] = {}
        for n, (name, candidate) in enumerate(candidates().items()):
            row = {"task": "one field of a clip", "candidate": name, "clip": what}
            if candidate.needs:
                found.append(row | {"needs": candidate.needs})
                continue
            row |= {"read_ms": 0.0, "open_ms": 0.0, "write_ms": 0.0}  # columns in reading order
            for method, some in reversed(fields.items()):
                path = Path(folder) / f"{n}_{method}{candidate.suffix}"
                row |= _written(candidate, path, method, some)
            # What is timed is the method with most fields: the first, written last.
            read = partial(candidate.read, path, shape=some.shape[1:])
            reads[name] = partial(_random_read, read, len(some), random.Random(seed))
            reads[f"{name}, open"] = partial(candidate.open, path)
            found.append(row | {"limit_ms": LIMIT_MS, "limit_kb": LIMIT_KB})
        times = measure(reads, repeats=repeats, clock=time.thread_time)
    for row in found:
        if "needs" not in row:
            row |= times[row["candidate"]].ms("read") | {"repeats": repeats}
            row["open_ms"] = 1e3 * times[f"{row['candidate']}, open"].median
    return found


def candidates() -> dict[str, Candidate]:
    """The winner, then what it was held against."""
    cv2 = None if _installed("cv2") else "OpenCV: pip install opencv-contrib-python-headless"
    x264 = None if "libx264" in av.codecs_available else "an FFmpeg built with libx264"
    zarr = None if _installed("zarr") else "zarr: pip install zarr"
    rice, range_coder = ({"coder": coder, "level": "3", "slices": "4"} for coder in "01")
    every = {"qp": "0", "preset": "ultrafast", "g": "1"}
    sixth = {"qp": "0", "preset": "medium", "g": "6", "bf": "0", "sc_threshold": "0"}
    return {
        "flowstore": Candidate(store.write, store.count, _read_ours, store.SUFFIX),
        "bytes as they are": Candidate(_write_raw, _open_raw, _read_raw),
        "PNG": _pictures(".png", needs=cv2),
        "WebP, lossless": _pictures(".webp", 101, needs=cv2),
        "JPEG, quality 95": _pictures(".jpg", 95, needs=cv2),
        "JPEG, quality 100": _pictures(".jpg", 100, needs=cv2),
        **{
            f"FFV1, {coder}, {suffix}": _video("ffv1", options | {"g": "1"}, suffix)
            for coder, options in (("Rice codes", rice), ("range coder", range_coder))
            for suffix in (".mkv", ".avi", ".nut")
        },
        "H.264, lossless, each frame by itself": _video("libx264", every, ".mp4", needs=x264),
        "H.264, lossless, groups of six": _video("libx264", sixth, ".mp4", needs=x264),
        "zarr, a chunk a field, zipped": Candidate(
            _write_zarr, _open_zarr, _read_zarr, ".zip", zarr
        ),
    }


def _fields(clips: int, seed: int) -> tuple[str, dict[str, np.ndarray]]:
    """Whose flow, and the fields: method -> float32 ``(n, 2, H, W)``; most fields first."""
    root = (paths.data_root() or paths.ROOT / "absent") / "ucf101-4class" / "videos"
    sources = sorted(root.glob("*/*.avi"))
    if not sources or not _installed("cv2"):
        pairs = -(-FIELDS // len(ACTIONS))
        drawn = (Puppet(Recipe(name, "train", seed, size=256, frames=pairs)) for name in ACTIONS)
        exact = [puppet.motion(n) for puppet in drawn for n in range(pairs)]
        return "drawn puppets, 256x256", {"exact": np.stack(exact[:FIELDS])}
    draw, dis, tvl1 = random.Random(seed), [], []
    lengths = [codec.probe(source).frames for source in sources]
    with tempfile.TemporaryDirectory() as folder:
        for source in draw.choices(sources, weights=lengths, k=clips):
            clip = Path(folder) / "clip.mp4"
            codec.transcode(source, clip)
            last = codec.probe(clip).frames - 1
            in_row = min(-(-FIELDS // clips), last)
            first = draw.randint(0, last - in_row)
            pictures = [f.rgb for f in codec.read_at(clip, range(first, first + in_row + 1))]
            dis += flow.estimate_clip(pictures, method="dis")
            tvl1 += flow.estimate_clip(pictures[-7:], method="tvl1")
    what = f"UCF-101, 340x256, {clips} clips, {len(dis)} pairs by DIS, {len(tvl1)} by TV-L1"
    return what, {"dis": np.stack(dis[:FIELDS]), "tvl1": np.stack(tvl1)}


def _written(candidate: Candidate, path: Path, method: str, fields: np.ndarray) -> dict:
    """Columns of a candidate's row that follow from writing one clip."""
    started = time.perf_counter()
    candidate.write(path, fields)
    write_ms = 1e3 * (time.perf_counter() - started) / len(fields)
    errors = [0.0]
    for n in range(0, len(fields), 5):
        kept = flow.dequantize(flow.quantize(fields[n]))
        errors.append(float(np.abs(candidate.read(path, n, kept.shape) - kept).max()))
    kb = path.stat().st_size / len(fields) / 1e3
    return {"write_ms": write_ms, f"kb_{method}": kb, "error_px": max(errors)}


def _random_read(read: Callable, count: int, draw: random.Random) -> None:
    read(draw.randrange(count))


def _installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _grey(fields: np.ndarray) -> Iterator[np.ndarray]:
    """The eight bits of each field as one picture: uint8 ``(2H, W)``, dx above dy."""
    for field in fields:
        yield flow.quantize(field).reshape(-1, field.shape[2])


def _read_ours(path: Path, n: int, shape: tuple) -> np.ndarray:
    return store.read(path, [n + 1])[0]


def _write_raw(path: Path, fields: np.ndarray) -> None:
    path.write_bytes(b"".join(picture.tobytes() for picture in _grey(fields)))


def _open_raw(path: Path) -> None:
    path.open("rb").close()


def _read_raw(path: Path, n: int, shape: tuple) -> np.ndarray:
    size = int(np.prod(shape))
    return flow.dequantize(np.fromfile(path, np.uint8, size, offset=n * size).reshape(shape))


def _pictures(kind: str, quality: int | None = None, *, needs: str | None) -> Candidate:
    """Picture files one after the other behind an index of where each ends."""

    def write(path: Path, fields: np.ndarray) -> None:
        import cv2  # an optional extra

        names = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
        options = [names[kind], quality] if quality else []
        pictures = [cv2.imencode(kind, grey, options)[1].tobytes() for grey in _grey(fields)]
        ends = np.cumsum([8 * (len(pictures) + 1), *map(len, pictures)])
        path.write_bytes(ends.tobytes() + b"".join(pictures))

    def read(path: Path, n: int, shape: tuple) -> np.ndarray:
        import cv2

        with open(path, "rb") as file:
            file.seek(8 * n)
            start, end = np.frombuffer(file.read(16), np.int64).tolist()
            file.seek(start)
            coded = np.frombuffer(file.read(end - start), np.uint8)
        return flow.dequantize(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE).reshape(shape))

    return Candidate(write, _open_raw, read, needs=needs)


def _video(name: str, options: dict[str, str], suffix: str, needs: str | None = None) -> Candidate:
    """A grey video; a frame is found through the container's index."""

    def write(path: Path, fields: np.ndarray) -> None:
        with av.open(str(path), "w") as out:
            stream = out.add_stream(name, rate=25)
            stream.height, stream.width = 2 * fields.shape[2], fields.shape[3]
            stream.pix_fmt = "gray"
            stream.codec_context.thread_count = 1
            stream.codec_context.options = options
            for n, picture in enumerate(_grey(fields)):
                frame = av.VideoFrame.from_ndarray(picture, format="gray")
                frame.pts, frame.time_base = n, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))

    def read(path: Path, n: int, shape: tuple) -> np.ndarray:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            pts = round(n / 25 / stream.time_base)
            container.seek(pts, stream=stream)
            picture = next(f for f in container.decode(stream) if f.pts >= pts)
            grey = picture.planes[0]  # H.264 may add colour planes, all alike
            lines = np.frombuffer(grey, np.uint8).reshape(grey.height, grey.line_size)
            return flow.dequantize(lines[:, : grey.width].reshape(shape))

    return Candidate(write, _open_video, read, suffix, needs)


def _open_video(path: Path) -> None:
    av.open(str(path)).close()


def _write_zarr(path: Path, fields: np.ndarray) -> None:
    import zarr  # for this comparison alone

    one = (1, *fields.shape[1:])
    with zarr.storage.ZipStore(path, mode="w") as store:
        array = zarr.create_array(store, shape=fields.shape, chunks=one, dtype=np.uint8)
        for n, picture in enumerate(_grey(fields)):
            array[n] = picture.reshape(one[1:])


def _open_zarr(path: Path) -> None:
    import zarr

    with zarr.storage.ZipStore(path, mode="r") as store:
        zarr.open_array(store, mode="r")


def _read_zarr(path: Path, n: int, shape: tuple) -> np.ndarray:
    import zarr

    with zarr.storage.ZipStore(path, mode="r") as store:
        return flow.dequantize(zarr.open_array(store, mode="r")[n])
