"""From segment scores to an accuracy with an interval (paper, 4.2).

Scores are raw, before softmax, throughout: that is what the authors average and add.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import binomtest

_CONFIDENCE = 0.95  # of every interval


def video_scores(scores: np.ndarray, clip_index: np.ndarray) -> np.ndarray:
    """Average the raw scores ``(segments, classes)`` of each clip: float32 ``(videos, classes)``.

    ``clip_index``, int ``(segments,)``, is the clip of each row, from 0 without gaps.
    """
    segments = np.bincount(clip_index)
    if not segments.all():
        raise ValueError(f"Clip {int(segments.argmin())} has no segment: number clips from 0.")
    total = np.zeros((len(segments), scores.shape[1]))
    np.add.at(total, clip_index, scores)
    return (total / segments[:, None]).astype(np.float32)


def fuse(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Add the streams' scores, each times its weight (late fusion): float ``(videos, classes)``.

    Args:
        scores: stream name -> float ``(videos, classes)``, same videos in the same order.
        weights: stream name -> weight; the authors use iframe 2, mv 1, residual 1, dmc or flow 1.

    Raises:
        ValueError: the names or the shapes do not agree.
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

    Scores are as for :func:`fuse`, labels int ``(videos,)``; ``methods`` maps each method to the
    weights of the streams that it fuses.
    """
    right = {}
    for method, weights in methods.items():
        fused = fuse({stream: scores[stream] for stream in weights}, weights)
        right[method] = fused.argmax(axis=1) == labels
    return right


def accuracy_rows(right: Mapping[str, np.ndarray], cluster: np.ndarray | None = None) -> list[dict]:
    """One row per method: ``variant``, ``accuracy`` with ``low`` and ``high``, ``n``.

    With ``cluster``, the person, group or film of each video, int ``(videos,)``, also
    ``clusters``, how many there are; the interval is :func:`share_interval`'s.
    """
    rows = []
    for method, own in right.items():
        low, high = share_interval(own, np.arange(len(own)) if cluster is None else cluster)
        row = {"variant": method, "accuracy": float(own.mean()), "low": low, "high": high}
        counted = {} if cluster is None else {"clusters": len(np.unique(cluster))}
        rows.append(row | {"n": len(own)} | counted)
    return rows


