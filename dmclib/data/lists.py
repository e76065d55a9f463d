"""Split lists: which videos are for training and which for testing, one name per line.

A name is ``<class>/<file name>``. Lists decide what a result means, so they are never guessed: a
name of another form, a duplicate, a label that does not fit, a file that is missing or no text are
errors that name the file.
"""

import csv
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from dmclib import files
from dmclib.errors import DatasetError

SIDES = ("train", "test")
SPLITS = ("train", "validation", "test")
MAX_BYTES = 50_000_000  # the longest, Kinetics' training rows, has some 10 MB
Parts = dict[str, set[str]]  # side -> names

# The Weizmann actions; "lena_run1" and "lena_run2" are two runs of one person.
PERSONS = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")
ACTIONS = ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")
PERSON = re.compile(rf"({'|'.join(PERSONS)})_({'|'.join(ACTIONS)})[12]?\.\w+")
_SEQUENCE = re.compile(r"\d+_(\d+)_(\d+)\.\w+")  # UT-Interaction's <index>_<sequence>_<label>


def class_of(name: str) -> str:
    """The class in a video's name."""
    return name.partition("/")[0]


def scene(name: str) -> str:
    """What a video was cut from; its own name where that is unknown. No two sides share a scene.

    UCF-101 cuts clips from groups (``_g07_``) and HMDB-51 from films (``<film>_<class>_<tags>``),
    each of one class; a sequence of UT-Interaction and a person of Weizmann show every class.
    """
    label, _, file = name.rpartition("/")
    if group := re.search(r"_(g\d+)_", file):
        return f"{label}/{group.group(1)}"
    tags = r"_[a-z]+_[a-z]{2}_np\d_[a-z]{2}_[a-z]{3}_\d+\.\w+"
    if film := re.fullmatch(rf"(.+)_{re.escape(label)}{tags}", file):
        return f"{label}/{film.group(1)}"
    if sequence := _SEQUENCE.fullmatch(file):
        return f"sequence {sequence.group(1)}"
    if person := PERSON.fullmatch(file):
        return f"person {person.group(1)}"
    return name


def scene_numbers(names: Sequence[str]) -> np.ndarray:
    """The number of each video's scene, int ``(videos,)``, from 0 in the order of appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(scene(name), len(numbers)) for name in names], int)


def clusters(names: Sequence[str]) -> np.ndarray:
    """:func:`scene_numbers` of test videos, which intervals draw as a whole.

    Clips of one person, group, sequence or film depend on each other: more clips of one tell
    nothing of the others.

    Raises:
        DatasetError: all videos are of one scene, so that there is no interval.
    """
    numbers = scene_numbers(names)
    if not numbers.any():
        raise DatasetError(
            f"every test clip is of {scene(names[0])}, and no interval follows from one. Pool "
            "the tests of several splits, as with --splits 1,2,3."
        )
    return numbers


def check_apart(parts: Mapping[str, Iterable[str]], title: str) -> None:
    """Refuse a scene that is on both sides of a split, and name it."""
    train, test = ({scene(name) for name in parts[side]} for side in SIDES)
    if shared := train & test:
        raise DatasetError(
            f"{title}: {min(shared)} would be in train and in test, and a network knows again whom "
            "it has seen. Keep a person, group or sequence on one side, or let the folder be "
            "divided by them (corpus: folds)."
        )


def lines(file: Path) -> list[str]:
    """The lines of a list that are not empty, without blanks around them."""
    if not file.is_file():
        raise DatasetError(f"{file} is not there; copy the publishers' lists whole.")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{file} is larger than a list can be; is it another file?")
        text = file.read_text(encoding="utf-8").replace("\ufeff", "")  # Notepad's and Excel's mark
    except (OSError, UnicodeDecodeError) as problem:
        raise DatasetError(f"{file} cannot be read as UTF-8 text ({problem}).") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def add(parts: Parts, side: str, name: str, file: Path) -> None:
    """Put a listed name on its side, once."""
    path = name.split("/")
    if len(path) != 2 or {"", ".", ".."} & set(path):
        raise DatasetError(
            f"{file}: {name[:80]!r} is not '<class>/<file>'; remove it, comments too."
        )
    for other, names in parts.items():
        if name in names:
            where = "twice" if other == side else f"in {other} and in {side}"
            raise DatasetError(f"{file}: {name} is listed {where}; copy the lists anew.")
    parts[side].add(name)


def all_names(listed: Mapping[int, Parts]) -> set[str]:
    """Every name of some split's lists."""
    return set().union(*(names for parts in listed.values() for names in parts.values()))


