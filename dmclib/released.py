"""The authors' per-video scores, fused: section 4.3 of the paper on the real HMDB-51 test lists.

The score files lie in the authors' repository (facebookresearch/dmc-net, MIT), folder ``exp_my``.
"""

from pathlib import Path

from dmclib import evaluation
from dmclib.errors import ScoreFileError

FILES = {
    "iframe": "hmdb51_coviar/iframe/split{}/iframe_score_model_best.npz",
    "mv": "hmdb51_coviar/mv/split{}/mv_score_model_best.npz",
    "residual": "hmdb51_coviar/residual/split{}/residual_score_model_best.npz",
    "flow": "hmdb51_coviar/flow/split{}/flow_score_model_best.npz",
    # Named "mv" by the authors too, since the cue takes the vectors' place.
    "cls + MSE": "hmdb51_gen_flow/split{}/mv_score_model_best.npz",
    "cls + MSE + adv": "hmdb51_gan/split{}/mv_score_model_best.npz",
}
_COVIAR = {"iframe": 2, "mv": 1, "residual": 1}  # weights of the authors' combine.py
METHODS = {
    "I-frames": {"iframe": 1},
    "motion vectors": {"mv": 1},
    "residuals": {"residual": 1},
    "TV-L1 flow": {"flow": 1},
    "CoViAR": _COVIAR,
    "CoViAR + flow": _COVIAR | {"flow": 1},
    "CoViAR + DMC (cls + MSE)": _COVIAR | {"cls + MSE": 1},
    "CoViAR + DMC (cls + MSE + adv)": _COVIAR | {"cls + MSE + adv": 1},
}


def hmdb51(folder: str | Path) -> list[dict]:
    """Top-1 accuracy of every stream and fusion on each of the three HMDB-51 test lists.

    Args:
        folder: the authors' ``exp_my``.

    Returns:
        A row for each method and split: ``method``, ``split``, ``accuracy`` (0 to 1), its Wilson
        interval ``low``, ``high``, and ``n``, the videos. Fusion adds raw scores (paper, 4.2).

    Raises:
        ScoreFileError: if a file is missing, damaged or unsafe, or the streams' labels disagree.
    """
    rows = []
    for split in (1, 2, 3):
        streams = {
            name: evaluation.load_released_scores(Path(folder) / file.format(split))
            for name, file in FILES.items()
        }
        labels = streams["iframe"].labels
        for name, stream in streams.items():
            if stream.labels.tolist() != labels.tolist():
                raise ScoreFileError(
                    f"{Path(folder) / FILES[name].format(split)} lists other videos than the "
                    "I-frames' file: its labels differ. Take both from one copy of the repository."
                )
        for method, weights in METHODS.items():
            fused = evaluation.fuse({name: streams[name].scores for name in weights}, weights)
            right = int((fused.argmax(axis=1) == labels).sum())
            low, high = evaluation.wilson_interval(right, len(labels))
            rows.append(
                {
                    "method": method,
                    "split": split,
                    "accuracy": right / len(labels),
                    "low": low,
                    "high": high,
                    "n": len(labels),
                }
            )
    return rows
