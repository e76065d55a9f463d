"""One video of a prepared folder: made in a worker, recorded, and judged done or not.

A video is done when its record is written: digests of clip and flow, what they were made from, and
how. So it is made again when its source or a setting has changed, and never else. The flow hangs on
the clip's content: a new encoder that gives the same bytes costs no flow.
"""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from dmclib import cluster, codec, files
from dmclib import flow as optical_flow
from dmclib.errors import DMCError, OutputError, VideoError
from dmclib.flow import store

FORMAT = 1  # raised when a change of ours makes other clips or flow from the same settings
SIZE, GOP, QUANTIZER = (340, 256), 12, 1  # paper, 3.1 and 4.2; CoViAR
LOCK = "prepare.lock"  # marks a folder as a prepared one, and is locked by who prepares it

_ON_TORCH = ("tvl1-torch", "raft", "raft-small")
_NOTHING = {"source": {}, "clip": {}, "flow": None}  # of a video without a record
_GOES_ON = "What is done stays; run it again to go on."


@dataclass(frozen=True)
class Task:
    """One video to prepare; plain values, because it may travel to another machine."""

    name: str  # "<class>/<file name>" of the publishers
    source: str  # absolute path
    out: str  # the prepared folder, absolute
    codec: dict  # what the clip follows from, besides its source
    flow: dict | None  # what the flow follows from, besides its clip; None: no flow is asked for


def places(out: Path, name: str) -> tuple[Path, Path, Path]:
    """Where a video's clip, flow and record lie."""
    return (
        out / "clips" / f"{name}.mp4",
        out / "flow" / f"{name}{store.SUFFIX}",
        out / "records" / f"{name}.json",
    )


def codec_settings(letterbox: bool) -> dict:
    """What a clip follows from, besides its source."""
    settings = {"codec": "mpeg4", "width": SIZE[0], "height": SIZE[1], "gop": GOP}
    settings |= {"quantizer": QUANTIZER, "b_frames": 0, "format": FORMAT}
    # Letterbox is named only where it is asked for, so that older records stay valid.
    return settings | ({"letterbox": True} if letterbox else {}) | {"tools": _codec_tools()}


def flow_settings(method: str) -> dict | None:
    """What flow follows from, besides its clip; a method that does not work here is an error."""
    if method == "none":
        return None
    blank = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    optical_flow.estimate(blank, blank, method=method)  # says in a sentence what is missing
    settings = {"method": method, "limit_px": 20, "error_px": store.ERROR_PX}
    settings |= {"stored_as": store.SUFFIX, "format": FORMAT}
    return settings | {"tools": _flow_tools(method)}


def _codec_tools() -> dict:
    names = ("libavcodec", "libswscale")
    dotted = {name: ".".join(map(str, av.library_versions[name])) for name in names}
    return {"av": av.__version__, **dotted}


def _flow_tools(method: str) -> dict:
    if method in _ON_TORCH:
        import torch
        import torchvision

        return {"torch": torch.__version__, "torchvision": torchvision.__version__}
    import cv2

    return {"opencv": cv2.__version__}


def is_done(task: Task) -> bool:
    """Whether a video's record is of this source and these settings, going by sizes and times.

    They stand for the content, as they do for ``make`` and ``rsync``. Where only a time differs, as
    after copying, the task compares digests before it makes anything.
    """
    clip, field_file, record = places(Path(task.out), task.name)
    old = read_record(record)
    try:
        now = os.stat(task.source)
    except OSError:
        return False  # the task says so
    same = {"bytes": now.st_size, "mtime_ns": now.st_mtime_ns}.items() <= old["source"].items()
    if not (same and _is_made(clip, old["clip"], task.codec)):
        return False
    if task.flow is None:
        return old["flow"] is None
    return _is_made(field_file, old["flow"], task.flow)


