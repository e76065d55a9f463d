"""The authors' networks on prepared videos, by their own test protocol; nothing is trained.

Frames are chosen by their rule and rounded to eight bits as theirs are; vectors and residuals are
accumulated for CoViAR's streams and plain for DMC-Net's (RELEASED_CODE.md, sections 1, 4 and 8).
Views are those of :mod:`dmclib.recognition`. A mirrored vector beyond 20 px is one level of 255 off
theirs, because they mirror after the rounding. A processor with bfloat16 rounds the networks too
(:mod:`dmclib.fast.fused`); a GPU does not.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dmclib import evaluation, fast, files, machine, paths, recognition, results
from dmclib.data import Clip, DataConfig, manifest, off_key_frame
from dmclib.data.corpora import ADAPTERS
from dmclib.data.frames import count_frames
from dmclib.errors import CheckpointError, DatasetError, ProfileError, ScoreFileError
from dmclib.models import DMCNet
from dmclib.released import fusions
from dmclib.released.checkpoints import load_released
from dmclib.released.scores import COVIAR, RELEASES, film
from dmclib.transforms import Sample

SIZE = 224  # side of the crop, px
MSE, ADV = "cls + MSE", "cls + MSE + adv"
TITLES = {"iframe": "I-frames", "mv": "motion vectors", "residual": "residuals"}
TITLES |= {cue: f"DMC ({cue})" for cue in (MSE, ADV)}
LAYOUT = (
    "expected FOLDER/split1/*.pth.tar, likewise split2 and split3: of each split the authors' "
    "checkpoints of I-frames, motion vectors, residuals and DMC-Net (with or without its "
    "discriminator, or both), under any names"
)
_STREAMS = {"rgb": "iframe", "motion": "mv", "residual": "residual"}  # our words -> theirs
Chosen = dict[str, Path]  # stream, a key of TITLES -> its checkpoint


def run(
    word: str,
    weights: str | Path,
    prepared: str | Path | None = None,
    *,
    splits: Sequence[int] = (),
    fresh: bool = False,
    dry: bool = False,
    console: Console | None = None,
) -> None:
    """Test the authors' networks, print the table, and keep it.

    It goes to ``results/<word>/released_weights.json``. A stream that was scored is not scored
    again while checkpoint, videos and code are the same.

    Args:
        word: a key of :data:`RELEASES`; the profile that the results are kept under.
        weights: the folder of checkpoints, as :data:`LAYOUT` says.
        prepared: made by ``dmc prepare``; by default where that command puts ``word``.
        splits: official splits to test; by default those that have checkpoints.
        fresh: score again what is scored already.
        dry: only say what would be read, and how many clips.
        console: where the table is printed; standard output by default.

    Raises:
        ProfileError: there are no released networks for ``word``.
        CheckpointError: a checkpoint is missing, doubled, damaged or of another data set.
        DatasetError: the videos are not prepared, of another data set, or lack a split.
        VideoError: a clip cannot be read.
    """
    if word not in RELEASES:
        raise ProfileError(f"{word!r} has no released networks; there are {', '.join(RELEASES)}.")
    console, classes = console or Console(), fusions.committed(word).classes
    prepared = Path(prepared or paths.CACHE / "prepared" / word)
    dataset = manifest.read(prepared).dataset
    if dataset != ADAPTERS[word].__name__:
        raise DatasetError(f"{prepared} was prepared from {dataset}, and not from {word}.")
    chosen = _find(Path(weights), splits, len(classes))
    configs = {n: DataConfig(prepared=str(prepared), split_number=n) for n in chosen}
    clips = {n: _relabelled(config, classes) for n, config in configs.items()}
    if len({film(clip.name) for own in clips.values() for clip in own}) < 2:
        raise DatasetError(f"{prepared} tests clips of one film, too few for an interval.")
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    run = results.start_run("released_weights", profile=word, seed=0, splits=[*chosen])
    score_files = {}
    for n, checkpoints in chosen.items():
        say(f"split {n}: {len(clips[n])} test clips of {prepared}")
        targets = {stream: _target(path, configs[n]) for stream, path in checkpoints.items()}
        for stream, target in targets.items():
            done = not fresh and _is_scored(target)
            state = "scored already" if done else "would be scored" if dry else "is scored"
            say(f"    {TITLES[stream]}: {checkpoints[stream]}, {state}")
            if not (done or dry):
                title = f"split {n}, {TITLES[stream]}"
                scores = _score(load_released(checkpoints[stream]), clips[n], classes, title)
                recognition.write_scores(scores, target)
        score_files[n] = targets
    if dry:
        return
    rows, extra = _compared(score_files)
    extra["checkpoints"] = {
        n: {stream: files.sha256(path) for stream, path in own.items()} for n, own in chosen.items()
    }
    names = f"{RELEASES[word].title}, {len(chosen)} of 3 official test lists, authors' networks"
    kept = run.save(rows, data=names, **extra)
    if not console.is_terminal:
        console.width = max(console.width, 200)  # nothing is gained by folding lines in a file
    console.print(_table(word, rows, [*chosen]))
    say(f"{kept}")


def frame_numbers(count: int, stream: str) -> list[int]:
    """The frames that the authors test of a clip of ``count`` frames, as many as we do.

    For stream "rgb" any frame, whose GOP's I-frame is then read; for the others P-frames.
    """
    first = 0 if stream == "rgb" else 1  # frame 0 has no motion
    step = (count - 1 - first) / recognition.FRAMES
    numbers = [first + round(step * (k + 0.5)) for k in range(recognition.FRAMES)]
    return numbers if stream == "rgb" else [off_key_frame(number) for number in numbers]


def find(folder: Path) -> Iterator[tuple[int, list[Path]]]:
    """The official splits that a folder has checkpoints of, and these; nothing is opened."""
    for number in fusions.SPLITS:
        if there := sorted((folder / f"split{number}").glob("*.pth.tar")):
            yield number, there


def _find(folder: Path, splits: Sequence[int], classes: int) -> dict[int, Chosen]:
    """Split -> its checkpoints by stream, every stream of every split."""
    there = dict(find(folder))
    for number in splits or [*there] or [1]:
        if number not in there:
            raise CheckpointError(f"{folder}/split{number} holds no *.pth.tar; {LAYOUT}.")
    chosen = {number: _by_stream(there[number], classes) for number in splits or there}
    cues = {cue for own in chosen.values() for cue in (MSE, ADV) if cue in own} or {ADV}
    for number, own in chosen.items():
        for stream in (*COVIAR, *sorted(cues)):
            if stream not in own:
                raise CheckpointError(
                    f"{folder}/split{number} has no checkpoint of {TITLES[stream]}; {LAYOUT}."
                )
    return chosen


def _by_stream(checkpoints: Sequence[Path], classes: int) -> Chosen:
    chosen: Chosen = {}
    for path in checkpoints:
        stream = _stream(load_released(path, classes=classes))
        if stream in chosen:
            raise CheckpointError(
                f"{chosen[stream]} and {path} are both of {TITLES[stream]}: leave one of them "
                "there (a network of flow looks like one of motion vectors)."
            )
        chosen[stream] = path
    return {stream: chosen[stream] for stream in TITLES if stream in chosen}


def _stream(networks: DMCNet) -> str:
    """The stream in the authors' words; only adversarial runs have a discriminator."""
    if networks.stream == "cue":
        return MSE if networks.discriminator is None else ADV
    return _STREAMS[networks.stream]


