"""Tables from the authors' released scores: the paper's accuracies on its real test lists.

They are kept in ``results/released``, for readers who have no score files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dmclib import evaluation, results
from dmclib.errors import DMCError
from dmclib.released.scores import COVIAR, RELEASES, SPLITS, Release, ReleasedSplits, load

_GRID = [k / 4 for k in range(13)]  # weights 0 to 3 for the map
_MIXED = 10  # pairs of classes that are listed
Right = Mapping[str, np.ndarray]  # method -> bool (rows,), which it calls right

# Row of Table 4 -> the released methods that are the same or are part of it.
_SAME = {
    "CoViAR": ["CoViAR", "CoViAR + flow"],
    "DMC-Net (ResNet-18)": ["CoViAR + DMC (cls + MSE)", "CoViAR + DMC (cls + MSE + adv)"],
}
# Our fusions, as notebook 05 names them -> the row of Table 4 with the same method.
OURS = {
    "CoViAR: frame + vectors + residual": "CoViAR",
    "CoViAR + flow": "CoViAR",
    "CoViAR + DMC": "DMC-Net (ResNet-18)",
}


@dataclass(frozen=True)
class Tables:
    """All tables of one data set; an entry is a list of rows unless it says otherwise.

    Shares are 0 to 1. Intervals and ``p`` over several videos are clustered by source film
    (:func:`evaluation.clustered_interval`); ``p_videos`` takes videos as independent.
    """

    accuracies: list  # method, split, accuracy, Wilson's low and high, n
    means: list  # method, mean of the splits' accuracies, low, high, n, sources
    differences: list  # a, b, split or "all", gain, low, high, only_a, only_b, p_videos, p, p_holm
    gains: list  # class, gain of DMC (a) on CoViAR (b), and as above; n, sources; largest first
    confusions: list  # the most mixed pairs of classes: how often, and without DMC
    confusion: dict  # classes, counts[is][called] among those pairs' classes, n of each
    weights: dict  # accuracy[mv][dmc] over a grid of fusion weights, and its largest
    softmax: list  # method, accuracy of raw and of softmax scores fused, gain, low, high, p
    realigned: list  # method, mean accuracy with rows matched by position and by name
    names: dict  # how many names are respelled and rows misplaced; videos, sources
    classes: list  # names; the authors' labels count from 0 in this order, which is theirs alone


def rebuild(word: str, folder: str | Path) -> Tables:
    """Make every table of one data set from its score files; arguments, errors as :func:`load`."""
    release, scores = RELEASES[word], load(word, folder)
    called = {name: _called(scores, weights) for name, weights in release.methods.items()}
    right = {name: own == scores.labels for name, own in called.items()}
    return Tables(
        accuracies=_accuracies(right, scores),
        means=_means(right, scores),
        differences=_differences(release, right, scores),
        gains=_gains(right[release.dmc], right["CoViAR"], scores),
        **_confusions(called[release.dmc], called["CoViAR"], scores),
        weights=_weight_map(release, scores),
        softmax=_softmax(release, right, scores),
        realigned=_realigned(release, right, scores),
        names={name: getattr(scores, name) for name in ("respelled", "misplaced", "videos")}
        | {"sources": int(scores.source.max()) + 1},
        classes=[*scores.classes],
    )


def save(word: str, tables: Tables) -> Path:
    """Keep the tables in ``results/released/<word>.json``, with their origin."""
    release, extra = RELEASES[word], asdict(tables)
    data = f"the authors' released per-video scores, official test lists of {release.title}"
    run = results.start_run(word, profile="released", seed=0, weights=dict(release.methods))
    return run.save(extra.pop("accuracies"), data=data, **extra)


def committed(word: str) -> Tables:
    """Read the tables that :func:`save` wrote.

    Raises:
        DMCError: the file is absent, damaged, or of another version.
    """
    record = results.load(word, "released")
    try:
        return Tables(accuracies=record.rows.to_dict("records"), **record.extra)
    except TypeError:
        raise DMCError(
            f"results/released/{word}.json has other tables than this version reads: restore it "
            "with git, or run notebook 10 with the score files."
        ) from None


def frame(tables: Mapping[str, Tables], table: str, columns: Sequence[str]) -> pd.DataFrame:
    """These columns of one table of all data sets: shares in per cent, p values to two digits.

    ``tables`` maps keys of :data:`RELEASES`; ``table`` is a field of rows of :class:`Tables`.
    """
    frames = {RELEASES[w].title: pd.DataFrame(getattr(own, table)) for w, own in tables.items()}
    rows = pd.concat(frames, names=["data set", None]).droplevel(1)[[*columns]]
    for name in rows:
        if name.startswith("p_") or name == "p":
            rows[name] = rows[name].map("{:.2g}".format)
        elif rows[name].dtype.kind == "f":
            rows[name] = (100 * rows[name]).round(2)
    return rows


def table_4(
    tables: Mapping[str, Tables], ours: Sequence[Mapping], dataset: str
) -> list[dict[str, str]]:
    """The paper's Table 4, each row followed by released and own results of its method.

    Args:
        tables: key of :data:`RELEASES` -> its tables.
        ours: rows ``variant``, ``accuracy``, ``low``, ``high``; only those in :data:`OURS` count.
        dataset: what ours were counted on.

    Returns:
        Rows of text, per cent with 95 % interval: ``method``; ``from``, which says *quoted*,
        *released scores* or *ours (dataset)*; and for each of these its own columns.
    """
    quoted = results.reported("table_4").astype(object)
    rows = []
    for row in quoted.where(quoted.notna(), "").to_dict("records"):
        columns = {f"{own.title}, paper": str(row[word]) for word, own in RELEASES.items()}
        rows.append({"method": row["method"], "from": "quoted"} | columns | {"note": row["note"]})
        for method in _SAME.get(row["method"], ()):
            columns = {
                f"{RELEASES[word].title}, released": _percent(mean)
                for word, own in tables.items()
                for mean in own.means
                if mean["method"] == method
            }
            rows.append({"method": method, "from": "released scores"} | columns)
        for own in ours:
            if OURS.get(own["variant"]) == row["method"]:
                columns = {"ours": _percent(own)}
                rows.append({"method": own["variant"], "from": f"ours ({dataset})"} | columns)
    order = dict.fromkeys(key for row in rows for key in row if key != "note")
    return [{key: row.get(key, "") for key in (*order, "note")} for row in rows]


def _percent(row: Mapping) -> str:
    accuracy, low, high = (100 * row[key] for key in ("accuracy", "low", "high"))
    return f"{accuracy:.2f} [{low:.1f}, {high:.1f}]"


def _called(scores: ReleasedSplits, weights: Mapping, *, softmax: bool = False) -> np.ndarray:
    """The class that a fusion predicts for each row, int (rows,)."""
    called = np.empty_like(scores.labels)
    for split in SPLITS:
        rows = scores.split == split
        own = {name: w[split] if isinstance(w, Mapping) else w for name, w in weights.items()}
        streams = {name: scores.streams[name][rows] for name in own}
        if softmax:
            streams = {n: torch.from_numpy(s).softmax(dim=1).numpy() for n, s in streams.items()}
        called[rows] = evaluation.fuse(streams, own).argmax(axis=1)
    return called


def _mean(right: np.ndarray, scores: ReleasedSplits) -> float:
    """The mean of the three splits' accuracies, as the paper reports it."""
    return float(np.mean([right[scores.split == split].mean() for split in SPLITS]))


