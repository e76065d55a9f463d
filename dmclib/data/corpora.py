"""Data sets of videos as their publishers ship them: what is there, and the official lists.

An adapter reads one layout into a :class:`Corpus`. Nothing is decoded, and lists are never guessed
(:mod:`dmclib.data.lists`). A copy that lacks videos is refused unless ``allow_partial``; then the
classes are those that have videos.
"""

import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from typing import ClassVar

from dmclib.data import lists
from dmclib.data.corpus import ALLOW, Corpus, Counts, check_folder, first_folder
from dmclib.data.folders import SUFFIXES, Folders, holds_videos, matches, subfolders
from dmclib.data.lists import SIDES, Parts, class_of
from dmclib.errors import DatasetError

LIST_FOLDER = "ucfTrainTestlist"


class UCF101(Corpus):
    """UCF-101: ``<root>/UCF-101/<class>/*.avi`` and ``<root>/ucfTrainTestlist``, three splits.

    The videos may also lie in ``<root>/videos``. Each split holds all 13,320 videos of 101 classes.
    """

    SPLITS: ClassVar[Counts] = {1: (9_537, 3_783), 2: (9_586, 3_734), 3: (9_624, 3_696)}

    def __init__(self, root: str | Path, *, allow_partial: bool = False):
        folders = Folders(root)
        videos = first_folder(folders.root, ("UCF-101", "videos"), "the unpacked videos")
        files = folders.by_class(videos)
        folder = first_folder(folders.root, (LIST_FOLDER,), "the unpacked lists")
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
        folder = first_folder(root, (name, f"test_train_splits/{name}"), "the unpacked lists")
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
        parents = {s: first_folder(root, f, f"the {s} videos") for s, f in self.FOLDERS.items()}
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
                    check_folder(file, class_of(name), self.FOLDERS[side])
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
            check_folder(file, label, (folders.root.name, "segmented_set1"))
            name = f"{label}/{file.name}"
            files[name], sequence[name] = file, int(match.group(1))
        listed = {}
        for number in self.SPLITS:
            test = {name for name in files if sequence[name] == number}
            listed[number] = {"train": files.keys() - test, "test": test}
        super().__init__("UTInteraction", folders, self.CLASSES, files, listed)
        self._settle((60, 6), self.CLASSES, allow_partial)


class Weizmann(Corpus):
    """Weizmann: nine persons, each once in ten actions, 90 videos of a still camera.

    ``<person>_<class>.avi`` lie in ``<root>`` or ``<root>/videos``, together or in folders of their
    classes. Split n tests the n-th person of :data:`lists.PERSONS` and trains on the other eight
    (Blank et al., ICCV 2005, leave one person out as most do since); its accuracy is that of the
    nine tests together. Of two videos of a person's action (``lena_run1.avi``, ``lena_run2.avi``)
    the second is passed over.
    """

    SPLITS: ClassVar[Counts] = dict.fromkeys(range(1, len(lists.PERSONS) + 1), (80, 10))

    def __init__(self, root: str | Path, *, allow_partial: bool = False):
        folders, files, seen = Folders(root), {}, set()
        parent = folders.root / "videos"
        parent = parent if parent.is_dir() else folders.root
        for file in folders.flat(parent).values():
            match = lists.PERSON.fullmatch(file.name)
            if match is None:
                raise DatasetError(
                    f"{file} is not '<person>_<class>', one of {', '.join(lists.PERSONS)} and one "
                    f"of {', '.join(lists.ACTIONS)}; rename or remove it."
                )
            label = match.group(2)
            check_folder(file, label, (folders.root.name, "videos"))
            if match.groups() in seen:
                folders.pass_over("second videos of one person's action", file)
                continue
            seen.add(match.groups())
            files[f"{label}/{file.name}"] = file
        if parent != folders.root:
            folders.count_others(parent)
        listed = {}
        for number, person in enumerate(lists.PERSONS, start=1):
            test = {name for name in files if lists.scene(name) == f"person {person}"}
            listed[number] = {"train": files.keys() - test, "test": test}
        super().__init__("Weizmann", folders, lists.ACTIONS, files, listed)
        self._settle((90, 10), lists.ACTIONS, allow_partial)


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
        listed = self._lists(folders, files)
        super().__init__(type(self).__name__, folders, classes, files, listed)
        if self.missing:
            self.shortfall = (
                f"{len(self.missing):,} videos that {self.root.parent / LIST_FOLDER} names are "
                f"missing, as {self.missing[0]}."
            )

    def _lists(self, folders: Folders, files: dict[str, Path]) -> dict[int, Parts]:
        folder = folders.root.parent / LIST_FOLDER
        if not folder.is_dir():
            return lists.leave_one_sequence_out(files)
        found = matches(folder, r"(?:train|test)list(\d\d)\.txt")
        indexed = (folder / "classInd.txt").is_file()
        index = lists.read_classes(folder) if indexed else None
        listed = lists.read(folder, sorted(set(map(int, found))) or [1], index)
        for name in sorted(files.keys() - lists.all_names(listed)):
            folders.pass_over("videos that no list names", files[name])
        return listed


class VideoFolds(VideoFolder):
    """Any ``<root>/<class>/<video>`` in five folds, so that each video is tested once.

    Split n tests the n-th fifth of each class's scenes and trains on the others, whatever lists
    lie beside (:func:`lists.folds`); the accuracy is that of the five tests together. It is a word
    of its own, because the folds' numbers would otherwise be those of official lists: a folder is
    read by ``folder`` for these, by ``folds`` for all of its videos.

    A class of fewer than five scenes is missing from some fold's test, which ``shortfall`` says.
    """

    FOLDS = 5

    def __init__(self, root: str | Path, *, allow_partial: bool = True):
        super().__init__(root, allow_partial=allow_partial)
        untested = {number: self._untested(number) for number in self.lists}
        self.shortfall = " ".join(
            f"Split {number} tests no {names}: too few groups, persons or videos."
            for number, names in untested.items()
            if names
        )

    def _lists(self, folders: Folders, files: dict[str, Path]) -> dict[int, Parts]:
        return lists.folds(files, self.FOLDS)


ADAPTERS = {
    "ucf101": UCF101,
    "hmdb51": HMDB51,
    "kinetics-n50": KineticsN50,
    "ut-interaction": UTInteraction,
    "weizmann": Weizmann,
    "folder": VideoFolder,
    "folds": VideoFolds,
}


def open_corpus(word: str, root: str | Path, *, allow_partial: bool = False) -> Corpus:
    """Read the data set that ``word`` means, one of :data:`ADAPTERS`, from ``root``.

    Raises:
        DatasetError: there is no such word, or as :class:`Corpus`.
    """
    if word not in ADAPTERS:
        raise DatasetError(f"there is no data set {word!r}; there are {', '.join(ADAPTERS)}.")
    return ADAPTERS[word](root, allow_partial=allow_partial)


def _draw(names: set[str], there: dict[str, Path], count: int, seed: int) -> set[str]:
    """The first ``count`` of each class by rank, of those that are there."""
    by_class = defaultdict(list)
    for name in names:
        if PurePosixPath(name).stem in there:
            rank = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            by_class[class_of(name)].append((rank, name))
    return {name for ranked in by_class.values() for _, name in sorted(ranked)[:count]}
