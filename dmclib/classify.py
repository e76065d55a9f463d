"""Labels of any videos: each scored by the test protocol, on all cores or a cluster.

A file may be damaged or hostile, so every one is read in a worker process, and costs no more than
itself. Rows of scores are kept in a CSV file, from which a later run goes on.
"""

import csv
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from dmclib import cluster, codec, data, demo, fast, files, recognition, training
from dmclib.data import corpora, folders
from dmclib.errors import (
    CheckpointError,
    DatasetError,
    DMCError,
    OutputError,
    ScoreFileError,
    VideoError,
)
from dmclib.models import DMCNet
from dmclib.training import TrainConfig

PATIENCE_SECONDS = 600  # that a worker may take for re-encoding a video, and for scoring it
SAVE_SECONDS = 5  # between two times that the rows are written
COLUMNS = ("video", "label", "networks")  # of the CSV file; then each class's score

Rows = dict[str, list[str]]  # a video's absolute path -> its row of the CSV file


@dataclass(frozen=True)
class Report:
    """How a run ended."""

    classes: tuple[str, ...]
    scores: dict[str, list[float]]  # absolute path -> raw score of each class, by this run
    kept: int  # videos that had their row already
    failed: dict[str, str]  # absolute path -> why it has no scores
    seconds: float

    @property
    def sentences(self) -> list[str]:
        """For each video of this run its most likely class, with its share after a softmax."""
        said = []
        for path, scores in self.scores.items():
            best = max(scores)
            share = 1 / sum(math.exp(score - best) for score in scores)
            said.append(f"{_shown(path)}: {self.classes[scores.index(best)]} ({share:.0%})")
        return said

    def __str__(self) -> str:
        frames = recognition.FRAMES * len(self.scores)
        text = f"{len(self.scores):,} videos labelled, {self.kept:,} already were"
        if self.scores:
            text += f": {frames / self.seconds:,.1f} frames per second, {recognition.FRAMES} each"
        return f"{text}. {len(self.failed):,} failed." if self.failed else f"{text}."


def classify(
    sources: Iterable[str | Path],
    out: str | Path | None = None,
    *,
    profile: str = "laptop",
    scheduler: str | None = None,
) -> Report:
    """Score videos with the networks that notebook 06 of a profile trained (:mod:`demo`).

    By the protocol of :func:`recognition.recognise`, 25 frames each; what is not MPEG-4 Part 2 of
    GOP 12 is re-encoded to a temporary clip of 340x256 before, as the networks' own clips are.

    Args:
        sources: videos, and folders whose videos are taken, those of inner folders too.
        out: CSV file of raw scores, a row per video. What it holds is not scored again. It is
            written every few seconds, whole.
        profile: whose networks.
        scheduler: address of a Dask scheduler, ``tcp://host:port``, to run there instead of on all
            cores. Its workers need this package, the videos and the cache at the same paths.

    Raises:
        CheckpointError: the profile's networks are not at hand.
        DatasetError: there is no video.
        ScoreFileError: ``out`` is something else, or of other networks.
        OutputError: ``out`` cannot be written.
        DMCError: a wrong profile; the cluster cannot be reached or fails. What is done stays.
    """
    config, classes = _networks_of(profile)
    header = [*COLUMNS, *classes]
    networks = f"{config.key}-{files.code_digest('fast', 'recognition', 'classify')}"
    paths, rows = _videos(sources), {} if out is None else _read(Path(out), header, networks)
    todo = [path for path in paths if path not in rows]
    scores, failed, begun = {}, {}, time.monotonic()
    saved = begun
    try:
        answers = _answers(todo, config, scheduler)
        for path, answer in tqdm(answers, "classify", len(todo), unit="video"):
            if isinstance(answer, str):
                failed[path] = _shown(answer)
                continue
            scores[path] = answer
            label = classes[int(np.argmax(answer))]
            rows[path] = [path, label, networks, *(f"{score:.6g}" for score in answer)]
            if out is not None and time.monotonic() - saved > SAVE_SECONDS:
                _write(Path(out), header, rows)
                saved = time.monotonic()
    finally:
        if out is not None and scores:
            _write(Path(out), header, rows)
    return Report(classes, scores, len(paths) - len(todo), failed, time.monotonic() - begun)