def _accuracies(right: Right, scores: ReleasedSplits) -> list[dict]:
    rows = []
    for split in SPLITS:
        own = {method: videos[scores.split == split] for method, videos in right.items()}
        for row in evaluation.accuracy_rows(own):
            rows.append({"method": row.pop("variant"), "split": split} | row)
    return rows


def _means(right: Right, scores: ReleasedSplits) -> list[dict]:
    rows = []
    for method, own in right.items():
        low, high = evaluation.clustered_interval(own, scores.source)
        row = {"method": method, "accuracy": _mean(own, scores), "low": low, "high": high}
        rows.append(row | {"n": len(own), "sources": int(scores.source.max()) + 1})
    return rows


def _compared(a: np.ndarray, b: np.ndarray, source: np.ndarray) -> dict:
    """Compare two methods on the same rows."""
    gain, low, high = evaluation.paired_difference(a, b, source)
    test, clustered = evaluation.mcnemar(a, b), evaluation.mcnemar(a, b, source)
    row = {"gain": gain, "low": low, "high": high, "only_a": test.only_a, "only_b": test.only_b}
    return row | {"p_videos": test.p, "p": clustered.p}


def _differences(release: Release, right: Right, scores: ReleasedSplits) -> list[dict]:
    rows = []
    for split in (*SPLITS, "all"):
        chosen = np.full(len(scores.split), True) if split == "all" else scores.split == split
        # Holm's families: the fusions among each other, and what the paper says beside them.
        for pairs in (combinations(release.fusions, 2), _claimed(release)):
            family = []
            for b, a in pairs:
                row = {"a": a, "b": b, "split": split, "n": int(chosen.sum())}
                compared = _compared(right[a][chosen], right[b][chosen], scores.source[chosen])
                family.append(row | compared)
            rows += _with_holm(family)
    return rows


