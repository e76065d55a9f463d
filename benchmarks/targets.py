"""What this project asks of its own speed on two processor cores, held against ``dmc bench``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

Rows = Sequence[Mapping]
ON_GPU = {"method": "tvl1-torch, batch 64 on a GPU"}
CUE, PATH = "cue alone, beside TV-L1", "whole path, beside decoding, TV-L1, ResNet-18"
EXTRACTOR = "every frame, beside motion-vector-extractor"


@dataclass(frozen=True)
class Target:
    """A bound on one column of a suite's rows; where several rows are meant, on the worst."""

    says: str
    suite: str
    row: Mapping[str, object]  # the columns that name its rows
    column: str
    bound: float
    at_least: bool = False  # the figure is to be this or more; otherwise this or less

    def figure(self, rows: Rows) -> float | None:
        """The figure in these rows; None if it was not measured."""
        found = [row.get(self.column) for row in rows if self.row.items() <= row.items()]
        return (min if self.at_least else max)(filter(pd.notna, found), default=None)

    def holds(self, figure: float | None) -> str:
        """Whether a figure keeps the bound, in a word."""
        if figure is None:
            return "not measured"
        kept = figure >= self.bound if self.at_least else figure <= self.bound
        return "reached" if kept else "missed"


TARGETS = (
    Target("reading every frame / bare decoding", "codec", {"task": "every frame"}, "ratio", 2.0),
    Target("three P-frames / their GOPs", "codec", {"task": "three P-frames"}, "ratio", 1.5),
    Target("the same / motion-vector-extractor", "codec", {"task": EXTRACTOR}, "ratio", 1.0),
    Target("P-frames of a long film / of a short", "codec", {"task": "in a film"}, "ratio", 1.2),
    Target("our TV-L1 from OpenCV's, px", "flow", {"task": "agreement"}, "median_px", 0.15),
    Target("a GPU / OpenCV's TV-L1 on a core", "flow", ON_GPU, "times_tvl1", 20, True),
    Target(
        "training samples a second, 2 workers",
        "loader",
        {"task": "samples, 2 workers"},
        "samples_per_second",
        60,
        True,
    ),
    Target("random read of stored flow, ms", "loader", {"task": "a stored field"}, "read_ms", 2.0),
    Target("stored flow, KB a field", "loader", {"task": "a stored field"}, "kb", 20.0),
    Target("ResNet-18: eager / fast", "classifier", {"form": "fast"}, "gain", 2.5, True),
    Target("a step at 96 px: torch's / ours", "training", {"task": "a step"}, "gain", 1.3, True),
    Target("file to label, ms a frame", "path", {"task": PATH}, "ours_ms", 11.0),
    Target("decode, TV-L1, ResNet-18 / ours", "path", {"task": PATH}, "gain", 45, True),
    Target("TV-L1 / cue", "path", {"task": CUE}, "gain", 100, True),
    Target("a clip's label, 25 frames, ms", "recognition", {}, "whole_ms", 400.0),
    Target("the same / its parts", "recognition", {}, "ratio", 1.5),
    Target("Table 3a: DMC-Net, ms", "table3", {"method": "DMC-Net"}, "total_ms", 40.0),
    Target(
        "Table 3a: CoViAR + TV-L1 / DMC-Net",
        "table3",
        {"method": "CoViAR + TV-L1"},
        "over_dmc_net",
        12,
        True,
    ),
)


def table(now: Mapping[str, Rows], before: Mapping[str, Rows]) -> list[dict]:
    """A row per target of the suites in ``now``: the bound, the figure, and the one before.

    Args:
        now: suite -> rows of this run.
        before: the same of an earlier run.
    """
    found = []
    for target in TARGETS:
        if target.suite in now:
            figure = target.figure(now[target.suite])
            row = {"suite": target.suite, "target": target.says}
            row["bound"] = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
            row |= {"figure": figure, "before": target.figure(before.get(target.suite, []))}
            found.append(row | {"verdict": target.holds(figure)})
    return found
