"""The tables of section 4.3: accuracies of finished trainings, and which differences are real."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dmclib import codec, evaluation, training
from dmclib.data import DataConfig, Dataset, lists
from dmclib.experiment.trainings import METADATA, MOTION, RESIDUAL, SINGLE_FRAME
from dmclib.training import TrainConfig

Run = TrainConfig | Sequence[TrainConfig]  # a training, or one per split with pooled test clips

# Late fusion as in Table 4: CoViAR's streams with the authors' weights. Every other stream has 1.
COVIAR = {SINGLE_FRAME: 2.0, MOTION: 1.0, RESIDUAL: 1.0}

# A true difference of 2.8 standard errors is found at the 5 % level in 80 % of such experiments
# (Gelman and Hill, Data Analysis Using Regression and Multilevel/Hierarchical Models, 2007, 20.2).
DETECTABLE_ERRORS = 2.8
HALF_WIDTH_ERRORS = 1.96  # standard errors in half of a 95 % interval


def pooled(runs: Run) -> training.Scores:
    """The test scores of a training, or of one training per split, one after the other.

    The numbers of clips continue from split to split; a video that two splits test counts twice.
    """
    before, parts = 0, []
    for config in each_split(runs):
        scores = training.load_scores(config)
        parts.append({**vars(scores), "clip": scores.clip + before})
        before += int(scores.clip.max()) + 1
    return training.Scores(**{name: torch.cat([p[name] for p in parts]) for name in parts[0]})


def each_split(runs: Run) -> Sequence[TrainConfig]:
    """The trainings of a run, one per split."""
    return [runs] if isinstance(runs, TrainConfig) else runs


def clusters(runs: Run) -> np.ndarray:
    """The scene that each test clip was cut from (``lists.scene``), a number each, int (clips,).

    Intervals draw these as a whole (``lists.clusters``). The clips are numbered as :func:`pooled`
    does; a scene is the same in all splits.

    Raises:
        DatasetError: there is one scene, so that there is no interval.
    """
    tests = (config.data.open().clips("test") for config in each_split(runs))
    return lists.clusters([clip.name for clips in tests for clip in clips])


def frames_right(runs: Run) -> tuple[np.ndarray, np.ndarray]:
    """Which test frames a training gets right, bool (n,), and each frame's clip, int (n,)."""
    scores = pooled(runs)
    return scores.right.numpy(), scores.clip.numpy()


def clip_scores(runs: Run) -> tuple[np.ndarray, np.ndarray]:
    """The mean scores of each test clip's frames, float (clips, classes), and labels (clips,)."""
    scores = pooled(runs)
    clips, labels = scores.clip.numpy(), scores.label.numpy()
    first = np.unique(clips, return_index=True)[1]
    return evaluation.video_scores(scores.logits.numpy(), clips), labels[first]


def clips_right(runs: Run) -> np.ndarray:
    """Which test clips the mean of their frames' scores gets right, bool (clips,)."""
    means, labels = clip_scores(runs)
    return means.argmax(1) == labels


def table(runs: Mapping[str, Sequence[Run]]) -> list[dict]:
    """One row per variant: frame and clip accuracy over seeds, each with its interval.

    Args:
        runs: variant -> its finished trainings, one per seed, in the same order for every variant;
            if splits are pooled, per seed a sequence of trainings, one per split.

    Returns:
        Rows with ``variant``; ``accuracy``, ``low``, ``high``, ``n`` of single frames;
        ``clip_accuracy``, ``clip_low``, ``clip_high``, ``clips`` of whole clips; ``clusters``, how
        many persons, groups, sequences or films these are of; ``seeds``; and ``epe_px``, the mean
        end-point error, against flow, of what the classifier saw. Intervals are 95 % and from a
        bootstrap over clusters (:func:`clusters`) and seeds.
    """
    if not runs:
        return []
    rows, cluster = [], clusters(next(iter(runs.values()))[0])  # all are tested on the same clips
    for variant, configs in runs.items():
        right = [frames_right(config) for config in configs]
        frames, clip = np.stack([r for r, _ in right]), right[0][1]
        whole = np.stack([clips_right(config) for config in configs])
        errors = torch.stack([pooled(config).epe_px for config in configs]).mean().item()
        intervals = (
            evaluation.clustered_interval(frames, cluster[clip]),
            evaluation.clustered_interval(whole, cluster),
        )
        row = _row(variant, cluster, *zip((frames, whole), intervals, strict=True))
        rows.append(row | {"seeds": len(configs), "epe_px": None if np.isnan(errors) else errors})
    return rows


def _row(
    variant: str, cluster: np.ndarray, *accuracies: tuple[np.ndarray, tuple[float, float]]
) -> dict:
    """A row of :func:`table`: right answers and their interval, of frames and then of clips."""
    row = {"variant": variant}
    for (right, interval), prefix, count in zip(
        accuracies, ("", "clip_"), ("n", "clips"), strict=True
    ):
        columns = (f"{prefix}accuracy", f"{prefix}low", f"{prefix}high", count)
        values = (float(right.mean()), *interval, right.shape[-1])
        row |= dict(zip(columns, values, strict=True))
    return row | {"clusters": len(np.unique(cluster))}