def _relabelled(config: DataConfig, classes: Sequence[str]) -> list[Clip]:
    """The test clips of a split, with the authors' labels; HMDB-51's have an order of their own."""
    dataset = config.open()
    if strange := sorted({*dataset.classes} - {*classes}):
        raise DatasetError(
            f"{config.prepared} has a class {strange[0]!r}, which is none of the {len(classes)} "
            "that the authors' networks tell apart."
        )
    labels = [classes.index(name) for name in dataset.classes]
    return [replace(clip, label=labels[clip.label]) for clip in dataset.clips("test")]


def _target(checkpoint: Path, config: DataConfig) -> Path:
    """The file of scores, named by all that they follow from."""
    code = files.code_digest("codec", "data", "fast", "models", "transforms", "recognition")
    origin = files.sha256(checkpoint), config.content(), config.split_number, code
    origin += (files.code_digest("released"), recognition.FRAMES, SIZE)
    name = hashlib.sha256(repr(origin).encode()).hexdigest()[:16]
    return paths.CACHE / "released" / f"{name}.safetensors"


def _is_scored(target: Path) -> bool:
    with suppress(ScoreFileError):  # not there, or cut short
        recognition.read_scores(target)
        return True
    return False


def _score(
    networks: DMCNet, clips: Sequence[Clip], classes: Sequence[str], title: str
) -> recognition.StreamScores:
    stream = networks.stream
    reading = "accumulated" if stream in ("motion", "residual") else "plain"

    def read(clip: Clip) -> Sample:
        numbers = frame_numbers(count_frames(clip), stream)
        return recognition.whole_frames(clip, stream, reading, numbers=numbers)

    networks = fast.form(networks.to(machine.choose_device("auto")))
    options = {"title": title, "size": SIZE, "eight_bit": True}
    return recognition.score_clips(networks, clips, classes, read, **options)


