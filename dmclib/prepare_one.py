"""One video of a prepared folder: made in a child process, recorded, and judged done or not.

A video counts as done by its record, one small file that is written when clip and flow are whole:
it holds their digests, what they were made from, and how. So a video is made again when its source
or a setting has changed, and never else. The flow hangs on the clip's content, so that a new
encoder that gives the same bytes costs no flow.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np

from dmclib import children, codec, files
from dmclib import flow as optical_flow
from dmclib.data import manifest
from dmclib.errors import DMCError, VideoError
from dmclib.flow import store

FORMAT = 1  # raised when a change of ours makes other clips or flow from the same settings
SIZE, GOP, QUANTIZER = (340, 256), 12, 1  # paper, 3.1 and 4.2; CoViAR
LOCK = "prepare.lock"  # marks a folder as a prepared one, and is locked by who prepares it

_ON_TORCH = ("tvl1-torch", "raft", "raft-small")
_NOTHING = {"source": {}, "clip": {}, "flow": None}  # of a video without a record


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
    if letterbox:  # named only where it is so: records from before it could be asked for stay valid
        settings["letterbox"] = True
    return settings | {"tools": _codec_tools(settings)}


def flow_settings(method: str) -> dict | None:
    """What flow follows from, besides its clip; a method that does not work here is an error."""
    if method == "none":
        return None
    blank = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    optical_flow.estimate(blank, blank, method=method)  # says in a sentence what is missing
    settings = {"method": method, "limit_px": 20, "error_px": store.ERROR_PX}
    settings |= {"stored_as": store.SUFFIX, "format": FORMAT}
    return settings | {"tools": _flow_tools(settings)}


def _codec_tools(_: dict) -> dict:
    versions = {name: av.library_versions[name] for name in ("libavcodec", "libswscale")}
    dotted = {name: ".".join(map(str, version)) for name, version in versions.items()}
    return {"av": av.__version__, **dotted}


def _flow_tools(settings: dict) -> dict:
    if settings["method"] in _ON_TORCH:  # a second to import, and OpenCV's methods do without
        import torch
        import torchvision

        return {"torch": torch.__version__, "torchvision": torchvision.__version__}
    import cv2

    return {"opencv": cv2.__version__}


def is_done(task: dict) -> bool:
    """Whether a video's record is of this source and these settings, going by sizes and times.

    They stand for the content, as they do for ``make`` and ``rsync``: to read a whole corpus again
    would take longer than many a run has left to do. Where only a time differs, as after copying,
    the task compares digests before it makes anything.
    """
    clip, field_file, record = places(Path(task["out"]), task["name"])
    old = _read_record(record)
    try:
        now = os.stat(task["source"])
    except OSError:
        return False  # the task says so
    same = {"bytes": now.st_size, "mtime_ns": now.st_mtime_ns}.items() <= old["source"].items()
    if not (same and _is_made(clip, old["clip"], task["codec"])):
        return False
    if task["flow"] is None:
        return old["flow"] is None
    return _is_made(field_file, old["flow"], task["flow"])


def entry(out: Path, name: str, label: int) -> manifest.Entry:
    """What the manifest says of a video that is done."""
    clip, field_file, record = places(out, name)
    made = _read_record(record)
    described, flow = made["clip"], made["flow"] or {}
    return manifest.Entry(
        name=name,
        label=label,
        clip=clip.relative_to(out).as_posix(),
        flow=field_file.relative_to(out).as_posix() if flow else None,
        width=described["width"],
        height=described["height"],
        frames=described["frames"],
        source_bytes=made["source"]["bytes"],
        source_sha256=made["source"]["sha256"],
        clip_bytes=described["bytes"],
        clip_sha256=described["sha256"],
        flow_bytes=flow.get("bytes"),
        flow_sha256=flow.get("sha256"),
    )


def child() -> None:
    """What a child process runs."""
    children.serve(answer)


def answer(task: dict, beat: Callable[[], None]) -> dict:
    """In a child: make one video; say whether, or why not, or why nothing can be made at all."""
    try:
        return {"made": _make(task, beat)}
    except Exception as error:  # whatever a hostile file can do: it is the file's own failure
        numbers = set()
        cause: BaseException | None = error
        while cause is not None:
            numbers.add(getattr(cause, "errno", None))
            cause = cause.__cause__ or cause.__context__
        name, out = task["name"], Path(task["out"])
        sentence = str(error).replace(task["source"], name).replace(f"{out}/", "")
        if errno.ENAMETOOLONG in numbers:
            return {"failed": f"{name}: its name is too long to be written. Shorten it."}
        if numbers & {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return {"stop": cannot_write(error, out)}
        if isinstance(error, VideoError):
            return {"failed": sentence}
        if isinstance(error, OSError):
            return {"stop": cannot_write(error, out)}
        if isinstance(error, DMCError):
            return {"stop": str(error)}
        return {"failed": f"{name}: cannot be prepared ({type(error).__name__}: {sentence})."}


def _make(task: dict, beat: Callable[[], None]) -> bool:
    """Make what is missing or outdated of one video, then its record; False if nothing was."""
    name, source, out = task["name"], Path(task["source"]), Path(task["out"])
    if not (out / LOCK).is_file():
        raise DMCError(f"A worker does not see {out}; give a folder that all of them share.")
    clip, field_file, record = places(out, name)
    for path in (clip, field_file, record):
        check_inside(out, path.parent)
    for wanted, here in ((task["codec"], _codec_tools), (task["flow"], _flow_tools)):
        if wanted and wanted["tools"] != here(wanted):
            raise DMCError(
                f"A worker has {here(wanted)}, and this machine {wanted['tools']}. Install the "
                "same versions."
            )
    old = _read_record(record)
    seen = _source(source, name, old)
    if seen["sha256"] != old["source"].get("sha256"):
        old = _NOTHING
    new, made = {"source": seen, "clip": old["clip"], "flow": None}, False
    if not _is_made(clip, old["clip"], task["codec"]):
        made = True
        record.unlink(missing_ok=True)
        how = task["codec"]
        codec.transcode(
            source,
            clip,
            size=(how["width"], how["height"]),
            gop=how["gop"],
            quantizer=how["quantizer"],
            letterbox=how.get("letterbox", False),
        )
        beat()
        info = codec.probe(clip)
        if info.frames < 2:
            clip.unlink()
            raise VideoError(
                f"{source}: has one frame, and so no motion. Give a longer one or remove it."
            )
        new["clip"] = {"width": info.width, "height": info.height, "frames": info.frames}
        new["clip"] |= _describe(clip, task["codec"])
    same_clip = new["clip"]["sha256"] == old["clip"].get("sha256")
    if task["flow"] is None:
        field_file.unlink(missing_ok=True)  # of an earlier run; the folder holds what is asked for
    elif same_clip and _is_made(field_file, old["flow"], task["flow"]):
        new["flow"] = old["flow"]
    else:
        made = True
        record.unlink(missing_ok=True)
        field_file.with_suffix(".flow").unlink(missing_ok=True)  # of manifest.FORMAT 1
        written = store.write(field_file, _fields(clip, task["flow"]["method"], beat))
        if written != new["clip"]["frames"] - 1:
            raise VideoError(
                f"{source}: its clip has {new['clip']['frames']} frames and flow into {written}. "
                "Prepare it again."
            )
        new["flow"] = _describe(field_file, task["flow"])
    write_json(record, new)
    return made


def _fields(clip: Path, method: str, beat: Callable[[], None]) -> Iterator:
    """Flow into frames 1, 2, ... of a clip: float32 (2, H, W), pixels."""
    device = "cpu"
    if method in _ON_TORCH:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    frames = codec.decode_rgb(clip)
    for field in optical_flow.estimate_clip(frames, method=method, device=device):
        beat()
        yield field


def check_inside(out: Path, folder: Path) -> None:
    """Raise a ``DMCError`` if a link leads a folder of the output to somewhere else."""
    if folder.resolve() != folder:
        raise DMCError(
            f"{folder} leads to {folder.resolve()}, and nothing is written outside {out}. Remove "
            "the link."
        )


def write_json(path: Path, content: dict) -> None:
    """Write a file for people and for us, whole or not at all."""
    files.write_text(path, json.dumps(content, indent=1) + "\n")


def cannot_write(problem: BaseException, out: Path) -> str:
    """The sentence of a full disk and the like."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    found = getattr(problem, "strerror", None) or str(problem)
    return f"{out}: cannot be written ({found}). Make room, or see to whom it belongs."


def _describe(path: Path, made: dict) -> dict:
    return {"bytes": path.stat().st_size, "sha256": manifest.sha256(path), "made": made}


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
        return seen | {"sha256": manifest.sha256(source)}
    except OSError as problem:
        raise VideoError(f"{name}: cannot be read ({problem.strerror}).") from None


def _read_record(path: Path) -> dict:
    """The record of a video; one that is absent or not whole is as good as none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _ = record["source"]["sha256"], record["clip"]["sha256"], record["clip"]["bytes"]
        _ = record["flow"] is None or (record["flow"]["sha256"], record["flow"]["bytes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _NOTHING
    return record