def share_interval(right: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """95 % interval of an accuracy, 0 to 1, for videos of one training.

    Args:
        right: bool ``(videos,)``.
        cluster: int ``(videos,)``; videos of one number depend on each other.

    Returns:
        Wilson's interval where each video is a cluster of its own, else that of
        :func:`clustered_interval`.
    """
    if len(np.unique(cluster)) == len(right):
        return wilson_interval(int(right.sum()), len(right))
    return clustered_interval(right, cluster)


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % interval of an accuracy of ``correct`` out of ``n`` *independent* cases, 0 to 1.

    Wilson's score interval: unlike accuracy +- 2 standard errors, it stays within 0..1 and has
    width also at 0 and 1. For several frames of a clip use :func:`clustered_interval`.
    """
    interval = binomtest(correct, n).proportion_ci(_CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def clustered_interval(
    correct: np.ndarray, clip_index: np.ndarray, *, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """95 % interval of a frame accuracy, when frames come from clips and networks from seeds.

    Frames of one clip share actor, view and action, so Wilson's interval over frames would be far
    too narrow. Here whole clips are drawn with replacement (a bootstrap, percentiles), and whole
    seeds too where there are several: the interval is about other clips and another training run.
    Clips of one person, group, sequence or film share as much, so give these in place of clips
    where there are some. With ten of them or fewer a bootstrap's intervals are somewhat too narrow
    (Cameron, Gelbach and Miller, 2008). With all frames right it has no width.

    Args:
        correct: bool or 0/1, shape ``(frames,)`` or ``(seeds, frames)``.
        clip_index: int, shape ``(frames,)``, which clip, or person, group, sequence or film, a
            frame comes from; any numbers.
        seed: of the resampling.
        resamples: how many.

    Returns:
        (low, high) of the mean over seeds and frames, 0 to 1.

    Raises:
        ValueError: the shapes do not agree, or there are fewer than two clips.
    """
    correct = np.asarray(correct, float)
    _, low, high = ratio_interval(
        correct, np.ones(correct.shape[-1]), clip_index, seed=seed, resamples=resamples
    )
    return low, high


def ratio_interval(
    sums_a: np.ndarray,
    sums_b: np.ndarray,
    clip_index: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float, float]:
    """A ratio of two sums over the same frames, with its 95 % interval: (ratio, low, high).

    Two errors make a ratio of means: below 1, ``a`` is smaller. A sum over pixels and how many they
    were make a mean over pixels. Both sums see the same resampled clips (and seeds, matched by
    row), as in :func:`paired_difference`, so the interval is exactly 1 to 1 if they are equal.

    Args:
        sums_a, sums_b: float, ``(frames,)`` or ``(seeds, frames)``, not negative below the line;
            what one of them has of a frame alone, it has for all seeds of the other.
        clip_index, seed, resamples: as for :func:`clustered_interval`.

    Raises:
        ValueError: the shapes do not agree, there are fewer than two clips, or ``sums_b`` has none
            but zeros. Resamples whose ``sums_b`` is zero are left out.
    """
    pair = (np.atleast_2d(np.asarray(sums, float)) for sums in (sums_a, sums_b))
    a, b = np.broadcast_arrays(*pair)
    names, clip = np.unique(clip_index, return_inverse=True)
    clips, seeds = len(names), len(a)
    if a.shape[1] != len(clip):
        raise ValueError(f"{a.shape[1]} frames, but {len(clip)} clip numbers")
    if clips < 2:
        raise ValueError("An interval over clips needs at least two of them")
    if not b.sum() > 0:
        raise ValueError("A ratio to nothing: the sums below the line are zero")

    takes, seed_takes = _draws(clips, seeds, resamples, seed)

    def resampled(values):
        of_clips = np.stack([np.bincount(clip, weights=row) for row in values])  # (seeds, clips)
        return np.einsum("rs,sc,rc->r", seed_takes, of_clips, takes, optimize=True)

    above, below = resampled(a), resampled(b)
    ratios = above[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(a.sum() / b.sum()), float(low), float(high)


def paired_difference(
    correct_a: np.ndarray, correct_b: np.ndarray, clip_index: np.ndarray
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
    return float(gain.mean()), *clustered_interval(gain, clip_index)


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

    If they were, each of these could as well have gone to the other side. ``p`` is the exact share
    of all such assignments that are at least as uneven as the one observed: the two-sided binomial
    test. Cases of one clip (its frames, or one video on several test lists) depend on each other:
    with ``clip_index`` all cases of a clip change sides together, and a clip on which ``a`` and
    ``b`` win equally often does not count.

    Args:
        correct_a, correct_b: bool or 0/1, ``(cases,)``.
        clip_index: int, ``(cases,)``, which clip a case comes from; None: each has its own.

    Raises:
        ValueError: the shapes differ.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    clip = np.arange(len(a)) if clip_index is None else clip_index
    clip = np.unique(clip, return_inverse=True)[1]
    if not a.shape == b.shape == clip.shape:
        raise ValueError(f"Not the same cases: {a.shape}, {b.shape} and {clip.shape}")
    gain = np.bincount(clip, weights=a.astype(int) - b.astype(int)).astype(int)
    sizes = np.abs(gain[gain != 0])

    # The distribution of the sum of +-sizes, clip by clip; index k stands for k - sizes.sum().
    # Where all sizes are 1 this is the binomial test; SciPy has none for other sizes.
    chance = np.ones(1)
    for size in sizes:
        chance = np.convolve(chance, np.bincount([0, 2 * size]) / 2)
    sums = np.abs(np.arange(len(chance)) - sizes.sum())
    p = float(chance[sums >= abs(gain.sum())].sum())
    return McNemar(int((a & ~b).sum()), int((b & ~a).sum()), min(p, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of several tests, so that one *family* in twenty errs at 0.05.

    Holm's step-down method: valid whether or not the tests depend on each other.
    """
    p = np.asarray(p_values, float)
    order, raised = np.argsort(p, kind="stable"), np.empty(len(p))
    steps = np.minimum(np.arange(len(p), 0, -1) * p[order], 1.0)
    raised[order] = np.maximum.accumulate(steps)
    return raised.tolist()


def metadata_baseline(
    features_train: np.ndarray,
    labels_train: np.ndarray,
    features_test: np.ndarray,
    labels_test: np.ndarray,
) -> np.ndarray:
    """The floor: the test clips that a linear classifier of metadata has right, bool ``(n_test,)``.

    Multinomial logistic regression on standardised features, with a Gaussian prior of width 1 on
    the weights, solved to convergence; no randomness. Features are float ``(n, features)``, e.g.
    file size, duration, bytes per frame; labels int ``(n,)``.
    """
    # Not above: scikit-learn takes seconds to import, and nothing else here needs it.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000))
    return model.fit(features_train, labels_train).predict(features_test) == labels_test
