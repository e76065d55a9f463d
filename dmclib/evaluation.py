"""From segment scores to an accuracy with an interval.

A network scores single frames; scores of a clip are averaged, streams are added with weights, and
the highest class is compared with the label (paper section 4.2). Scores are raw, before softmax,
throughout: that is what the authors average and add.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F

from dmclib import errors

LARGEST_SCORE_FILE = 64 * 2**20  # bytes unpacked; the largest released one has 3.6 MB


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


def wilson_interval(correct: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of an accuracy of ``correct`` out of ``n`` *independent* cases, both 0 to 1.

    Wilson's score interval: unlike accuracy +- 2 standard errors, it stays within 0..1 and has
    width also at 0 and 1. For several frames of a clip use :func:`clustered_interval`.
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"{correct} correct of {n} is no accuracy")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / n
    middle = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


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

    # Drawing n of n with replacement is drawing how often each is taken.
    random = np.random.default_rng(seed)
    takes = random.multinomial(clips, np.full(clips, 1 / clips), size=resamples)
    seed_takes = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    means = np.einsum("rs,sc,rc->r", seed_takes, sums, takes, optimize=True)
    means = means / (seeds * (takes @ frames))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def metadata_baseline(
    features_train: np.ndarray,
    labels_train: np.ndarray,
    features_test: np.ndarray,
    labels_test: np.ndarray,
) -> np.ndarray:
    """The floor: what a linear classifier makes of file metadata, or any few numbers a clip.

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
    mean, std = features_train.mean(axis=0), features_train.std(axis=0)
    std = np.where(std > 0, std, 1)  # a feature that never varies says nothing; keep it at zero
    train = torch.from_numpy((features_train - mean) / std).double()
    test = torch.from_numpy((features_test - mean) / std).double()
    target = torch.as_tensor(labels_train, dtype=torch.long)

    classes = int(target.max()) + 1
    weight = torch.zeros(train.shape[1], classes, dtype=torch.double, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(train @ weight + bias, target)
        value = value + weight.square().sum() / (2 * len(train))
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return (test @ weight + bias).argmax(dim=1).numpy() == labels_test


@dataclass(frozen=True)
class ReleasedScores:
    """The authors' scores of one stream on one split's test videos."""

    scores: np.ndarray  # float32 (videos, classes), raw, averaged over a video's segments
    labels: np.ndarray  # int64 (videos,)
    names: tuple[str, ...]  # the authors' paths; spelled differently in some files, order agrees


def load_released_scores(path: str | Path) -> ReleasedScores:
    """Read a score file that the authors released, without running anything in it.

    The file is an ``.npz`` with labels, names, and a pickled object array of one row a video:
    scores ``(1, classes)``, label and, in the adversarial runs, the discriminator's output, which
    is not read. A pickle may call any function; here the four names that these files need stand for
    passive look-alikes, and any other name is refused.

    Raises:
        ScoreFileError: if the file is missing, damaged, too large, asks for any other name, or its
            parts do not agree.
    """
    path = Path(path)
    if not path.is_file():
        raise errors.ScoreFileError(
            f"{path}: no such score file. Point to a checkout of facebookresearch/dmc-net's exp_my."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > LARGEST_SCORE_FILE:
                raise _Refused(f"it unpacks to {size} bytes, more than {LARGEST_SCORE_FILE}")
            parts = {part: archive.read(f"{part}.npy") for part in ("scores", "labels", "names")}
        return _assemble(**{part: _read_npy(part, content) for part, content in parts.items()})
    except _Refused as error:
        reason = str(error)
    # Damaged bytes may surface as nearly anything in zipfile, numpy's header reader and pickle.
    except Exception as error:
        reason = f"it is damaged ({type(error).__name__}: {error})"
    raise errors.ScoreFileError(
        f"{path}: not one of the authors' score files: {reason}. Fetch it again from "
        "facebookresearch/dmc-net, and open no other file this way."
    )


class _Refused(Exception):
    """Why a score file is not taken."""


class _Dtype:
    """Stands for ``numpy.dtype``: remembers its code and byte order."""

    def __init__(self, code: str, *_):
        self.code = code

    def __setstate__(self, state):
        self.order = state[1]


class _Array:
    """Stands for ``numpy.ndarray``: remembers what the pickle says of it."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.data = state

    def to_float32(self) -> np.ndarray:
        if (self.dtype.code, self.dtype.order, self.fortran) != ("f4", "<", False):
            raise _Refused("its scores are not little-endian float32")
        return np.frombuffer(self.data, "<f4").reshape(self.shape)


class _ScoreUnpickler(pickle.Unpickler):
    _ALLOWED = {  # noqa: RUF012 - never written to
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): str.encode,  # the same for text, and cannot reach other codecs
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self._ALLOWED:
            raise _Refused(f"its pickle asks for {module}.{name}, which no score file needs")
        return self._ALLOWED[module, name]


def _read_npy(part: str, content: bytes) -> np.ndarray | list:
    """The array in one member; for scores, the flat list of cells with its checked shape."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise _Refused(f"{part}.npy is not of format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if part == "scores":
        array = _ScoreUnpickler(stream).load()
        if not isinstance(array, _Array) or not isinstance(array.data, list):
            raise _Refused("its scores are not an object array")
        videos, columns = array.shape
        if (videos, columns) != shape or columns not in (2, 3) or array.fortran:
            raise _Refused(f"its scores have shape {array.shape}, not (videos, 2 or 3)")
        if len(array.data) != videos * columns:
            raise _Refused(f"its scores have {len(array.data)} cells for shape {shape}")
        return [array.data[i : i + 2] for i in range(0, len(array.data), columns)]
    if dtype.kind not in "iU" or fortran or len(shape) != 1:
        raise _Refused(f"{part}.npy holds {dtype} of shape {shape}")
    return np.frombuffer(stream.read(), dtype).reshape(shape)


def _assemble(scores: list, labels: np.ndarray, names: np.ndarray) -> ReleasedScores:
    if not len(scores) == len(labels) == len(names) > 0:
        raise _Refused(f"{len(scores)} scores, {len(labels)} labels and {len(names)} names")
    rows = np.concatenate([row.to_float32() for row, _ in scores])
    if rows.shape[0] != len(scores) or not np.isfinite(rows).all():
        raise _Refused(f"its scores are not finite rows, one a video (shape {rows.shape})")
    if [label for _, label in scores] != labels.tolist():
        raise _Refused("the labels beside its scores are not those of labels.npy")
    if labels.min() < 0 or labels.max() >= rows.shape[1]:
        raise _Refused(f"labels {labels.min()} to {labels.max()} for {rows.shape[1]} classes")
    return ReleasedScores(rows, labels.astype(np.int64), tuple(names.tolist()))
