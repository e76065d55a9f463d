"""Data sets of videos as their publishers ship them: what is there, and the official lists.

An adapter reads one layout into a :class:`Corpus`. Nothing is decoded, and lists are never guessed
(:mod:`dmclib.data.lists`). A copy that lacks videos is refused unless ``allow_partial``; then the
classes are those that have videos.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from dmclib.data import lists
from dmclib.data.folders import SUFFIXES, Folders, holds_videos, matches, subfolders
from dmclib.data.lists import SIDES, Parts, class_of
from dmclib.errors import DatasetError

LIST_FOLDER = "ucfTrainTestlist"
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


class UCF101(Corpus):
    """UCF-101: ``<root>/UCF-101/<class>/*.avi`` and ``<root>/ucfTrainTestlist``, three splits.

    The videos may also lie in ``<root>/videos``. Each split holds all 13,320 videos of 101 classes.
    """

    SPLITS: ClassVar[Counts] = {1: (9_537, 3_783), 2: (9_586, 3_734), 3: (9_624, 3_696)}

    def __init__(self, root: str | Path, *, allow_partial: bool = False):
        folders = Folders(root)
        videos = _first(folders.root, ("UCF-101", "videos"), "the unpacked videos")
        files = folders.by_class(videos)
        folder = _first(folders.root, (LIST_FOLDER,), "the unpacked lists")
        folders.count_others(videos, folder)
        classes = lists.read_classes(folder)
        listed = lists.read(folder, self.SPLITS, classes)
        for number, parts in listed.items():
            lists.match(files, parts["train"] | parts["test"], f"{folder}, split {number},")
        super().__init__("UCF101", folders, classes, files, listed)
        self._settle((13_320, 101), classes, allow_partial)


class HMDB51(Corpus):
    """HMDB-51: ``<root>/<class>/*.avi`` and ``<root>/testTrainMulti_7030_splits``, three splits.

    The class folders may lie one folder deeper. Each split's ``<class>_test_split1.txt`` marks
    each of the 6,766 videos 0 (in neither), 1 (train) or 2 (test).
    """

    SPLITS: ClassVar[Counts] = dict.fromkeys((1, 2, 3), (3_570, 1_530))
    MARKS = ("unused", *SIDES)

    def __init__(self, root: str | Path, *, allow_partial: bool = False):
        folders, name = Folders(root), "testTrainMulti_7030_splits"
        root = folders.root
        folder = _first(root, (name, f"test_train_splits/{name}"), "the unpacked lists")
        classes = sorted(set(matches(folder, r"([^.].*)_test_split\d\.txt")))
        # Extracted frames may lie beside the videos, in folders of the same names.
        parents = [root, *(inner for inner in subfolders(root) if inner.name not in classes)]
        full = (p for p in parents if any(holds_videos(p / label) for label in classes))
        parent = next(full, root)
        files = folders.by_class(parent, folder)
        if parent != root:
            folders.count_others(parent, folder)
        listed = {}
        for number in self.SPLITS:
            listed[number] = parts = {mark: set() for mark in self.MARKS}
            for label in classes:
                file = folder / f"{label}_test_split{number}.txt"
                for line in lists.lines(file):
                    match = re.fullmatch(r"(.+?)\s+([012])", line)
                    if match is None:
                        raise DatasetError(f"{file}: {line[:80]!r} is not '<file> <0, 1 or 2>'.")
                    mark = self.MARKS[int(match.group(2))]
                    lists.add(parts, mark, f"{label}/{match.group(1)}", file)
            lists.match(files, set().union(*parts.values()), f"{folder}, split {number},")
        super().__init__("HMDB51", folders, classes, files, listed)
        self._settle((6_766, 51), classes, allow_partial)


class KineticsN50(Corpus):
    """Kinetics-n50 (paper, 4.1): of Kinetics-400, 30 training and 20 validation videos per class.

    Rows ``label,youtube_id,time_start,time_end,split`` come from ``train.csv`` and ``val.csv`` (or
    ``kinetics_train.csv``, ``validate.csv``) in ``<root>/annotations`` or ``<root>``. The videos
    are ``<youtube_id>_<start>_<end>.mp4``, seconds in six digits, in ``<root>/train`` and
    ``<root>/val``, with or without class folders, and with spaces or underscores in these.

    The paper's own choice was not published. Ours takes the first videos of a class by the SHA-256
    of ``<seed>/<name>``, so that equal copies give equal choices, and a lost video is replaced
    alone. ``<root>/lists``, as :func:`lists.write` writes it, goes before. Validation videos
    are the test side of split 1.
    """

    CLASSES = 400
    TAKEN: ClassVar[dict[str, int]] = {"train": 30, "test": 20}
    SPLITS: ClassVar[Counts] = {1: (12_000, 8_000)}
    FOLDERS: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": ("train", "train_256", "videos_train"),
        "test": ("val", "val_256", "videos_val", "validation", "validate"),
    }
    ROWS: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": ("train.csv", "kinetics_train.csv"),
        "test": ("val.csv", "kinetics_val.csv", "validate.csv"),
    }

    def __init__(self, root: str | Path, *, allow_partial: bool = False, seed: int = 0):
        folders = Folders(root)
        root, written = folders.root, folders.root / "lists"
        parents = {s: _first(root, f, f"the {s} videos") for s, f in self.FOLDERS.items()}
        there = {side: folders.flat(parent) for side, parent in parents.items()}
        if written.is_dir():
            classes = lists.read_classes(written)
            rows = parts = lists.read(written, (1,), classes)[1]
        else:
            rows = lists.read_kinetics(root, self.ROWS)
            classes = sorted({class_of(name) for name in rows["train"] | rows["test"]})
            parts = {s: _draw(rows[s], there[s], n, seed) for s, n in self.TAKEN.items()}
        files = {}
        for side, names in parts.items():
            named, taken = ({PurePosixPath(name).stem for name in n} for n in (rows[side], names))
            for stem, file in there[side].items():
                if stem not in named:
                    if not (allow_partial or written.is_dir()):
                        raise DatasetError(
                            f"no {side} row names {file}; rename it, remove it, or leave such "
                            f"videos out with {ALLOW}."
                        )
                    folders.pass_over(f"{side} videos that no row names", file)
                elif stem not in taken:
                    folders.pass_over(f"{side} videos that were not chosen", file)
            for name in names:
                file = there[side].get(PurePosixPath(name).stem)
                if file is not None:
                    _check_folder(file, class_of(name), self.FOLDERS[side])
                    files[name] = file
        rows_at = [root / name for names in self.ROWS.values() for name in names]
        folders.count_others(*parents.values(), written, root / "annotations", *rows_at)
        super().__init__("KineticsN50", folders, classes, files, {1: parts})
        gaps = []
        for side, count in self.TAKEN.items():
            held = Counter(class_of(name) for name in self.lists[1][side])
            few = [name for name in classes if held[name] != count]
            if few:
                gaps.append(f"{held[few[0]]} of {count} {side} videos of {', '.join(few[:5])}")
        self._settle((sum(self.SPLITS[1]), self.CLASSES), classes, allow_partial, *gaps)


class UTInteraction(Corpus):
    """UT-Interaction, set 1: 60 videos of 6 classes from 10 sequences.

    ``<index>_<sequence>_<label>.avi`` lie in ``<root>`` or ``<root>/segmented_set1`` together, as
    published, or in folders of their classes. Split n tests on sequence n and trains on the other
    nine, as the benchmark asks (SDHA 2010); its accuracy is that of the ten tests together. By the
    files' names sequence 6 has no punch and sequence 8 has two.

    Each video is cut to a shape of its own, which gives the class away, and letterboxed the bars
    still show it: a result means little without that of the files' metadata beside it.
    """

    CLASSES = ("handshake", "hug", "kick", "point", "punch", "push")
    SPLITS: ClassVar[Counts] = dict.fromkeys(range(1, 11), (54, 6)) | {6: (55, 5), 8: (53, 7)}
    letterbox = True

    def __init__(self, root: str | Path, *, allow_partial: bool = False):
        folders, files, sequence = Folders(root), {}, {}
        for file in folders.flat(folders.root).values():
            match = re.fullmatch(r"[0-9]{1,2}_([1-9]|10)_([0-5])\.\w+", file.name)
            if match is None:
                raise DatasetError(
                    f"{file} is not '<index>_<sequence 1 to 10>_<label 0 to 5>'; rename or remove "
                    "it. Set 2, sequences 11 to 20, is another data set."
                )
            label = self.CLASSES[int(match.group(2))]
            _check_folder(file, label, (folders.root.name, "segmented_set1"))
            name = f"{label}/{file.name}"
            files[name], sequence[name] = file, int(match.group(1))
        listed = {}
        for number in self.SPLITS:
            test = {name for name in files if sequence[name] == number}
            listed[number] = {"train": files.keys() - test, "test": test}
        super().__init__("UTInteraction", folders, self.CLASSES, files, listed)
        self._settle((60, 6), self.CLASSES, allow_partial)


class VideoFolder(Corpus):
    """Any ``<root>/<class>/<video>``; there is no count that it could fall short of.

    A ``ucfTrainTestlist`` folder beside ``root`` gives official lists. Names as UT-Interaction's,
    ``<index>_<sequence>_<label>``, give its own protocol: split n tests on the n-th sequence
    (:class:`UTInteraction` also counts and letterboxes its set 1).

    Fewer than two folders with videos are a ``DatasetError``.
    """

    def __init__(self, root: str | Path, *, allow_partial: bool = True):
        folders = Folders(root)
        files = folders.by_class(folders.root)
        classes = sorted({class_of(name) for name in files})
        if len(classes) < 2:
            raise DatasetError(
                f"{root} holds {len(classes)} folders with videos, and recognition needs two "
                f"classes or more; expected <root>/<class>/<video> ({', '.join(SUFFIXES)}). "
                f"{folders.passed_over()}".strip()
            )
        folder = folders.root.parent / LIST_FOLDER
        if folder.is_dir():
            found = matches(folder, r"(?:train|test)list(\d\d)\.txt")
            indexed = (folder / "classInd.txt").is_file()
            index = lists.read_classes(folder) if indexed else None
            listed = lists.read(folder, sorted(set(map(int, found))) or [1], index)
            for name in sorted(files.keys() - lists.all_names(listed)):
                folders.pass_over("videos that no list names", files[name])
        else:
            listed = lists.leave_one_sequence_out(files)
        super().__init__("VideoFolder", folders, classes, files, listed)
        if self.missing:
            self.shortfall = (
                f"{len(self.missing):,} videos that {folder} names are missing, as "
                f"{self.missing[0]}."
            )


ADAPTERS = {
    "ucf101": UCF101,
    "hmdb51": HMDB51,
    "kinetics-n50": KineticsN50,
    "ut-interaction": UTInteraction,
    "folder": VideoFolder,
}


def open_corpus(word: str, root: str | Path, *, allow_partial: bool = False) -> Corpus:
    """Read the data set that ``word`` means, one of :data:`ADAPTERS`, from ``root``.

    Raises:
        DatasetError: there is no such word, or as :class:`Corpus`.
    """
    if word not in ADAPTERS:
        raise DatasetError(f"there is no data set {word!r}; there are {', '.join(ADAPTERS)}.")
    return ADAPTERS[word](root, allow_partial=allow_partial)


def _first(root: Path, names: Iterable[str], what: str) -> Path:
    """The first of these folders that is there."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DatasetError(f"{root} has no folder {' or '.join(names)} with {what}.")


def _draw(names: set[str], there: dict[str, Path], count: int, seed: int) -> set[str]:
    """The first ``count`` of each class by rank, of those that are there."""
    by_class = defaultdict(list)
    for name in names:
        if PurePosixPath(name).stem in there:
            rank = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            by_class[class_of(name)].append((rank, name))
    return {name for ranked in by_class.values() for _, name in sorted(ranked)[:count]}


def _check_folder(file: Path, label: str, plain: tuple[str, ...]) -> None:
    """Refuse a video that lies in the folder of another class than its row or its name says."""
    spelled = [re.sub(r"[\W_]", "", word).lower() for word in (file.parent.name, label)]
    if file.parent.name not in plain and spelled[0] != spelled[1]:
        raise DatasetError(f"{file} is {label!r}; it lies in another class's folder, move it.")