def _networks_of(profile: str) -> tuple[TrainConfig, tuple[str, ...]]:
    """The training of a profile's networks, and its classes."""
    config = demo.find_weights(profile).config
    if config is None:
        raise CheckpointError(
            f"the classifier of profile {profile} is not in the cache: dmc reproduce {profile} "
            "--only 06 trains it."
        )
    if config.sees_clips:
        raise CheckpointError(
            f"the classifier of profile {profile} sees whole clips, not 25 frames: give --profile "
            "another."
        )
    return config, tuple(config.data.open().classes)


def _videos(sources: Iterable[str | Path]) -> list[str]:
    """Absolute paths, each once: files as they are given, and a folder's videos in order."""
    found: dict[str, None] = {}
    for source in map(Path, sources):
        inside = sorted(source.rglob("*")) if source.is_dir() else None
        for path in [source] if inside is None else filter(_is_video, inside):
            found[os.path.abspath(path)] = None
    if not found:
        raise DatasetError(f"no video is there ({', '.join(folders.SUFFIXES)}): give some.")
    return list(found)


def _is_video(path: Path) -> bool:
    visible = not path.name.startswith(".")  # such as macOS's ._a.avi beside a.avi
    return visible and path.suffix.lower() in folders.SUFFIXES and path.is_file()


def _answers(
    paths: Sequence[str], config: TrainConfig, scheduler: str | None
) -> Iterator[tuple[str, list[float] | str]]:
    """Give each path with what :func:`score` answers the first or, if it was lost, second time."""
    if not paths:
        return
    count, jobs = min(len(paths), os.cpu_count() or 1), [(path, config) for path in paths]
    with cluster.workers(count, scheduler=scheduler) as workers:
        patience = {"patience_seconds": PATIENCE_SECONDS}
        for (path, _), answer in workers.each_twice(score, jobs, **patience):
            if answer is cluster.LOST:
                answer = (
                    f"{path}: the process that read it was lost, twice: it crashed, ran out of "
                    f"memory, or did nothing for {PATIENCE_SECONDS} seconds."
                )
            yield path, answer


def score(path: str, config: TrainConfig) -> list[float] | str:
    """In a worker: the raw scores of a video, or a sentence why it has none.

    Raises:
        CheckpointError: the worker does not find the networks.
    """
    networks = _fast_networks(config)
    try:
        return _score(Path(path), networks, config)
    except Exception as problem:  # whatever a hostile file can do: it is the file's own failure
        if isinstance(problem, DMCError):
            return str(problem)
        return f"{path}: cannot be scored ({type(problem).__name__}: {problem})."


@cache
def _fast_networks(config: TrainConfig) -> DMCNet:
    return fast.form(training.load_networks(config))


def _score(path: Path, networks: DMCNet, config: TrainConfig) -> list[float]:
    setting = {"size": config.size, "height": config.data.scaled_to}
    setting["reading"] = config.data.reading
    if demo.has_our_form(path):
        with suppress(VideoError):  # B-frames, or another size in its midst; damage is said below
            return recognition.recognise(path, networks, **setting).tolist()
    with tempfile.TemporaryDirectory(prefix="dmc-") as folder:
        clip = Path(folder) / "clip.mp4"
        letterbox = corpora.ADAPTERS[config.data.corpus].letterbox  # as in training
        codec.transcode(path, clip, gop=data.GOP, letterbox=letterbox)
        cluster.sign_of_life()
        try:
            return recognition.recognise(clip, networks, **setting).tolist()
        except DMCError as problem:  # it has one frame
            raise VideoError(str(problem).replace(str(clip), str(path))) from None


def _read(path: Path, header: list[str], networks: str) -> Rows:
    """The rows that an earlier run has written, if they are of these networks."""
    if not path.exists():
        return {}
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as handle:
            first, *rows = csv.reader(handle, strict=True)
    except (OSError, ValueError, csv.Error):  # ValueError: it is empty
        first, rows = [], []
    if first != header or any(len(row) != len(header) or row[2] != networks for row in rows):
        raise ScoreFileError(
            f"{path} does not hold scores of these networks as dmc classify writes them: give "
            "another file with --out, or remove it."
        )
    return {row[0]: row for row in rows}


def _write(path: Path, header: list[str], rows: Mapping[str, list[str]]) -> None:
    try:
        with (
            files.whole(path) as partial,
            open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as handle,
        ):
            csv.writer(handle).writerows([header, *rows.values()])
    except OSError as problem:
        raise OutputError(
            f"{path}: cannot be written ({problem.strerror}). Make room, or give another file."
        ) from problem


def _shown(text: str) -> str:
    """A path, or a sentence with one, as it can be printed, whatever is in it."""
    return text if text.isprintable() else ascii(text)