def make(task: Task) -> bool | str:
    """In a worker: make what is missing or outdated of one video, then its record.

    Returns:
        Whether anything had to be made; a sentence where the video itself cannot be prepared.

    Raises:
        DMCError: no video can be prepared: a full disk, a worker of other versions or without the
            folder.
    """
    try:
        return _make(task)
    except Exception as error:  # whatever a hostile file can do: it is the file's own failure
        numbers, cause = set(), error
        while cause is not None:
            numbers.add(getattr(cause, "errno", None))
            cause = cause.__cause__ or cause.__context__
        name, out = task.name, Path(task.out)
        sentence = str(error).replace(task.source, name).replace(f"{out}/", "")
        if errno.ENAMETOOLONG in numbers:
            return f"{name}: its name is too long to be written. Shorten it."
        full = numbers & {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        if isinstance(error, VideoError) and not full:
            return sentence
        if isinstance(error, OSError) or full:
            raise OutputError(f"{cannot_write(error, out)} {_GOES_ON}") from None
        if isinstance(error, DMCError):
            raise DMCError(f"{error} {_GOES_ON}") from None
        return f"{name}: cannot be prepared ({type(error).__name__}: {sentence})."


def _make(task: Task) -> bool:
    source, out = Path(task.source), Path(task.out)
    if not (out / LOCK).is_file():
        raise DMCError(f"A worker does not see {out}; give a folder that all of them share.")
    clip, field_file, record = places(out, task.name)
    for path in (clip, field_file, record):
        check_inside(out, path.parent)
    _check_tools(task.codec["tools"], _codec_tools())
    if task.flow is not None:
        _check_tools(task.flow["tools"], _flow_tools(task.flow["method"]))
    old = read_record(record)
    seen = _source(source, task.name, old)
    if seen["sha256"] != old["source"].get("sha256"):
        old = _NOTHING
    new, made = {"source": seen, "clip": old["clip"], "flow": None}, False
    if not _is_made(clip, old["clip"], task.codec):
        made = True
        record.unlink(missing_ok=True)
        options = {k: v for k, v in task.codec.items() if k in ("gop", "quantizer", "letterbox")}
        size = task.codec["width"], task.codec["height"]
        codec.transcode(source, clip, size=size, **options)
        cluster.sign_of_life()
        info = codec.probe(clip)
        if info.frames < 2:
            clip.unlink()
            raise VideoError(
                f"{source}: has one frame, and so no motion. Give a longer one or remove it."
            )
        new["clip"] = {"width": info.width, "height": info.height, "frames": info.frames}
        new["clip"] |= _describe(clip, task.codec)
    same_clip = new["clip"]["sha256"] == old["clip"].get("sha256")
    if task.flow is None:
        field_file.unlink(missing_ok=True)  # of an earlier run; the folder holds what is asked for
    elif same_clip and _is_made(field_file, old["flow"], task.flow):
        new["flow"] = old["flow"]
    else:
        made = True
        record.unlink(missing_ok=True)
        field_file.with_suffix(".flow").unlink(missing_ok=True)  # of manifest.FORMAT 1
        written = store.write(field_file, _fields(clip, task.flow["method"]))
        if written != new["clip"]["frames"] - 1:
            raise VideoError(
                f"{source}: its clip has {new['clip']['frames']} frames and flow into {written}. "
                "Prepare it again."
            )
        new["flow"] = _describe(field_file, task.flow)
    files.write_text(record, json.dumps(new, indent=1) + "\n")
    return made


def _check_tools(wanted: dict, here: dict) -> None:
    if here != wanted:
        raise DMCError(
            f"A worker has {here}, and this machine {wanted}. Install the same versions."
        )


def _fields(clip: Path, method: str) -> Iterator[np.ndarray]:
    """Flow into frames 1, 2, ... of a clip: float32 (2, H, W), pixels."""
    device = "cpu"
    if method in _ON_TORCH:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    for field in optical_flow.estimate_clip(codec.decode_rgb(clip), method=method, device=device):
        cluster.sign_of_life()
        yield field


def check_inside(out: Path, folder: Path) -> None:
    """Raise a ``DMCError`` if a link leads a folder of the output to somewhere else."""
    if folder.resolve() != folder:
        raise DMCError(
            f"{folder} leads to {folder.resolve()}, and nothing is written outside {out}. Remove "
            "the link."
        )


def cannot_write(problem: BaseException, out: Path) -> str:
    """The sentence of a full disk and the like."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    found = getattr(problem, "strerror", None) or str(problem)
    return f"{out}: cannot be written ({found}). Make room, or see to whom it belongs."


def _describe(path: Path, made: dict) -> dict:
    return {"bytes": path.stat().st_size, "sha256": files.sha256(path), "made": made}


def _is_made(path: Path, described: dict | None, made: dict) -> bool:
    """Whether a file is there as described, by its size, and was made in this way."""
    if not described or described.get("made") != made or path.is_symlink():
        return False
    try:
        return path.stat().st_size == described["bytes"]
    except OSError:
        return False


def _source(source: Path, name: str, old: dict) -> dict:
    """Size, time of change and digest of a published file."""
    try:
        status = source.stat()
        seen = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        if seen.items() <= old["source"].items():
            return old["source"]
        return seen | {"sha256": files.sha256(source)}
    except OSError as problem:
        raise VideoError(f"{name}: cannot be read ({problem.strerror}).") from None


def read_record(path: Path) -> dict:
    """The record of a video; one that is absent or not whole is as good as none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _ = record["source"]["sha256"], record["clip"]["sha256"], record["clip"]["bytes"]
        _ = record["flow"] is None or (record["flow"]["sha256"], record["flow"]["bytes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _NOTHING
    return record
