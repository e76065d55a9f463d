"""The folders that a data set lies in: which files are videos, and what is passed over."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dmclib.errors import DatasetError

SUFFIXES = (".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm")
SUFFIXES += (".mpg", ".mpeg", ".wmv", ".flv", ".3gp")
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm")
KINDS_SHOWN = 8
VIDEO, FOLDER, LOOSE = "video", "folder", "videos outside of class folders"
_SURROGATE = re.compile("[\ud800-\udfff]")


class Folders:
    """Reads folders of videos and counts what it leaves out, by kind.

    Raises:
        DatasetError: ``root`` is no folder.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise DatasetError(f"{root} is not a folder; give one that holds the data set.")
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def pass_over(self, kind: str, path: str | Path) -> None:
        """Count a file or folder that is not read."""
        self._counts[kind] += 1
        self._examples.setdefault(kind, os.path.relpath(path, self.root))

    def passed_over(self) -> str:
        """What was left out, by kind and count, in a sentence; empty where nothing was."""
        shown = self._counts.most_common(KINDS_SHOWN)
        kinds = [f"{kind} ({count:,}, as {self._examples[kind]})" for kind, count in shown]
        if rest := self._counts.total() - sum(count for _, count in shown):
            kinds.append(f"others ({rest:,})")
        sentence = f"Passed over in {self.root}: {', '.join(kinds)}." if kinds else ""
        return sentence if sentence.isprintable() else ascii(sentence)[1:-1]

    def by_class(self, parent: Path, *used: Path) -> dict[str, Path]:
        """``<class>/<file name>`` -> file, of the videos in the folders of ``parent``.

        What of ``parent`` is ``used`` for something else, or holds it, is left alone.
        """
        loose, folders = self._read(parent, used)
        for file in loose:
            self.pass_over(LOOSE, file.path)
        return {
            f"{folder.name}/{file.name}": Path(file.path)
            for folder in folders
            for file in self._inner(folder)
        }

    def flat(self, parent: Path) -> dict[str, Path]:
        """File name without its ending -> file, of the videos in a folder and in its folders.

        Raises:
            DatasetError: two videos have one name.
        """
        videos: dict[str, Path] = {}
        loose, folders = self._read(parent)
        for file in [*loose, *(file for folder in folders for file in self._inner(folder))]:
            stem, path = file.name.rpartition(".")[0], Path(file.path)
            if stem in videos:
                raise DatasetError(f"{videos[stem]} and {path} are the same video; remove one.")
            videos[stem] = path
        return videos

    def count_others(self, *used: Path) -> None:
        """Count all that lies in the root, but for what is used or holds it."""
        loose, folders = self._read(self.root, used)
        for entry in loose:
            self.pass_over(LOOSE, entry.path)
        for entry in folders:
            self.pass_over(_kind_of_folder(entry.path), entry.path)

    def _inner(self, folder: os.DirEntry) -> list[os.DirEntry]:
        """The videos of one folder; folders inside it are counted."""
        files, nested = self._read(folder.path)
        for inner in nested:
            self.pass_over(_kind_of_folder(inner.path), inner.path)
        if not files:
            self.pass_over("folders without videos", folder.path)
        return files

    def _read(
        self, folder: str | Path, used: Iterable[Path] = ()
    ) -> tuple[list[os.DirEntry], list[os.DirEntry]]:
        """The videos and the folders in a folder, by name; all else is counted."""
        videos, folders = [], []
        for entry in entries(folder):
            if any(path.is_relative_to(entry.path) for path in used):
                continue
            kind = _kind(entry)
            if kind == VIDEO:
                videos.append(entry)
            elif kind == FOLDER:
                folders.append(entry)
            else:
                self.pass_over(kind, entry.path)
        return videos, folders


def entries(folder: str | Path) -> list[os.DirEntry]:
    """What a folder holds, by name, hidden entries included.

    Raises:
        DatasetError: it cannot be read, or a name cannot stand in a list.
    """
    try:
        with os.scandir(folder) as inside:
            listed = sorted(inside, key=lambda entry: entry.name)
    except OSError as problem:
        raise DatasetError(f"{folder} cannot be read ({problem.strerror}).") from None
    for entry in listed:
        # A list holds a name per line, in UTF-8; other bytes come from the system as surrogates.
        unlisted = entry.name.splitlines() != [entry.name] or _SURROGATE.search(entry.name)
        if unlisted and _kind(entry) in (VIDEO, FOLDER):
            raise DatasetError(f"{folder}: rename {entry.name!r}, which is not one line of UTF-8.")
    return listed


def matches(folder: Path, pattern: str) -> list[str]:
    """The pattern's first group in every name in a folder that is of the pattern, by name."""
    found = (re.fullmatch(pattern, entry.name) for entry in entries(folder))
    return [match.group(1) for match in found if match]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, by name."""
    return [Path(entry.path) for entry in entries(folder) if _kind(entry) == FOLDER]


def holds_videos(folder: Path) -> bool:
    """Whether a video lies right in the folder; False where there is no folder."""
    return folder.is_dir() and any(_kind(entry) == VIDEO for entry in entries(folder))


def _kind(entry: os.DirEntry) -> str:
    """VIDEO, FOLDER, or the kind of what is neither."""
    if entry.name.startswith("."):  # such as macOS's ._a.avi beside a.avi
        return "hidden files and folders"
    try:
        if entry.is_dir():
            return "__MACOSX folders" if entry.name == "__MACOSX" else FOLDER
        if not entry.is_file():
            return "links that lead nowhere" if entry.is_symlink() else "devices and pipes"
    except OSError:  # a link to itself, or into a folder that may not be entered
        return "links that lead nowhere"
    if (ending := _ending(entry.name)) in SUFFIXES:
        return VIDEO
    return f"{ending} files" if ending else "files without an ending"


def _kind_of_folder(folder: str, depth: int = 3) -> str:
    """The kind of a folder that is not read, by the first video or picture in it."""
    try:
        inside = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return "folders that cannot be read"
    for entry in inside:
        if _ending(entry.name) in PICTURES:
            return "folders of extracted frames"
        kind = _kind(entry)
        if kind == VIDEO:
            return "other folders with videos"
        if kind == FOLDER and depth:
            return _kind_of_folder(entry.path, depth - 1)
    return "other folders"


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