def _claimed(release: Release) -> list[tuple[str, str]]:
    """Streams that the paper compares: flow with vectors (1), DMC-Net with frames (4.6)."""
    return [("motion vectors", "TV-L1 flow"), ("I-frames", release.dmc)]


def _with_holm(family: list[dict]) -> list[dict]:
    raised = evaluation.holm([row["p"] for row in family])
    return [row | {"p_holm": p} for row, p in zip(family, raised, strict=True)]


def _gains(dmc: np.ndarray, coviar: np.ndarray, scores: ReleasedSplits) -> list[dict]:
    """One row per class, largest gain first; with so many classes only ``p_holm`` is evidence."""
    rows = []
    for label, name in enumerate(scores.classes):
        own = scores.labels == label
        compared = _compared(dmc[own], coviar[own], scores.source[own])
        sources = len(np.unique(scores.source[own]))
        rows.append({"class": name, **compared, "n": int(own.sum()), "sources": sources})
    return sorted(_with_holm(rows), key=lambda row: (-row["gain"], row["class"]))


def _confusions(dmc: np.ndarray, coviar: np.ndarray, scores: ReleasedSplits) -> dict:
    """The pairs of classes that CoViAR + DMC confuses most often, both directions together."""
    with_dmc, without = (np.zeros((len(scores.classes),) * 2, int) for _ in range(2))
    np.add.at(with_dmc, (scores.labels, dmc), 1)
    np.add.at(without, (scores.labels, coviar), 1)
    a, b = np.triu_indices(len(scores.classes), k=1)
    worst = np.argsort(-(with_dmc + with_dmc.T)[a, b], kind="stable")[:_MIXED]
    n, rows, shown = np.bincount(scores.labels), [], {}
    for i, j in zip(a[worst].tolist(), b[worst].tolist(), strict=True):
        row = {"a": scores.classes[i], "b": scores.classes[j]}
        row |= {"a_called_b": int(with_dmc[i, j]), "b_called_a": int(with_dmc[j, i])}
        row["mixed"] = row["a_called_b"] + row["b_called_a"]
        row["mixed_by_coviar"] = int(without[i, j] + without[j, i])
        rows.append(row | {"n": int(n[i] + n[j])})
        shown |= {i: None, j: None}  # a dictionary keeps partners side by side
    shown = [*shown]
    return {
        "confusions": rows,
        "confusion": {
            "classes": [scores.classes[k] for k in shown],
            "counts": with_dmc[np.ix_(shown, shown)].tolist(),
            "n": n[shown].tolist(),
        },
    }


def _weight_map(release: Release, scores: ReleasedSplits) -> dict:
    """Mean accuracy for weights of the vectors and of the cue, I-frames 2 and residuals 1."""

    def at(mv: float, cue: float) -> float:
        called = _called(scores, COVIAR | {"mv": mv, release.cue: cue})
        return _mean(called == scores.labels, scores)

    accuracy = [[at(mv, cue) for cue in _GRID] for mv in _GRID]
    best = np.unravel_index(np.argmax(accuracy), (len(_GRID), len(_GRID)))
    return {
        "mv": _GRID,
        "dmc": _GRID,
        "accuracy": accuracy,
        "n": len(scores.labels),
        "authors": {"mv": 1, "dmc": 1},
        "best_on_test": {"mv": _GRID[best[0]], "dmc": _GRID[best[1]]},
    }


def _softmax(release: Release, right: Right, scores: ReleasedSplits) -> list[dict]:
    """Streams fused as probabilities instead of raw scores; ``gain`` is the difference."""
    rows = []
    for method in release.fusions:
        raw = right[method]
        soft = _called(scores, release.methods[method], softmax=True) == scores.labels
        row = {"method": method, "raw": _mean(raw, scores), "softmax": _mean(soft, scores)}
        rows.append(row | _compared(soft, raw, scores.source))
    return rows


def _realigned(release: Release, right: Right, scores: ReleasedSplits) -> list[dict]:
    """Accuracy if the streams' rows were matched by name instead of by position, as they are."""
    streams = {name: s[scores.by_name[name]] for name, s in scores.streams.items()}
    matched = replace(scores, streams=streams)
    rows = []
    for method, weights in release.methods.items():
        row = {"method": method, "by_position": _mean(right[method], scores)}
        rows.append(row | {"by_name": _mean(_called(matched, weights) == scores.labels, scores)})
    return rows
