"""From segment scores to an accuracy with an interval.

A network scores single frames; scores of a clip are averaged, streams are added with weights, and
the highest class is compared with the label (paper section 4.2). Scores are raw, before softmax,
throughout: that is what the authors average and add.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import binomtest


def video_scores(scores: np.ndarray, clip_index: np.ndarray) -> np.ndarray:
    """Average the raw scores of each clip's segments.

    Args:
        scores: float, shape ``(segments, classes)``.
        clip_index: int, shape ``(segments,)``, the clip of each row, from 0 without gaps.

    Returns:
        float32, shape ``(videos, classes)``; row v is the mean over the rows with index v.
    """
    segments = np.bincount(clip_index)
    if not segments.all():
        raise ValueError(f"Clip {int(segments.argmin())} has no segment: number clips from 0.")
    total = np.zeros((len(segments), scores.shape[1]))
    np.add.at(total, clip_index, scores)
    return (total / segments[:, None]).astype(np.float32)


def fuse(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Add the streams' scores, each times its weight (late fusion, paper section 4.2).

    Args:
        scores: stream name -> float ``(videos, classes)``, same videos in the same order.
        weights: stream name -> weight; the authors use iframe 2, mv 1, residual 1, dmc or flow 1.

    Returns:
        float, shape ``(videos, classes)``.

    Raises:
        ValueError: if the names or the shapes do not agree.
    """
    if not scores or scores.keys() != weights.keys():
        raise ValueError(f"Fusion of {sorted(scores)} needs weights for these, got {dict(weights)}")
    shapes = {name: s.shape for name, s in scores.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"Streams differ in videos or classes: {shapes}")
    return sum(weights[name] * s for name, s in scores.items())


def top1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows of ``(videos, classes)`` whose highest score is the label's, 0 to 1."""
    return float((scores.argmax(axis=1) == labels).mean())


def called_right(
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    methods: Mapping[str, Mapping[str, float]],
) -> dict[str, np.ndarray]:
    """Which videos each method has right: method -> bool ``(videos,)``.

    Args:
        scores: stream name -> float ``(videos, classes)``, same videos in the same order.
        labels: int ``(videos,)``.
        methods: method -> the weights of the streams that it fuses (:func:`fuse`).
    """
    fused = {
        method: fuse({stream: scores[stream] for stream in weights}, weights)
        for method, weights in methods.items()
    }
    return {method: own.argmax(axis=1) == labels for method, own in fused.items()}


def accuracy_rows(right: Mapping[str, np.ndarray]) -> list[dict]:
    """A row a method: ``variant``, ``accuracy``, Wilson's ``low`` and ``high``, ``n``; 0 to 1."""
    rows = []
    for method, own in right.items():
        low, high = wilson_interval(int(own.sum()), len(own))
        row = {"variant": method, "accuracy": float(own.mean()), "low": low, "high": high}
        rows.append(row | {"n": len(own)})
    return rows


def wilson_interval(correct: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of an accuracy of ``correct`` out of ``n`` *independent* cases, both 0 to 1.

    Wilson's score interval: unlike accuracy +- 2 standard errors, it stays within 0..1 and has
    width also at 0 and 1. For several frames of a clip use :func:`clustered_interval`.
    """
    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def clustered_interval(
    correct: np.ndarray,
    clip_index: np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Interval of a frame accuracy, when frames come from clips and networks from seeds.

    Frames of one clip share actor, view and action: a hundred of them are not a hundred
    experiments, and Wilson's interval over frames would be far too narrow. So whole clips are drawn
    with replacement (a bootstrap, percentiles), and whole seeds too where there are several: the
    interval is about other clips and another training run. With all frames right it has no width.

    Args:
        correct: bool or 0/1, shape ``(frames,)`` or ``(seeds, frames)``.
        clip_index: int, shape ``(frames,)``, which clip a frame comes from; any numbers.
        confidence: share of resamples inside.
        seed: of the resampling.
        resamples: how many.

    Returns:
        (low, high) of the mean over seeds and frames, 0 to 1.
    """
    return _bootstrap(correct, clip_index, confidence, seed, resamples)


def paired_difference(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    clip_index: np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float, float]:
    """How much better ``a`` is than ``b`` on the same frames: (difference, low, high), -1 to 1.

    Both sides see the same resampled clips (and seeds, matched by row), so clips that are hard for
    both cancel: the interval is narrower than two separate ones suggest. The data support a
    difference when 0 lies outside. Arguments as in :func:`clustered_interval`.
    """
    correct_a, correct_b = np.asarray(correct_a, float), np.asarray(correct_b, float)
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"Not the same frames: {correct_a.shape} and {correct_b.shape}")
    gain = correct_a - correct_b
    return float(gain.mean()), *_bootstrap(gain, clip_index, confidence, seed, resamples)