def read_classes(folder: Path) -> dict[str, int]:
    """Class -> number, from a folder's ``classInd.txt``, in the order of the numbers."""
    file, classes = folder / "classInd.txt", {}
    for line in lines(file):
        match = re.fullmatch(r"([0-9]{1,6})\s+([^/]+)", line)
        if match is None or match.group(2) in classes or int(match.group(1)) in classes.values():
            raise DatasetError(f"{file}: {line[:80]!r} is not a new '<number> <class>'.")
        classes[match.group(2)] = int(match.group(1))
    return dict(sorted(classes.items(), key=lambda item: item[1]))


def read(
    folder: Path, numbers: Iterable[int], classes: Mapping[str, int] | None
) -> dict[int, Parts]:
    """Lists named as UCF-101's: ``trainlist01.txt``, ``testlist01.txt`` and so on.

    Args:
        folder: where they are.
        numbers: of the splits to read.
        classes: class -> number, to check names and labels; None where there is no index.
    """
    listed = {}
    for number in numbers:
        listed[number] = parts = {side: set() for side in SIDES}
        for side in SIDES:
            file = folder / f"{side}list{number:02d}.txt"
            for line in lines(file):
                name, label = re.fullmatch(r"(.+?)(?:\s+([0-9]{1,6}))?", line).groups()
                add(parts, side, name, file)
                if classes is None:
                    continue
                if class_of(name) not in classes:
                    raise DatasetError(f"{file}: the class of {name} is not in classInd.txt.")
                if label is not None and int(label) != classes[class_of(name)]:
                    raise DatasetError(
                        f"{file}: {name} has label {label}, and classInd.txt says "
                        f"{classes[class_of(name)]}."
                    )
        check_apart(parts, f"{folder}, split {number}")
    return listed


def read_kinetics(root: Path, file_names: Mapping[str, Iterable[str]]) -> Parts:
    """Kinetics' annotation rows as names ``<label>/<youtube_id>_<start>_<end>.mp4``.

    Args:
        root: the data set's folder; the rows are in it or in its ``annotations``.
        file_names: side -> names that its CSV file may have.
    """
    rows: Parts = {side: set() for side in SIDES}
    for side, names in file_names.items():
        files_at = [root / folder / name for folder in ("annotations", "") for name in names]
        file = next((path for path in files_at if path.is_file()), files_at[0])
        words = ("train",) if side == "train" else ("val", "validate", "validation")
        reader = csv.DictReader(lines(file))
        try:
            for row in reader:
                video, split = str(row.get("youtube_id")), row.get("split")
                seconds = [str(row.get(key)) for key in ("time_start", "time_end")]
                numbers = all(re.fullmatch(r"[0-9]{1,6}", text) for text in seconds)
                if not numbers or split not in words or not re.fullmatch(r"[A-Za-z0-9_-]+", video):
                    raise DatasetError(
                        f"{file}, line {reader.line_num}: expected label,youtube_id,time_start,"
                        f"time_end,split, and split to be {words[0]}."
                    )
                stem = "_".join([video, *(f"{int(text):06d}" for text in seconds)])
                add(rows, side, f"{row.get('label') or ''}/{stem}.mp4", file)
        except csv.Error as problem:
            raise DatasetError(f"{file}, line {reader.line_num}: {problem}.") from None
    return rows


def write(
    folder: str | Path, classes: Iterable[str], listed: Mapping[int, Mapping[str, Iterable[str]]]
) -> None:
    """Write classes and lists as UCF-101's, each file whole or not at all; :func:`read` reads them.

    ``classInd.txt`` numbers the classes from 1, ``trainlist01.txt`` has lines ``name label``,
    ``testlist01.txt`` names alone.
    """
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    written = {"classInd.txt": [f"{number} {name}" for name, number in numbers.items()]}
    for number, parts in listed.items():
        labelled = [f"{name} {numbers[class_of(name)]}" for name in parts["train"]]
        written[f"trainlist{number:02d}.txt"] = labelled
        written[f"testlist{number:02d}.txt"] = parts["test"]
    for name, rows in written.items():
        files.write_text(Path(folder) / name, "".join(f"{row}\n" for row in rows))


