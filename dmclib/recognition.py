"""The paper's test protocol for our own networks: scores of a clip, of a split, and their files.

Section 4.2: 25 frames spread evenly over a clip. CoViAR's streams see ten views of each, five crops
and their mirror images; cue and flow see only the centre crop. A clip's score is the mean of all
its raw scores. Streams are fused from these means (:func:`evaluation.fuse`).
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dmclib import codec, data, evaluation, fast, files, machine, training, transforms, weights
from dmclib.data import lists, loader
from dmclib.errors import CheckpointError, ScoreFileError
from dmclib.models import DMCNet
from dmclib.training import TrainConfig
from dmclib.transforms import Sample

FRAMES = 25  # of a clip
ALL_VIEWS = ("rgb", "motion", "residual")  # the streams that see ten views


@dataclass(frozen=True)
class StreamScores:
    """One stream's scores of every clip of a split."""

    scores: np.ndarray  # float32 (clips, classes), raw, mean over a clip's frames and views
    labels: np.ndarray  # int64 (clips,)
    names: tuple[str, ...]  # of the clips
    classes: tuple[str, ...]


def recognise(
    path: str | Path,
    networks: DMCNet,
    *,
    size: int,
    height: int | None = None,
    reading: data.Reading = "plain",
) -> Tensor:
    """Score one clip by the protocol, from its file: float32 ``(classes,)``, raw, on the CPU.

    Only the GOPs that hold the 25 frames are decoded, each up to its frame.

    Args:
        path: MPEG-4 Part 2 of GOP 12 (``codec.transcode``), of two frames or more. Of a clip with
            fewer than 25, some frames count more than once.
        networks: trained, in evaluation mode, of any stream but flow, which no file holds; for more
            clips than one, :func:`dmclib.fast.form` of them. "rgb" sees the pictures of the frames'
            I-frames.
        size, height, reading: the crops' side, px; the height, px, to which frames were scaled
            (None: not); of vectors and residual. All as in training.

    Raises:
        VideoError: the clip is missing, damaged or not as described above.
        DatasetError: it has one frame, or there is no such reading.
    """
    if networks.stream == "flow":
        raise ValueError("flow is in no compressed file: score_split takes it from the data set.")
    path = Path(path)
    clip = data.Clip(path.name, 0, "", path, path)
    return _mean_scores(networks, whole_frames(clip, networks.stream, reading), size, height)


def whole_frames(
    clip: data.Clip,
    stream: str,
    reading: data.Reading,
    dataset: data.Dataset | None = None,
    numbers: list[int] | None = None,
) -> Sample:
    """The protocol's frames of a clip, in pixels and grey levels; errors as :func:`recognise`.

    For stream "flow" with the data set's flow. ``numbers`` are of other frames to take.
    """
    picture = "rgb" if stream == "rgb" else "residual"
    sampling = loader.Sampling(FRAMES, picture=picture, reading=reading)
    segments = loader.Segments([clip], sampling, train=False)
    numbers = segments.numbers(clip) if numbers is None else numbers
    if stream != "flow":
        return segments.read(replace(clip, flow=None), numbers)
    if clip.flow is not None:
        return segments.read(clip, numbers)
    before = codec.read_at(clip.path, [number - 1 for number in numbers])
    frames = codec.read_at(clip.path, numbers)

    def field(previous: codec.CompressedFrame, frame: codec.CompressedFrame) -> np.ndarray:
        return dataset.flow(clip, frame.index, previous.rgb, frame.rgb)

    # TV-L1 takes about a second of one core per frame, and releases Python's lock meanwhile.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        flow = torch.from_numpy(np.stack(list(pool.map(field, before, frames))))
    return Sample(flow, flow.new_zeros(FRAMES, 3, *flow.shape[2:]), flow)


@torch.inference_mode()
def _mean_scores(
    networks: DMCNet, frames: Sample, size: int, height: int | None, eight_bit: bool = False
) -> Tensor:
    frames = transforms.to_height(frames.to(next(networks.parameters()).device), height)
    views = [transforms.center_crop(frames, (size, size))]
    if networks.stream in ALL_VIEWS:
        views = transforms.ten_views(frames, (size, size))
    normalised = (transforms.normalize(view, eight_bit=eight_bit) for view in views)
    means = [_logits(networks, view).float().mean(dim=0) for view in normalised]
    return torch.stack(means).mean(dim=0).cpu()


def _logits(networks: DMCNet, sample: Sample) -> Tensor:
    """Scores (N, classes) of a normalised sample, by whatever form the networks have."""
    if networks.stream == "cue":
        return networks(sample.motion, sample.residual)[0]
    return networks.logits(networks.field(sample))


def score_split(
    config: TrainConfig, split: str = "test", *, first: int | None = None, device: str = "auto"
) -> Path:
    """Score every clip of a split with a finished training; return the file of the scores.

    The next clip is decoded while the networks compute. A split is scored once. Flow is the data
    set's own, read or computed as for training.

    Args:
        config: the training.
        split: ``test`` or ``validation``.
        first: score only so many clips: the first of each class, then the second, and so on.
        device: as for :func:`machine.choose_device`.

    Raises:
        CheckpointError: ``config`` has not been trained.
        VideoError, DatasetError: a clip cannot be read, or is missing; the message names it.
    """
    count = "" if first is None else f"-{first}"
    code = files.code_digest("fast", "recognition")  # training's is in the folder's name
    target = config.folder / f"clips-{split}{count}-{code}.safetensors"
    with suppress(ScoreFileError):  # not there, or cut short
        read_scores(target)
        return target
    networks = fast.form(training.load_networks(config).to(machine.choose_device(device)))
    dataset = config.data.open()
    clips = dataset.clips(split)
    if first is not None:
        clips = _in_turn(clips)[:first]

    def read(clip: data.Clip) -> Sample:
        dataset.make(clip)
        return whole_frames(clip, config.stream, config.data.reading, dataset)

    crops = {"size": config.size, "height": config.data.scaled_to}
    scores = score_clips(networks, clips, dataset.classes, read, title=config.stream, **crops)
    write_scores(scores, target)
    return target


