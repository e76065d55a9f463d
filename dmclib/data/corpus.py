"""What every data set is read into: classes, videos, lists, and what is lacking."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dmclib.data import lists
from dmclib.data.folders import Folders
from dmclib.data.lists import SIDES, Parts, class_of
from dmclib.errors import DatasetError

ALLOW = "`dmc prepare --allow-partial`"
Counts = dict[int, tuple[int, int]]  # split number -> videos for training, for testing


@dataclass(frozen=True)
class Video:
    """One published video with its class."""

    name: str  # "<class>/<file name>" as the publishers have it, unique within its corpus
    label: int  # index into the corpus's classes
    source: Path  # the publishers' file, which is there


class Corpus:
    """What every adapter gives.

    Attributes:
        name: the data set's own name.
        root: the folder that it was read from.
        classes: names of the classes that have videos; a label counts from 0 in this order.
        videos: those that are there, sorted by name.
        lists: split number -> ``{"train": names, "test": names}``, sorted, of videos that are
            there; empty where the publishers give no lists.
        missing: names that the lists hold and that are not there, sorted.
        passed_over: what was not read, by kind and count, in a sentence; empty if nothing.

    Raises:
        DatasetError: there is no video; lists, rows or names are missing, damaged or doubled, or do
            not fit the files; or fewer than the published videos are there without
            ``allow_partial``.
    """

    shortfall = ""  # what lists or a whole copy have and this one lacks, in a sentence
    letterbox = False  # re-encoded to one size in its own shape, or stretched as the paper's are
    SPLITS: ClassVar[Counts] = {}  # as published

    def __init__(
        self,
        name: str,
        folders: Folders,
        classes: Iterable[str],
        files: dict[str, Path],
        listed: dict[int, Parts],
    ):
        self.name, self.root, self.passed_over = name, folders.root, folders.passed_over()
        if not files:
            raise DatasetError(f"{self.root} holds no video of {name}. {self.passed_over}".strip())
        inhabited = {class_of(video) for video in files}
        self.classes = tuple(c for c in classes if c in inhabited)
        labels = {c: number for number, c in enumerate(self.classes)}
        self.videos = tuple(Video(v, labels[class_of(v)], files[v]) for v in sorted(files))
        self.lists = {
            number: {side: tuple(sorted(parts[side] & files.keys())) for side in SIDES}
            for number, parts in listed.items()
        }
        self.missing = tuple(sorted(lists.all_names(listed) - files.keys()))

    def summary(self) -> list[str]:
        """What was read, what is lacking, what was passed over: a sentence each."""
        names = ", ".join(self.classes[:5]) + (", ..." if self.classes[5:] else "")
        read = f"{self.name}: {len(self.videos):,} videos of {len(self.classes)} classes ({names})."
        return [sentence for sentence in (read, self.shortfall, self.passed_over) if sentence]

    def _untested(self, number: int) -> str:
        """The classes, five at most, of which a split tests no video."""
        tested = {class_of(name) for name in self.lists[number]["test"]}
        absent = [name for name in self.classes if name not in tested]
        return ", ".join(absent[:5]) + (" and others" if absent[5:] else "")

    def _settle(
        self, whole: tuple[int, int], known: Iterable[str], allow_partial: bool, *more: str
    ) -> None:
        """Say what is lacking of so many videos and classes, and refuse it unless allowed."""
        gaps, counts = [], (len(self.videos), len(self.classes))
        if counts != whole:
            gaps.append(f"{counts[0]:,} of {whole[0]:,} videos, {counts[1]} of {whole[1]} classes")
        if empty := [name for name in known if name not in self.classes]:
            others = " and others" if empty[5:] else ""
            gaps.append(f"no video of {', '.join(empty[:5])}{others}")
        for number, split in self.SPLITS.items():
            parts = [len(self.lists[number][side]) for side in SIDES]
            if parts != [*split]:
                of = " + ".join(f"{a:,} of {b:,}" for a, b in zip(parts, split, strict=True))
                gaps.append(f"split {number} {of}")
                if untested := self._untested(number):
                    gaps[-1] += f" with no test of {untested}"
        gaps += more
        if self.missing:
            gaps.append(f"{len(self.missing):,} listed videos are missing, as {self.missing[0]}")
        if gaps:
            self.shortfall = f"{self.root} is a partial copy of {self.name}: {'; '.join(gaps)}."
            if not allow_partial:
                raise DatasetError(
                    f"{self.shortfall} Complete it, or take it as it is with {ALLOW}. "
                    f"{self.passed_over}".strip()
                )


def first_folder(root: Path, names: Iterable[str], what: str) -> Path:
    """The first of these folders that is there."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DatasetError(f"{root} has no folder {' or '.join(names)} with {what}.")


def check_folder(file: Path, label: str, plain: tuple[str, ...]) -> None:
    """Refuse a video that lies in the folder of another class than its row or its name says."""
    spelled = [re.sub(r"[\W_]", "", word).lower() for word in (file.parent.name, label)]
    if file.parent.name not in plain and spelled[0] != spelled[1]:
        raise DatasetError(f"{file} is {label!r}; it lies in another class's folder, move it.")
