"""The paper's test protocol for our own networks: a clip's scores, a split's, and their files.

Section 4.2: 25 frames spread evenly over a clip. The streams of CoViAR are asked about ten views of
each, five crops and their mirror images; the cue and flow about the middle alone. A clip's score is
the mean of all its raw scores, and that is what streams are fused from (:func:`evaluation.fuse`).
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dmclib import codec, data, evaluation, fast, files, machine, training, transforms, weights
from dmclib.data import loader
from dmclib.errors import CheckpointError, ScoreFileError
from dmclib.training import TrainConfig
from dmclib.transforms import Sample

FRAMES = 25  # of a clip
ALL_VIEWS = ("rgb", "motion", "residual")  # the streams that are asked about ten views


@dataclass(frozen=True)
class StreamScores:
    """What one stream says of every clip of a split."""

    scores: np.ndarray  # float32 (clips, classes), raw, mean over a clip's frames and views
    labels: np.ndarray  # int64 (clips,)
    names: tuple[str, ...]  # the clips'
    classes: tuple[str, ...]


# --- one clip -----------------------------------------------------------------------------------


def recognise(
    path: str | Path,
    networks: training.Networks,
    *,
    size: int,
    height: int | None = None,
    reading: data.Reading = "plain",
) -> Tensor:
    """Score one clip by the protocol, from its file.

    Only the GOPs that hold the 25 frames are decoded, each up to its frame; the networks take one
    view of all of them at once.

    Args:
        path: MPEG-4 Part 2 of GOP 12 (``codec.transcode``), of two frames or more. In a clip with
            fewer than 25 a frame counts more than once.
        networks: trained, in evaluation mode, of any stream but flow, which no file holds. "rgb"
            looks at the pictures of the frames' I-frames.
        size: side of the crops that they were trained on, px.
        height: frames were scaled to this before cropping (``DataConfig.height``); None: they were
            as they are in the file.
        reading: of vectors and residual, as they were trained on (``DataConfig.reading``).

    Returns:
        float32 ``(classes,)``, raw, on the CPU.

    Raises:
        VideoError: the clip is missing, damaged or not as described above.
        DatasetError: it has one frame, or there is no such reading.
    """
    if networks.stream == "flow":
        raise ValueError("flow is in no compressed file: score_split takes it from the data set.")
    path = Path(path)
    clip = data.Clip(path.name, 0, "", path, path)
    return _mean_scores(networks, _whole_frames(clip, networks.stream, reading), size, height)


def fastest(networks: training.Networks) -> Callable[[Sample], Tensor]:
    """A call from a normalised sample to logits ``(N, classes)``; the generator is compiled."""
    if networks.stream != "cue":
        return lambda sample: networks.logits(networks.field(sample))
    generator = fast.generator(networks.generator)
    return lambda sample: networks.logits(generator(sample.motion, sample.residual))


def _whole_frames(
    clip: data.Clip, stream: str, reading: data.Reading, dataset: data.Dataset | None = None
) -> Sample:
    """The protocol's frames of a clip; flow, where it is the stream, is the data set's."""
    how = {"picture": "rgb" if stream == "rgb" else "residual", "reading": reading}
    segments = loader.Segments([clip], segments=FRAMES, train=False, **how)
    numbers = segments.numbers(clip)
    if stream != "flow":
        return segments.read(replace(clip, flow=None), numbers)
    if clip.flow is not None:
        return segments.read(clip, numbers)
    before = codec.read_at(clip.path, [number - 1 for number in numbers])
    frames = codec.read_at(clip.path, numbers)

    def field(previous: codec.CompressedFrame, frame: codec.CompressedFrame) -> np.ndarray:
        return dataset.flow(clip, frame.index, previous.rgb, frame.rgb)

    # TV-L1 takes about a second a frame of one core, and lets others run meanwhile.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        flow = torch.from_numpy(np.stack(list(pool.map(field, before, frames))))
    return Sample(flow, flow.new_zeros(FRAMES, 3, *flow.shape[2:]), flow)


@torch.inference_mode()
def _mean_scores(
    networks: training.Networks, frames: Sample, size: int, height: int | None
) -> Tensor:
    frames = frames.to(next(networks.parameters()).device)
    rows, columns = frames.motion.shape[-2:]
    if height is not None and rows != height:
        frames = transforms.resize(frames, (height, round(columns * height / rows)))
    network = fastest(networks)
    views = _views(frames, networks.stream, (size, size))
    total = [network(transforms.normalize(view)).float().mean(dim=0) for view in views]
    return torch.stack(total).mean(dim=0).cpu()


def _views(frames: Sample, stream: str, size: tuple[int, int]) -> Iterator[Sample]:
    if stream in ALL_VIEWS:
        yield from transforms.ten_views(frames, size)
    else:
        yield transforms.center_crop(frames, size)


# --- a split ------------------------------------------------------------------------------------


def score_split(
    config: TrainConfig, split: str = "test", *, first: int | None = None, device: str = "auto"
) -> Path:
    """Score every clip of a split with a finished training, and keep the scores in one file.

    The next clip is decoded while the networks have the last one. What has been scored is not
    scored again.

    Args:
        config: the training; of flow, the data set's own is taken or computed, as for training.
        split: ``test`` or ``validation``.
        first: only so many clips, classes taking turns, each from the front of its order.
        device: ``cpu``, ``cuda``, or ``auto``, which is a GPU where there is one.

    Returns:
        The file, for :func:`read_scores`.

    Raises:
        CheckpointError: ``config`` has not been trained.
        VideoError, DatasetError: a clip cannot be read, or is missing; the message names it.
    """
    many = "" if first is None else f"-{first}"
    code = files.code_digest("fast", "recognition")  # the training's own is in its folder's name
    target = config.folder / f"clips-{split}{many}-{code}.safetensors"
    if target.exists():
        return target
    networks = training.load_networks(config).to(machine.choose_device(device))
    dataset = config.data.open()
    clips = dataset.clips(split)
    if first is not None:
        clips = _in_turn(clips)[:first]

    def read(clip: data.Clip) -> Sample:
        dataset.make(clip)
        return _whole_frames(clip, config.stream, config.data.reading, dataset)

    scores = []
    with ThreadPoolExecutor(1, "decode") as ahead:
        coming = ahead.submit(read, clips[0])
        for following in tqdm([*clips[1:], None], desc=config.stream, unit="clip", leave=False):
            frames = coming.result()
            coming = following and ahead.submit(read, following)
            scores.append(_mean_scores(networks, frames, config.size, config.data.scaled_to))
    found = StreamScores(
        torch.stack(scores).numpy(),
        np.array([clip.label for clip in clips], np.int64),
        tuple(clip.name for clip in clips),
        tuple(dataset.classes),
    )
    write_scores(found, target)
    return target


def _in_turn(clips: Sequence[data.Clip]) -> list[data.Clip]:
    """The first clip of each class, then the second of each, and so on."""
    seen, turn = Counter(), {}
    for clip in clips:
        turn[clip.name] = (seen[clip.label], clip.label)
        seen[clip.label] += 1
    return sorted(clips, key=lambda clip: turn[clip.name])


def beside(
    kept: Mapping[str, str | Path],
    methods: Mapping[str, Mapping[str, float]],
    right: Mapping[str, np.ndarray],
    names: Sequence[str],
) -> list[dict]:
    """The protocol's accuracy of each method, and another rule's on the same clips.

    Args:
        kept: stream -> file of :func:`score_split`, all of the same clips, two or more.
        methods: method -> weights of its streams; one of a stream without a file is left out.
        right: method -> bool ``(clips,)``, which clips the other rule has right.
        names: those clips'; those of the files are among them.

    Returns:
        Rows as :func:`evaluation.accuracy_rows` has them of the protocol, with ``other``,
        ``other_low``, ``other_high`` of the other rule, and ``gain``, ``gain_low``, ``gain_high``
        of the protocol on it, clip by clip (:func:`evaluation.paired_difference`).
    """
    scores, labels = read_together(kept)
    place = {name: k for k, name in enumerate(names)}
    same = [place[name] for name in read_scores(next(iter(kept.values()))).names]
    methods = {name: w for name, w in methods.items() if w.keys() <= kept.keys()}
    by_protocol = evaluation.called_right(scores, labels, methods)
    by_other = {name: right[name][same] for name in methods}
    rows = evaluation.accuracy_rows(by_protocol)
    for row, other in zip(rows, evaluation.accuracy_rows(by_other), strict=True):
        gain, low, high = evaluation.paired_difference(
            by_protocol[row["variant"]], by_other[row["variant"]], np.arange(len(labels))
        )
        row |= {"other": other["accuracy"], "other_low": other["low"], "other_high": other["high"]}
        row |= {"gain": gain, "gain_low": low, "gain_high": high}
    return rows


# --- files --------------------------------------------------------------------------------------


def write_scores(found: StreamScores, path: Path) -> None:
    """Write scores as safetensors: the numbers as tensors, names and classes in the note."""
    tensors = {
        "scores": torch.from_numpy(found.scores),
        "labels": torch.from_numpy(found.labels),
    }
    note = {"names": json.dumps(found.names), "classes": json.dumps(found.classes)}
    weights.write(tensors, path, note)


def read_scores(path: str | Path) -> StreamScores:
    """Read what :func:`write_scores` wrote; nothing in the file is run.

    Raises:
        ScoreFileError: the file is missing or damaged, or its parts do not agree.
    """
    path = Path(path)
    try:
        tensors = weights.read(path, remedy="score the split again")
        note = weights.read_note(path)
        scores, labels = (tensors[name].numpy() for name in ("scores", "labels"))
        names, classes = (json.loads(note[part]) for part in ("names", "classes"))
    except CheckpointError as problem:
        raise ScoreFileError(str(problem)) from None
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise _not_ours(path, f"{type(problem).__name__}: {problem}") from None
    for words in (names, classes):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise _not_ours(path, "its names are no list of words")
    if scores.dtype != np.float32 or scores.shape != (len(names), len(classes)) or not scores.size:
        found = f"{scores.dtype} {scores.shape} for {len(names)} clips, {len(classes)} classes"
        raise _not_ours(path, f"its scores are {found}")
    if not np.isfinite(scores).all():
        raise _not_ours(path, "its scores are not finite")
    if labels.dtype != np.int64 or labels.shape != (len(names),):
        raise _not_ours(path, f"its labels are {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise _not_ours(path, f"labels {labels.min()} to {labels.max()}, {len(classes)} classes")
    return StreamScores(scores, labels, tuple(names), tuple(classes))


def read_together(kept: Mapping[str, str | Path]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Read several streams' files of one split, to be fused.

    Args:
        kept: stream -> file.

    Returns:
        Stream -> scores, as :func:`evaluation.fuse` takes them, and the labels.

    Raises:
        ScoreFileError: as :func:`read_scores`, or the files are not about the same clips.
    """
    found = {stream: read_scores(path) for stream, path in kept.items()}
    first = next(iter(found))
    for stream, other in found.items():
        same = (found[first].names, found[first].classes) == (other.names, other.classes)
        if not same or (found[first].labels != other.labels).any():
            raise ScoreFileError(
                f"{kept[stream]} is not about the same clips as {kept[first]}: score both on "
                "one split of one data set."
            )
    return {stream: scores.scores for stream, scores in found.items()}, found[first].labels


def _not_ours(path: Path, found: str) -> ScoreFileError:
    return ScoreFileError(f"{path} is no file of clip scores: {found}. Score the split again.")
