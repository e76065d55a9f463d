"""The paper's Figure 5: what the generator is given, what it makes, and what it should resemble."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dmclib import flow
from dmclib.figures.pictures import BLACK, panels

COLUMNS = {  # name -> title, in the paper's order
    "rgb": "decoded\npicture",
    "flow": "optical flow\n(exact)",
    "tvl1": "optical flow\n(TV-L1)",
    "vectors": "motion\nvectors",
    "residual": "residual",
    "cue_mse": "DMC without\nadversarial loss",
    "cue_adv": "DMC",
}
WINDOW_PX = 24  # side of the marked squares: one and a half macroblocks
STRAY_PX = 0.5  # vectors of one background that are further apart are noise
FALL = 0.25  # share of the vectors' error by which it must fall in a square that is marked
NOTE = (
    f"squares of {WINDOW_PX} px: where the squared error against flow falls most from the vectors "
    "to the cue (the rightmost column); solid: on stray vectors in the background, where noise "
    "vanishes; dashed: on a motion edge, which sharpens; none where it falls by less than "
    f"{FALL * 100:.0f} %. Numbers: mean squared error within the square, px²"
)


@dataclass(frozen=True)
class Window:
    """A square of ``WINDOW_PX`` px in which a cue is nearer to flow than the vectors are."""

    kind: Literal["noise", "edge"]
    x: int  # of its left column, px
    y: int  # of its top row, px

    def squared_error(self, field: np.ndarray, flow_field: np.ndarray) -> float:
        """Mean squared end-point error of a field ``(2, H, W)`` in the square, px^2."""
        square = np.s_[:, self.y : self.y + WINDOW_PX, self.x : self.x + WINDOW_PX]
        return float(np.square(flow.endpoint_error(field[square], flow_field[square])).mean())


def cue_panels(
    examples: Mapping[str, Mapping[str, np.ndarray]], *, full_colour_px: float
) -> Figure:
    """Draw the paper's Figure 5: a row per example, a column per kind of input.

    Where a row has vectors, flow and a cue, the squares that :func:`improved_windows` finds for its
    last cue are drawn on its vectors and cues, with the squared error of each below it.

    Args:
        examples: row label -> column -> array: uint8 ``(H, W, 3)`` is a picture, ``(2, H, W)``
            motion in px per frame, ``(3, H, W)`` a residual. Columns are names of ``COLUMNS``, and
            are drawn from left to right as in the first row. Another name is its own title.
        full_colour_px: displacement drawn at full saturation, in all panels; best a little less
            than the fastest motion shown.
    """
    columns = list(next(iter(examples.values())))
    rows = {label: [row[column] for column in columns] for label, row in examples.items()}
    marks = {label: _marks(row) for label, row in examples.items()}
    marked = any(marks.values())
    fig, axes = panels(
        [COLUMNS.get(column, column) for column in columns],
        rows,
        full_colour_px,
        notes=[NOTE] if marked else [],
        below=0.4 if marked else 0,
    )
    for line, (label, row) in zip(axes, examples.items(), strict=True):
        for ax, column in zip(line, columns, strict=True):
            if column in ("vectors", "cue_mse", "cue_adv"):
                lines = _draw(ax, marks[label], row[column], _flow_of(row))
                ax.set_xlabel("\n".join(lines), fontsize=axes[0, 0].title.get_fontsize())
    return fig


def improved_windows(vectors: np.ndarray, cue: np.ndarray, flow_field: np.ndarray) -> list[Window]:
    """Find where the cue did most for the vectors: in the background, and on a motion edge.

    "noise" is the square of ``WINDOW_PX`` px whose squared error against flow falls most from
    vectors to cue, of all that lie wholly in the background (:func:`flow.regions`) and whose
    vectors are more than ``STRAY_PX`` apart: where they agree with each other there is no noise to
    vanish. "edge" is the one of all whose middle lies in the band along motion edges. Squares where
    the error falls by less than the share ``FALL`` of the vectors' are left out.

    Args:
        vectors, cue, flow_field: motion ``(2, H, W)``, px per frame, larger than a window.
    """
    before, after = (
        _windows(np.square(flow.endpoint_error(field, flow_field))).mean(axis=(2, 3))
        for field in (vectors, cue)
    )  # [y, x]: of the square whose corner is there
    fall = np.where(before - after > FALL * before, before - after, 0)
    regions, middle = flow.regions(flow_field), WINDOW_PX // 2
    band = regions["boundary"][middle:, middle:]
    apart = [np.ptp(_windows(plane), axis=(2, 3)) > STRAY_PX for plane in vectors]
    where = {
        "noise": _windows(regions["background"]).all(axis=(2, 3)) & np.any(apart, axis=0),
        "edge": band[: fall.shape[0], : fall.shape[1]],
    }
    windows = []
    for kind, allowed in where.items():
        own = fall * allowed
        y, x = np.unravel_index(own.argmax(), own.shape)
        if own[y, x] > 0:
            windows.append(Window(kind, int(x), int(y)))
    return windows


def _windows(values: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, (WINDOW_PX, WINDOW_PX))


def _flow_of(row: Mapping[str, np.ndarray]) -> np.ndarray | None:
    return row.get("flow", row.get("tvl1"))


def _marks(row: Mapping[str, np.ndarray]) -> list[Window]:
    cue, truth = row.get("cue_adv", row.get("cue_mse")), _flow_of(row)
    if cue is None or truth is None or "vectors" not in row:
        return []
    return improved_windows(row["vectors"], cue, truth)


def _draw(
    ax: Axes, windows: list[Window], field: np.ndarray, flow_field: np.ndarray | None
) -> list[str]:
    """Draw the squares; return a line for each, with the squared error of ``field`` in it."""
    lines = []
    for window in windows:
        corner, dashes = (window.x - 0.5, window.y - 0.5), "-" if window.kind == "noise" else "--"
        look = {"fill": False, "lw": 1.1, "ls": dashes, "ec": BLACK}
        ax.add_patch(Rectangle(corner, WINDOW_PX, WINDOW_PX, **look))
        lines.append(f"{window.kind} {window.squared_error(field, flow_field):.2f}")
    return lines
