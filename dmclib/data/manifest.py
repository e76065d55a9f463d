"""What a prepared folder holds, file by file, and whether it still does.

A prepared folder has ``manifest.json`` exactly when a preparation of the whole corpus has ended::

    <folder>/manifest.json                          this module's file
    <folder>/quarantine.json                        name -> why there is no clip of it
    <folder>/clips/<class>/<file name>.mp4          340x256, GOP 12, quantizer 1
    <folder>/flow/<class>/<file name>.avi           flow into frames 1, 2, ... (``flow.store``)

The manifest follows from the videos and the settings alone: it is sorted and holds no times and no
absolute paths. So it tells whether two preparations of the same videos are equal, and a folder can
be moved.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm.auto import tqdm

from dmclib import files
from dmclib.errors import DatasetError
from dmclib.files import sha256 as sha256

FILE = "manifest.json"
FORMAT = 2  # raised when folders change; 1 had flow in files of another kind


@dataclass(frozen=True)
class Entry:
    """One prepared video."""

    name: str  # "<class>/<file name>" of the publishers
    label: int  # index into the manifest's classes
    clip: str  # path from the folder, with "/"
    flow: str | None  # path from the folder; None where no flow was asked for
    width: int  # of the clip, pixels
    height: int
    frames: int  # of the clip; flow has one less
    source_bytes: int
    source_sha256: str
    clip_bytes: int
    clip_sha256: str
    flow_bytes: int | None
    flow_sha256: str | None


@dataclass(frozen=True)
class Manifest:
    """A whole prepared corpus."""

    dataset: str  # the corpus's name, "UCF101"
    classes: tuple[str, ...]
    missing: int  # videos that the publishers list and that were not there
    quarantined: tuple[str, ...]  # names of videos that could not be prepared
    codec: dict  # settings and tools that made the clips
    flow: dict | None  # method, settings and tools that made the flow
    lists: dict[int, dict[str, tuple[str, ...]]]  # split number -> {"train": names, "test": names}
    entries: dict[str, Entry]  # by name, sorted


def write(folder: str | Path, manifest: Manifest) -> Path:
    """Write ``manifest.json``, whole or not at all; return its path."""
    path = Path(folder) / FILE
    content = {"format": FORMAT, **asdict(manifest)}
    content["entries"] = [asdict(manifest.entries[name]) for name in sorted(manifest.entries)]
    content["lists"] = {
        number: {part: sorted(names) for part, names in sorted(split.items())}
        for number, split in sorted(manifest.lists.items())
    }
    files.write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def read(folder: str | Path) -> Manifest:
    """Read the manifest of a prepared folder.

    Raises:
        DatasetError: there is none (the preparation has not ended), or it is damaged, of another
            format, or names a file outside the folder.
    """
    path = Path(folder) / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(
            f"{folder} has no {FILE}: it is not a prepared folder, or its preparation has not "
            "ended. Run `dmc prepare` with --out of this folder to its end."
        ) from None
    except (OSError, ValueError, RecursionError) as problem:
        raise _damaged(path, problem) from None
    written = content.get("format") if isinstance(content, dict) else None
    if written != FORMAT:
        raise DatasetError(
            f"{path} is of format {written!r}, and this version reads {FORMAT}: run `dmc prepare "
            f"DATASET --root ... --out {folder}` again, which makes anew only what has changed."
        )
    try:
        return _checked(content)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise _damaged(path, f"{type(problem).__name__}: {problem}") from None


def verify(folder: str | Path) -> list[str]:
    """Compare every file of a prepared folder with its manifest, by content.

    Returns:
        A sentence per file that is missing, changed or not in the manifest, sorted by path; empty
        if there is none.

    Raises:
        DatasetError: as :func:`read`.
    """
    root = Path(folder)
    expected = {}
    for entry in read(root).entries.values():
        expected[entry.clip] = entry.clip_bytes, entry.clip_sha256
        if entry.flow is not None:
            expected[entry.flow] = entry.flow_bytes, entry.flow_sha256

    def check(path: str) -> str | None:
        size, digest = expected[path]
        file = root / path
        try:
            if file.is_symlink() or not file.is_file():
                return f"{path!r} is missing."
            if file.stat().st_size != size:
                return f"{path!r} has {file.stat().st_size} bytes instead of {size}."
            return None if sha256(file) == digest else f"{path!r} has changed: other content."
        except OSError as problem:
            return f"{path!r} cannot be read ({problem.strerror})."

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
        checks = pool.map(check, sorted(expected))
        answers = list(tqdm(checks, "verify", len(expected), unit="file", leave=False))
    sentences = [sentence for sentence in answers if sentence]
    extra = sorted(set(_files(root)) - set(expected))
    return sentences + [f"{path!r} is extra: the manifest does not name it." for path in extra]


def _files(root: Path) -> Iterator[str]:
    """Paths of all files below ``clips`` and ``flow``; links to folders are not followed."""
    for part in ("clips", "flow"):
        for folder, folders, names in os.walk(root / part):
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            for name in [*names, *links]:
                yield (Path(folder) / name).relative_to(root).as_posix()


def _checked(content: dict) -> Manifest:
    """A manifest from JSON; what does not fit raises one of the errors that ``read`` catches."""
    entries = [Entry(**entry) for entry in content["entries"]]
    for entry in entries:
        for path in [entry.clip] if entry.flow is None else [entry.clip, entry.flow]:
            inside = path.startswith(("clips/", "flow/")) and ".." not in path.split("/")
            if not inside or "\0" in path:
                raise ValueError(f"{path!r} does not lie in the folder")
        if not 0 <= entry.label < len(content["classes"]):
            raise ValueError(f"{entry.name!r} has the label {entry.label}")
        if not entry.frames >= 2:
            raise ValueError(f"{entry.name!r} has {entry.frames} frames")
    by_name = {entry.name: entry for entry in entries}
    if len(by_name) != len(entries):
        raise ValueError("a name comes twice")
    lists = {
        int(number): {part: tuple(names) for part, names in split.items()}
        for number, split in content["lists"].items()
    }
    listed = {name for split in lists.values() for names in split.values() for name in names}
    if unknown := listed - by_name.keys():
        raise ValueError(f"a list names {min(unknown)!r}, of which there is no clip")
    del content["format"]
    sets = {name: tuple(content[name]) for name in ("classes", "quarantined")}
    return Manifest(**content | sets | {"lists": lists, "entries": by_name})


def _damaged(path: Path, problem: object) -> DatasetError:
    return DatasetError(
        f"{path} is damaged ({problem}). Run `dmc prepare` on this folder again: what is whole is "
        "kept, and the manifest is written anew."
    )
