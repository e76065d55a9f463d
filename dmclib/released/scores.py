"""The authors' per-video scores: which files there are, how they are fused, and their rows aligned.

The score files lie in the authors' repository (facebookresearch/dmc-net, MIT), folder ``exp_my``.
:mod:`fusions` makes tables from them.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmclib.errors import ScoreFileError
from dmclib.evaluation import load_released_scores

SPLITS = (1, 2, 3)
COVIAR = {"iframe": 2, "mv": 1, "residual": 1}  # weights of the authors' combine.py


@dataclass(frozen=True)
class Release:
    """The authors' files for one data set, and the methods that fuse them."""

    title: str
    files: Mapping[str, str]  # stream -> file per split, below exp_my
    methods: Mapping[str, Mapping[str, float | Mapping[int, float]]]  # weights, or these by split
    cue: str  # the stream of the best DMC-Net that is there
    absent: str = ""  # what the paper reports without a released file

    @property
    def fusions(self) -> list[str]:
        """Methods that fuse several streams with the paper's weights."""
        return [
            name
            for name, weights in self.methods.items()
            if len(weights) > 1 and not any(isinstance(w, Mapping) for w in weights.values())
        ]

    @property
    def dmc(self) -> str:
        """The method that fuses CoViAR with the best cue."""
        return f"CoViAR + DMC ({self.cue})"


_ALONE = {
    "I-frames": {"iframe": 1},
    "motion vectors": {"mv": 1},
    "residuals": {"residual": 1},
    "TV-L1 flow": {"flow": 1},
}
_FUSED = {
    "CoViAR": COVIAR,
    "CoViAR + flow": COVIAR | {"flow": 1},
    "CoViAR + DMC (cls + MSE)": COVIAR | {"cls + MSE": 1},
}


def _files(coviar: str, cue: str) -> dict[str, str]:
    # A cue's own file is called "mv" by the authors too, since the cue takes the vectors' place.
    folders = {stream: f"{coviar}{stream}" for stream in ("iframe", "mv", "residual", "flow")}
    files = {name: f"{at}/split{{}}/{name}_score_model_best.npz" for name, at in folders.items()}
    return files | {"cls + MSE": f"{cue}/split{{}}/mv_score_model_best.npz"}


RELEASES = {
    "hmdb51": Release(
        title="HMDB-51",
        files=_files("hmdb51_coviar/", "hmdb51_gen_flow")
        | {"cls + MSE + adv": "hmdb51_gan/split{}/mv_score_model_best.npz"},
        methods=_ALONE
        | _FUSED
        | {"CoViAR + DMC (cls + MSE + adv)": COVIAR | {"cls + MSE + adv": 1}},
        cue="cls + MSE + adv",
        absent="the run with the class loss alone",
    ),
    "ucf101": Release(
        title="UCF-101",
        files=_files("ucf101_coviar/ucf101_", "ucf101_gen_flow"),
        # The authors' scripts fuse splits 2 and 3, and not 1, with a quarter of the cue.
        methods=_ALONE
        | _FUSED
        | {
            "CoViAR + DMC (cls + MSE), scripts' weights": COVIAR
            | {"cls + MSE": {1: 1, 2: 0.25, 3: 0.25}}
        },
        cue="cls + MSE",
        absent="the adversarial run, which the paper's figure is of",
    ),
}


@dataclass(frozen=True)
class ReleasedSplits:
    """All test videos of one data set, split after split, and every stream's scores of them."""

    streams: Mapping[str, np.ndarray]  # float32 (rows, classes), raw
    labels: np.ndarray  # int (rows,)
    split: np.ndarray  # int (rows,)
    source: np.ndarray  # int (rows,): rows of one number are clips cut from one film
    videos: int  # distinct ones: HMDB-51's lists share some
    classes: tuple[str, ...]
    respelled: int  # names that a stream's file spells differently from the I-frames' file
    misplaced: int  # rows among them that belong to another video of the same class
    by_name: Mapping[str, np.ndarray]  # stream -> int (rows,): index of its row for this video


def load(word: str, folder: str | Path) -> ReleasedSplits:
    """Read every stream of every split and check that their rows belong together.

    Rows agree by position and label, as in the authors' ``combine.py``. Names may be spelled
    differently (other signs for a space or a dash); a file that lists other videos is refused.

    Args:
        word: a key of :data:`RELEASES`.
        folder: the authors' ``exp_my``.

    Raises:
        ScoreFileError: a file is missing, damaged or unsafe, or lists other videos.
    """
    streams, by_name, parts = defaultdict(list), defaultdict(list), []
    videos, respelled, misplaced = [], 0, 0
    for split in SPLITS:
        files = {k: Path(folder) / file.format(split) for k, file in RELEASES[word].files.items()}
        first = load_released_scores(files["iframe"])
        plain = [_plain(video) for video in first.names]
        for name, file in files.items():
            stream = load_released_scores(file)
            other = [_plain(video) for video in stream.names]
            same = stream.labels.tolist() == first.labels.tolist()
            if not same or sorted(other) != sorted(plain):
                raise ScoreFileError(
                    f"{file} lists other videos than the I-frames' file: its "
                    f"{'names' if same else 'labels'} differ. Take both from one copy of the "
                    "repository."
                )
            respelled += sum(a != b for a, b in zip(first.names, stream.names, strict=True))
            misplaced += sum(a != b for a, b in zip(plain, other, strict=True))
            row = np.empty(len(plain), int)
            row[np.argsort(plain, kind="stable")] = np.argsort(other, kind="stable")
            by_name[name].append(row + len(videos))
            streams[name].append(stream.scores)
        parts.append(first.labels)
        videos += plain

    labels = np.concatenate(parts)
    classes = dict(sorted(zip(labels.tolist(), (v.split("/")[0] for v in videos), strict=True)))
    return ReleasedSplits(
        streams={name: np.concatenate(scores) for name, scores in streams.items()},
        labels=labels,
        split=np.repeat(SPLITS, [len(part) for part in parts]),
        source=np.unique([film(video) for video in videos], return_inverse=True)[1],
        videos=len(set(videos)),
        classes=tuple(classes.values()),
        respelled=respelled,
        misplaced=misplaced,
        by_name={name: np.concatenate(rows) for name, rows in by_name.items()},
    )


def _plain(name: str) -> str:
    """A name with "_" for every sign that the authors' files spell in several ways."""
    return re.sub(r"[^A-Za-z0-9/.]", "_", name)


def film(name: str) -> str:
    """The film that a clip was cut from: its name without the clip's number and description."""
    return re.sub(r"(_c\d+|_[a-z]_[cn]m_np\d+_[a-z]+_[a-z]+_\d+)\.avi$", "", name)