def score_clips(
    networks: DMCNet,
    clips: Sequence[data.Clip],
    classes: Sequence[str],
    read: Callable[[data.Clip], Sample],
    *,
    title: str,
    size: int,
    height: int | None = None,
    eight_bit: bool = False,
) -> StreamScores:
    """Score clips with a bar; the next one is read while the networks compute.

    Args:
        networks, size, height: as for :func:`recognise`.
        clips: their labels are indices into ``classes``.
        read: gives a clip's frames, whole (:func:`whole_frames`).
        title: of the bar.
        eight_bit: as for :func:`transforms.normalize`.
    """
    scores, reads = [], fast.read_ahead(map(read, clips))
    for frames in tqdm(reads, title, len(clips), unit="clip", leave=False):
        scores.append(_mean_scores(networks, frames, size, height, eight_bit))
    labels = np.array([clip.label for clip in clips], np.int64)
    names = tuple(clip.name for clip in clips)
    return StreamScores(torch.stack(scores).numpy(), labels, names, tuple(classes))


def _in_turn(clips: Sequence[data.Clip]) -> list[data.Clip]:
    """The first clip of each class, then the second of each, and so on."""
    by_label = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.label):
        by_label[clip.label].append(clip)
    return [clip for turn in zip_longest(*by_label.values()) for clip in turn if clip]


def compare_rules(
    score_files: Mapping[str, str | Path],
    methods: Mapping[str, Mapping[str, float]],
    right: Mapping[str, np.ndarray],
    names: Sequence[str],
) -> list[dict]:
    """The accuracy of each method by the protocol and by another rule, on the same clips.

    Args:
        score_files: stream -> file of :func:`score_split`, all of the same clips, two or more.
        methods: method -> weights of its streams; methods that need another stream are left out.
        right: method -> bool ``(clips,)``, which clips the other rule gets right.
        names: of those clips; the clips of the files are among them.

    Returns:
        Rows of :func:`evaluation.accuracy_rows` for the protocol, with ``other``, ``other_low``,
        ``other_high`` of the other rule, and ``gain``, ``gain_low``, ``gain_high`` of the protocol
        over it, clip by clip (:func:`evaluation.paired_difference`). Intervals are over
        ``clusters`` (``lists.clusters``).
    """
    scores, labels = read_together(score_files)
    numbers = {name: k for k, name in enumerate(names)}
    tested = read_scores(next(iter(score_files.values()))).names
    same, cluster = [numbers[name] for name in tested], lists.clusters(tested)
    methods = {name: w for name, w in methods.items() if w.keys() <= score_files.keys()}
    by_protocol = evaluation.called_right(scores, labels, methods)
    by_other = {name: right[name][same] for name in methods}
    rows = evaluation.accuracy_rows(by_protocol, cluster)
    for row, other in zip(rows, evaluation.accuracy_rows(by_other, cluster), strict=True):
        gain, low, high = evaluation.paired_difference(
            by_protocol[row["variant"]], by_other[row["variant"]], cluster
        )
        row |= {"other": other["accuracy"], "other_low": other["low"], "other_high": other["high"]}
        row |= {"gain": gain, "gain_low": low, "gain_high": high}
    return rows


def write_scores(scores: StreamScores, path: Path) -> None:
    """Write scores as safetensors: the numbers as tensors, names and classes in the note."""
    tensors = {name: torch.from_numpy(getattr(scores, name)) for name in ("scores", "labels")}
    note = {name: json.dumps(getattr(scores, name)) for name in ("names", "classes")}
    weights.write(tensors, path, note)


def read_scores(path: str | Path) -> StreamScores:
    """Read what :func:`write_scores` wrote; nothing in the file is run.

    Raises:
        ScoreFileError: the file is missing or damaged, or holds something else.
    """
    path = Path(path)
    try:
        tensors, note = weights.read(path, remedy="score the split again"), weights.read_note(path)
        scores, labels = (tensors[name].numpy() for name in ("scores", "labels"))
        names, classes = (tuple(json.loads(note[name])) for name in ("names", "classes"))
    except CheckpointError as problem:
        raise ScoreFileError(str(problem)) from None
    except KeyError as missing:
        raise ScoreFileError(
            f"{path} is no file of clip scores: it has no {missing}. Score the split again."
        ) from None
    return StreamScores(scores, labels, names, classes)


def read_together(
    score_files: Mapping[str, str | Path],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Read the files of several streams: stream -> scores for :func:`evaluation.fuse`, and labels.

    Raises:
        ScoreFileError: as :func:`read_scores`, or the files are of different clips.
    """
    streams = {stream: read_scores(path) for stream, path in score_files.items()}
    first, reference = next(iter(streams.items()))
    for stream, other in streams.items():
        same = (reference.names, reference.classes) == (other.names, other.classes)
        if not same or (reference.labels != other.labels).any():
            raise ScoreFileError(
                f"{score_files[stream]} is not about the same clips as {score_files[first]}: score "
                "both on one split of one data set."
            )
    return {stream: scores.scores for stream, scores in streams.items()}, reference.labels