def _bootstrap(
    values: np.ndarray, clip_index: np.ndarray, confidence: float, seed: int, resamples: int
) -> tuple[float, float]:
    """Percentile interval of the mean of ``values`` over redrawn clips and seeds."""
    values = np.atleast_2d(np.asarray(values, float))
    names, clip = np.unique(clip_index, return_inverse=True)
    clips, seeds = len(names), len(values)
    if values.shape[1] != len(clip):
        raise ValueError(f"{values.shape[1]} frames, but {len(clip)} clip numbers")
    if clips < 2:
        raise ValueError("An interval over clips needs at least two of them")
    frames = np.bincount(clip)
    sums = np.stack([np.bincount(clip, weights=row) for row in values])  # (seeds, clips)

    takes, seed_takes = _draws(clips, seeds, resamples, seed)
    means = np.einsum("rs,sc,rc->r", seed_takes, sums, takes, optimize=True)
    means = means / (seeds * (takes @ frames))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@lru_cache(maxsize=4)  # many methods are compared on the same clips, and drawing takes the time
def _draws(clips: int, seeds: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each resample takes each clip, (resamples, clips), and each seed."""
    # Drawing n of n with replacement is drawing how often each is taken.
    random = np.random.default_rng(seed)
    takes = random.multinomial(clips, np.full(clips, 1 / clips), size=resamples)
    return takes, random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of ``a`` against ``b`` on the same cases."""

    only_a: int  # cases that a alone has right
    only_b: int  # cases that b alone has right
    p: float  # two-sided, exact


def mcnemar(
    correct_a: np.ndarray, correct_b: np.ndarray, clip_index: np.ndarray | None = None
) -> McNemar:
    """Could ``a`` and ``b`` be equally good? Only cases count that one has right and one wrong.

    Were they, each of these could as well have fallen to the other side: ``p`` is the exact share
    of such throws that are at least as uneven as what was found, the two-sided binomial test.
    Cases of one clip (frames of it, or one video on several test lists) do not fall apart from
    each other: with ``clip_index`` a clip's cases change sides together, and a clip on which ``a``
    and ``b`` win equally often says nothing.

    Args:
        correct_a: bool or 0/1, shape ``(cases,)``.
        correct_b: the same cases, same shape.
        clip_index: int, shape ``(cases,)``, which clip a case comes from; None: a clip each.

    Raises:
        ValueError: if the shapes differ.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    clip = (
        np.arange(len(a)) if clip_index is None else np.unique(clip_index, return_inverse=True)[1]
    )
    if not a.shape == b.shape == clip.shape:
        raise ValueError(f"Not the same cases: {a.shape}, {b.shape} and {clip.shape}")
    gain = np.bincount(clip, weights=a.astype(int) - b.astype(int)).astype(int)
    sizes = np.abs(gain[gain != 0])

    # The distribution of the sum of +-sizes, a clip at a time; index k stands for k - sizes.sum().
    # Where all sizes are 1 it is the binomial one; SciPy has no test for the others.
    chance = np.ones(1)
    for size in sizes:
        chance = np.convolve(chance, np.bincount([0, 2 * size]) / 2)
    sums = np.abs(np.arange(len(chance)) - sizes.sum())
    p = float(chance[sums >= abs(gain.sum())].sum())
    return McNemar(int((a & ~b).sum()), int((b & ~a).sum()), min(p, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of several tests, raised so that one in twenty *families* errs at 0.05.

    Holm's step-down method: valid whether or not the tests depend on each other.
    """
    count = len(p_values)
    raised, least = [0.0] * count, 0.0
    for place, k in enumerate(sorted(range(count), key=lambda k: p_values[k])):
        least = max(least, min((count - place) * p_values[k], 1.0))
        raised[k] = least
    return raised


def metadata_baseline(
    features_train: np.ndarray,
    labels_train: np.ndarray,
    features_test: np.ndarray,
    labels_test: np.ndarray,
) -> np.ndarray:
    """The floor: which test clips a linear classifier of file metadata has right.

    Multinomial logistic regression on standardised features, with a Gaussian prior of width 1 on
    the weights, solved to convergence; no randomness.

    Args:
        features_train: float ``(n_train, features)``, e.g. file size, duration, bytes per frame.
        labels_train: int ``(n_train,)``, from 0.
        features_test: float ``(n_test, features)``.
        labels_test: int ``(n_test,)``.

    Returns:
        bool ``(n_test,)``, True where the highest class is the label.
    """
    # Not above: scikit-learn takes seconds to import, and nothing else here needs it.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000))
    return model.fit(features_train, labels_train).predict(features_test) == labels_test