def match(videos: Mapping[str, Path], listed: set[str], title: str) -> None:
    """Refuse a video that a list of all videos does not name, and one in two classes.

    Args:
        videos: name -> file, of the videos that are there.
        listed: all names of the list.
        title: of the list, for the message.
    """
    unlisted = sorted(videos.keys() - listed)
    if unlisted:
        name = unlisted[0]
        label = class_of(name).lower()  # UCF-101's HandstandPushups is spelled in two ways
        absent = [v for v in listed - videos.keys() if class_of(v).lower() == label]
        close = difflib.get_close_matches(name, sorted(absent), n=1)
        hint = f"; is it {close[0]}, which is missing?" if close else "; rename or remove it."
        raise DatasetError(f"{title} does not name {videos[name]}{hint}")
    first: dict[str, str] = {}
    for name in sorted(videos.keys() | listed):
        other = first.setdefault(PurePosixPath(name).name, name)
        if other != name:
            raise DatasetError(f"{title}: {other} and {name} are one video in two classes.")


def leave_one_sequence_out(names: Iterable[str]) -> dict[int, Parts]:
    """UT-Interaction's lists, if every name has its form and the label of its folder's class."""
    matches = {name: _SEQUENCE.fullmatch(name.rpartition("/")[2]) for name in names}
    if not all(matches.values()):
        return {}
    pairs = {(class_of(name), match.group(2)) for name, match in matches.items()}
    classes, marks = ({pair[k] for pair in pairs} for k in (0, 1))
    if not len(pairs) == len(classes) == len(marks):
        return {}
    sequences = sorted({int(match.group(1)) for match in matches.values()})
    listed = {}
    for number, sequence in enumerate(sequences, start=1):
        test = {name for name, match in matches.items() if int(match.group(1)) == sequence}
        listed[number] = {"train": matches.keys() - test, "test": test}
    return listed


def folds(names: Iterable[str], count: int) -> dict[int, Parts]:
    """Lists of ``count`` splits: split n tests the n-th part of each class's scenes, in order.

    A scene lies whole in one part, also one that several classes share. So UCF-101's 25 groups
    make five folds of groups 1 to 5, 6 to 10 and so on.
    """
    names, fold = sorted(names), {}
    for label in sorted(set(map(class_of, names))):
        scenes = sorted({scene(name) for name in names if class_of(name) == label})
        for place, one in enumerate(scenes):
            fold.setdefault(one, place * count // len(scenes) + 1)
    return {
        number: {
            "train": {name for name in names if fold[scene(name)] != number},
            "test": {name for name in names if fold[scene(name)] == number},
        }
        for number in range(1, count + 1)
    }


def split_by_scene(
    names: Sequence[str], parts: Mapping[str, Iterable[str]] | None, seed: int
) -> Parts:
    """Divide videos into train, validation and test, no scene on two sides.

    Validation always comes from train: of each class every sixth scene, or the last where there
    are fewer. A sequence that shows every class goes there whole.

    Args:
        names: of all videos, sorted.
        parts: the official lists, which need not name every video; None draws a quarter of each
            class's scenes for test at random and leaves the rest for train.
        seed: of that draw.
    """
    classes: dict[str, list[str]] = {}
    for name in names:
        classes.setdefault(class_of(name), []).append(name)
    if parts is None:
        parts = {side: [] for side in SIDES}
        for label, members in enumerate(classes.values()):
            scenes = sorted({scene(name) for name in members})
            order = np.random.default_rng([seed, label]).permutation(len(scenes))
            tested = {name for name, place in zip(scenes, order, strict=True) if place % 4 == 0}
            for name in members:
                parts["test" if scene(name) in tested else "train"].append(name)
        check_apart(parts, "clips dealt by chance")
    train, held_out = set(parts["train"]), set()
    for members in classes.values():
        scenes = sorted({scene(name) for name in members if name in train})
        if len(scenes) > 1:
            held_out.update(scenes[min(5, len(scenes) - 1) :: 6])
    validation = {name for name in train if scene(name) in held_out}
    return {"train": train - validation, "validation": validation, "test": set(parts["test"])}