def _compared(score_files: Mapping[int, Mapping[str, Path]]) -> tuple[list[dict], dict]:
    """A row per stream and fusion: the mean over splits; and each split's, and differences."""
    right: dict[int, dict[str, np.ndarray]] = {}
    films: list[str] = []
    for n, own in score_files.items():
        scores, labels = recognition.read_together(own)
        methods = {TITLES[stream]: {stream: 1} for stream in own} | {"CoViAR": COVIAR}
        cues = [cue for cue in (MSE, ADV) if cue in own]
        methods |= {f"CoViAR + DMC ({cue})": COVIAR | {cue: 1} for cue in cues}
        right[n] = evaluation.called_right(scores, labels, methods)
        films += map(film, recognition.read_scores(own["iframe"]).names)
    source = np.unique(films, return_inverse=True)[1]
    pooled = {method: np.concatenate([own[method] for own in right.values()]) for method in methods}
    rows = []
    for method, every in pooled.items():
        low, high = evaluation.clustered_interval(every, source)
        mean = float(np.mean([own[method].mean() for own in right.values()]))
        row = {"method": method, "accuracy": mean, "low": low, "high": high, "n": len(every)}
        rows.append(row | {"sources": int(source.max()) + 1})
    alone = [
        {"method": row.pop("variant"), "split": n} | row
        for n, own in right.items()
        for row in evaluation.accuracy_rows(own)
    ]
    differences = []
    for cue in cues:
        pair = {"a": f"CoViAR + DMC ({cue})", "b": "CoViAR"}
        gain = evaluation.paired_difference(*(pooled[method] for method in pair.values()), source)
        differences.append(pair | dict(zip(("gain", "low", "high"), gain, strict=True)))
    return rows, {"splits": alone, "differences": differences}


def _table(word: str, rows: Sequence[Mapping], splits: Sequence[int]) -> Table:
    """The paper's numbers, the released scores' and ours, in columns of their own."""
    printed, released = _printed(word), {}
    for row in fusions.committed(word).accuracies:
        if row["split"] in splits:
            released.setdefault(row["method"], []).append(100 * row["accuracy"])
    which = f"mean of splits {', '.join(map(str, splits))}" if splits[1:] else f"split {splits[0]}"
    table = Table(title=f"{RELEASES[word].title}, top-1, per cent, {which}", title_justify="left")
    table.add_column("method")
    for column in ("paper (3 splits)", "released scores", "released weights, run here", "videos"):
        table.add_column(column, justify="right")
    for row in rows:
        accuracy, low, high = (100 * row[key] for key in ("accuracy", "low", "high"))
        theirs = released.get(row["method"])
        cells = printed.get(row["method"], ""), f"{np.mean(theirs):.2f}" if theirs else ""
        ours = f"{accuracy:.2f} [{low:.1f}, {high:.1f}]"
        table.add_row(row["method"], *cells, ours, str(row["n"]))
    return table


def _printed(word: str) -> dict[str, str]:
    """Method -> what the paper prints of it; of DMC-Net on HMDB-51 it prints two numbers."""
    whole = results.reported("table_4").set_index("method")[word]
    printed = {"CoViAR": f"{whole['CoViAR']}"}
    printed[f"CoViAR + DMC ({ADV})"] = f"{whole['DMC-Net (ResNet-18)']}"
    if word == "hmdb51":
        loss = results.reported("section_4_3").set_index("losses")[word]
        printed[f"CoViAR + DMC ({MSE})"] = f"{loss[MSE]}"
        printed[f"CoViAR + DMC ({ADV})"] += f" (Table 4), {loss[ADV]} (4.3)"
    return printed