def metadata(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    """Features of a split's files, without their pictures: (clips, 6), and the labels (clips,).

    Width, height, frames per second, frames, bytes and bytes per frame of the published file, or of
    the prepared clip. A classifier that does well on these knows how a data set was made, not what
    it shows.
    """
    rows, clips = [], dataset.clips(split)
    for clip in clips:
        if clip.source == clip.path:
            dataset.make(clip)
        info, size = codec.probe(clip.source), clip.source.stat().st_size
        rows.append([info.width, info.height, info.fps, info.frames, size, size / info.frames])
    return torch.tensor(rows, dtype=torch.float32), torch.tensor([clip.label for clip in clips])


def metadata_row(*splits: DataConfig) -> dict:
    """The row of a linear classifier that knows only the files' metadata; splits are pooled."""
    right, names = [], []
    for clips in splits:
        dataset = clips.open()
        parts = [metadata(dataset, split) for split in ("train", "test")]
        right.append(evaluation.metadata_baseline(*(x.numpy() for part in parts for x in part)))
        names += [clip.name for clip in dataset.clips("test")]
    right, cluster = np.concatenate(right), lists.clusters(names)
    share = right, evaluation.share_interval(right, cluster)
    return _row(METADATA, cluster, share, share) | {"seeds": 1, "epe_px": None}


def differences(runs: Mapping[str, Sequence[Run]], pairs: Sequence[tuple[str, str]]) -> list[dict]:
    """The gain in frame accuracy of the first of each pair over the second, with intervals.

    ``says`` is "no difference seen" if the 95 % interval, over clusters and seeds as for
    :func:`table`, contains zero. ``detectable`` is the smallest true difference that so many
    clusters and seeds would show with 80 % power: 2.8 standard errors; None where every resample
    gives the same difference. ``clips`` and ``clusters`` are how many there were.
    """
    rows, cluster = [], clusters(next(iter(runs.values()))[0])
    for better, worse in pairs:
        right = [[frames_right(config) for config in runs[name]] for name in (better, worse)]
        a, b = (np.stack([r for r, _ in side]) for side in right)
        clip = right[0][0][1]
        counted = {"clips": len(np.unique(clip)), "clusters": len(np.unique(cluster))}
        rows.append(_difference(better, worse, a, b, cluster[clip]) | counted)
    return rows


def together(parts: Sequence[Sequence[dict]]) -> list[dict]:
    """Rows of :func:`differences` on several data sets that share no clip, as one row a pair.

    Each data set weighs by the inverse of its variance, from its interval (fixed effect; Borenstein
    et al., Introduction to Meta-Analysis, 2009, chapter 11); clips and clusters are added up. Pairs
    that a part does not have, or of which its interval has no width, are left out.
    """
    rows, found = [], []
    for part in parts:
        found.append({(row["a"], row["b"]): row for row in part if row["low"] < row["high"]})
    for better, worse in (pair for pair in found[0] if all(pair in part for part in found)):
        same = [part[better, worse] for part in found]
        errors = np.array([(row["high"] - row["low"]) / 2 / HALF_WIDTH_ERRORS for row in same])
        weights = errors**-2 / (errors**-2).sum()
        gain = float(weights @ [row["a - b"] for row in same])
        half = HALF_WIDTH_ERRORS * float((errors**-2).sum() ** -0.5)
        row = _interval(better, worse, gain, gain - half, gain + half)
        rows.append(row | {key: sum(row[key] for row in same) for key in ("clips", "clusters")})
    return rows


def fused(runs: Mapping[str, Sequence[Run]], added: Sequence[str]) -> tuple[list[dict], list[dict]]:
    """Late fusion as in Table 4: CoViAR's three streams, and with one stream more.

    Args:
        runs: variant -> finished trainings, one per seed, as for :func:`table`; the decoded frame,
            which one training may see, is fused with every seed of the others.
        added: the variants that are added to CoViAR's streams, one at a time.

    Returns:
        Rows with ``variant``, ``accuracy``, ``low``, ``high`` of whole clips, ``n`` clips,
        ``clusters`` and ``seeds``; and, paired, each fusion against CoViAR's three streams, as
        :func:`differences` gives them, with ``n``, ``clips``, ``seeds`` and ``of``, the words
        "whole clips".
    """
    seeds = len(runs[MOTION])
    coviar = "CoViAR: frame + vectors + residual"
    fusions = {coviar: COVIAR} | {f"CoViAR + {name}": COVIAR | {name: 1.0} for name in added}
    right = []
    for seed in range(seeds):
        of_seed = {n: runs[n][min(seed, len(runs[n]) - 1)] for n in (*COVIAR, *added)}
        scores = {name: clip_scores(run)[0] for name, run in of_seed.items()}
        labels = clip_scores(of_seed[MOTION])[1]
        right.append(evaluation.called_right(scores, labels, fusions))
    answers = {name: np.stack([of_seed[name] for of_seed in right]) for name in fusions}
    cluster = clusters(runs[MOTION][0])
    counted = {"n": len(cluster), "clusters": len(np.unique(cluster)), "seeds": seeds}
    rows = []
    for name, own in answers.items():
        low, high = evaluation.clustered_interval(own, cluster)
        row = {"variant": name, "accuracy": float(own.mean()), "low": low, "high": high}
        rows.append(row | counted)
    counted |= {"clips": len(cluster), "of": "whole clips"}
    pairs = [
        _difference(name, coviar, own, answers[coviar], cluster) | counted
        for name, own in answers.items()
    ]
    return rows, pairs[1:]


def _difference(better: str, worse: str, a: np.ndarray, b: np.ndarray, cluster: np.ndarray) -> dict:
    """A row of :func:`differences`: the gain of ``a`` over ``b``, bool (seeds, n); cluster (n,)."""
    return _interval(better, worse, *evaluation.paired_difference(a, b, cluster))


def _interval(better: str, worse: str, gain: float, low: float, high: float) -> dict:
    """A row of :func:`differences` but for its counts."""
    says = "no difference seen" if low <= 0 <= high else f"{better if gain > 0 else worse} wins"
    detectable = DETECTABLE_ERRORS * (high - low) / 2 / HALF_WIDTH_ERRORS or None
    row = {"a": better, "b": worse, "a - b": gain, "low": low, "high": high}
    return row | {"says": says, "detectable": detectable}
