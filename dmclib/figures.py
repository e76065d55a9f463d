"""Arrays in, one matplotlib figure out; the suite's only importer of matplotlib.

A notebook's cell ends with the figure, or with :func:`save`, which gives it back: either shows it
once. Panels that may be compared share one scale, and the scale is printed. Colours are Okabe and
Ito's, told apart with any colour vision; the direction wheel of motion is the usual one, so figures
that need it also say lengths.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dmclib import files, flow, paths
from dmclib.codec import CompressedFrame

# Okabe and Ito's colours, without the yellow, which is too light for lines on white.
BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PINK, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
CYCLE = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK)
PAGE_WIDTH = 7.0  # inches; with text of 8 points or more, readable in a column half as wide
RESIDUAL_LEVELS = 64  # grey levels drawn as black or white: one scale for every residual


def use_house_style() -> None:
    """Set fonts, colours and resolution for every figure after it; call once a notebook."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=CYCLE),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 9,
            "figure.dpi": 72,
            "font.size": 9,
            "legend.frameon": False,
            "pdf.fonttype": 42,  # text in the PDF stays text
            "savefig.dpi": 130,
        }
    )


def save(fig: Figure, name: str, profile: str) -> Figure:
    """Write ``figures/<profile>/<name>.png`` and ``.pdf``, each whole or not, and return ``fig``.

    Neither file holds a date or a version, so that equal figures are equal files.
    """
    for suffix, undated in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        with files.whole(paths.FIGURES / profile / f"{name}{suffix}") as partial:
            fig.savefig(partial, metadata=undated)
    return fig


def motion_comparison(
    frame: np.ndarray, fields: Mapping[str, np.ndarray], *, full_colour_px: float
) -> Figure:
    """Draw one frame beside several motion fields, all on one colour scale.

    Args:
        frame: uint8, shape ``(H, W, 3)``, RGB.
        fields: panel title -> float field ``(2, H, W)`` in pixels per frame, left to right.
        full_colour_px: displacement drawn at full saturation. Keyword-only and without a default on
            purpose: a scale picked per panel makes a weak motion vector and a strong flow look
            alike, which is the very thing this figure is meant to show.
    """
    return _pictures(["frame", *fields], [[frame, *fields.values()]], full_colour_px)


def motion_arrows(frame: np.ndarray, motion: np.ndarray, *, step: int = 16) -> Figure:
    """Draw a motion field ``(2, H, W)``, pixels, as arrows on its frame (uint8, ``(H, W, 3)``).

    One arrow for each block of ``step`` pixels, read at the block's middle: from where its content
    was to where it is, in the picture's own pixels. Blocks at rest have none.
    """
    height, width = motion.shape[1:]
    y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    dx, dy = motion[:, y, x]
    moving = np.hypot(dx, dy) > 0
    x, y, dx, dy = x[moving], y[moving], dx[moving], dy[moving]

    fig, axes = _subplots(1, 1, (0.7 * PAGE_WIDTH, 0.7 * PAGE_WIDTH * height / width + 0.25))
    ax = axes[0, 0]
    # Half-way to white, or dark arrows would be lost in a dark frame.
    ax.imshow(frame // 2 + 128)
    in_pixels = {"angles": "xy", "scale_units": "xy", "scale": 1}
    ax.quiver(x - dx, y - dy, dx, dy, **in_pixels, color=RED, width=0.004)
    ax.set_axis_off()
    ax.set_title(
        f"{moving.sum()} of {moving.size} blocks move; "
        f"arrows in the picture's pixels, longest {np.hypot(dx, dy).max(initial=0):.3g} px"
    )
    return fig


def packet_sizes(sizes_bytes: Sequence[int], is_key: Sequence[bool]) -> Figure:
    """Draw what each compressed frame costs, in order; bars in kB (1000 bytes), I and P apart."""
    kilobytes, is_key = np.asarray(sizes_bytes) / 1000, np.asarray(is_key, bool)
    position = np.arange(len(kilobytes))
    fig, axes = _subplots(1, 1, (PAGE_WIDTH, 2.4))
    ax = axes[0, 0]
    kinds = (("I-frames", is_key, BLUE, "///"), ("P-frames", ~is_key, ORANGE, None))
    for kind, chosen, colour, hatch in kinds:
        if chosen.any():
            x, y = position[chosen], kilobytes[chosen]
            label = f"{kind}: median {np.median(y):.3g} kB"
            ax.bar(x, y, color=colour, hatch=hatch, ec="white", lw=0, label=label)
    ax.set_xlabel("frame")
    ax.set_ylabel("packet size (kB)")
    ax.margins(x=0.01)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def residual_picture(residual: np.ndarray) -> Figure:
    """Draw a residual ``(3, H, W)``, grey levels: its colours, and how large it is where.

    Left, mid-grey is nothing missed. Right, the mean of the three channels' absolute values.
    """
    height, width = residual.shape[1:]
    fig, axes = _subplots(1, 2, (PAGE_WIDTH, 0.45 * PAGE_WIDTH * height / width + 0.3))
    left, right = axes[0]
    left.imshow(_residual_to_rgb(residual))
    left.set_title(f"residual: grey = 0, black to white = ±{RESIDUAL_LEVELS}")
    size = right.imshow(np.abs(residual).mean(axis=0), cmap="viridis", vmin=0, vmax=RESIDUAL_LEVELS)
    right.set_title("mean absolute value of R, G, B")
    fig.colorbar(size, ax=right, label="grey levels", shrink=0.8, extend="max")
    for ax in (left, right):
        ax.set_axis_off()
    return fig


def gop_strip(gop: Sequence[CompressedFrame], *, full_colour_px: float) -> Figure:
    """Draw frames of a GOP, a column each: decoded, motion, residual.

    Six columns or fewer stay readable. An I-frame's panels of motion and residual are empty.
    """
    arrays = [
        [frame.rgb for frame in gop],
        [None if frame.is_key else frame.motion for frame in gop],
        [None if frame.is_key else frame.residual for frame in gop],
    ]
    titles = [_position(frame) for frame in gop]
    return _pictures(titles, arrays, full_colour_px, ["decoded", "motion", "residual"])


def accumulation(
    plain: Sequence[CompressedFrame],
    accumulated: Sequence[CompressedFrame],
    *,
    full_colour_px: float,
) -> Figure:
    """Draw motion and residual against the frame before, and against the I-frame, a column each.

    Args:
        plain: P-frames as ``codec.read_at`` gives them.
        accumulated: the same frames with ``accumulate=True``.
        full_colour_px: displacement drawn at full saturation, for both.
    """
    rows = {
        "decoded": [frame.rgb for frame in plain],
        "motion\nplain": [frame.motion for frame in plain],
        "motion\naccumulated": [frame.motion for frame in accumulated],
        "residual\nplain": [frame.residual for frame in plain],
        "residual\naccumulated": [frame.residual for frame in accumulated],
    }
    titles = [_position(frame) for frame in plain]
    return _pictures(titles, list(rows.values()), full_colour_px, list(rows))


def cue_panels(
    examples: Mapping[str, Mapping[str, np.ndarray]], *, full_colour_px: float
) -> Figure:
    """Draw the paper's Figure 5: a row per example, a column per kind of input.

    Args:
        examples: row label -> column title -> array: uint8 ``(H, W, 3)`` is a picture, ``(2, H,
            W)`` motion in pixels, ``(3, H, W)`` a residual. Every row has the first row's columns.
        full_colour_px: displacement drawn at full saturation, in all of them.
    """
    titles = list(next(iter(examples.values())))
    arrays = [[row[title] for title in titles] for row in examples.values()]
    return _pictures(titles, arrays, full_colour_px, list(examples))


def training_curves(log: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Draw how training went: a row per metric, a column per stage, a colour per variant.

    Args:
        log: columns ``stage``, ``epoch``, ``variant``, ``seed`` and one for each metric; a metric
            that a variant does not have is NaN. Thin lines are seeds, the thick one their mean.
        metrics: the columns to draw, with the unit or "(share)" in their name where they have one.
    """
    stages, variants = list(log["stage"].unique()), list(log["variant"].unique())
    inches = (PAGE_WIDTH, 1.9 * len(metrics) + 0.5)
    fig, axes = _subplots(len(metrics), len(stages), inches, sharex="col", sharey="row")
    colour = dict(zip(variants, CYCLE * len(variants), strict=False))
    shown = {}
    for row, metric in zip(axes, metrics, strict=True):
        row[0].set_ylabel(metric)
        for ax, stage in zip(row, stages, strict=True):
            part = log[log["stage"] == stage].dropna(subset=[metric])
            for variant, own in part.groupby("variant", sort=False):
                for _, seed in own.groupby("seed"):
                    ax.plot(seed["epoch"], seed[metric], color=colour[variant], lw=0.6, alpha=0.5)
                mean = own.groupby("epoch")[metric].mean()
                (line,) = ax.plot(mean, ".-", color=colour[variant], lw=1.8, label=variant)
                shown[variant] = line
    for ax, stage in zip(axes[0], stages, strict=True):
        ax.set_title(stage)
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    fig.legend(handles=list(shown.values()), loc="outside lower center", ncols=5)
    return fig


def accuracy_bars(rows: pd.DataFrame, *, chance: float, title: str) -> Figure:
    """Draw accuracies with their intervals, a line each, best read against each other.

    Dots, not bars: a bar says "from zero", and these axes need not start there.

    Args:
        rows: columns ``variant``, ``accuracy``, ``low``, ``high`` (shares, 0 to 1) and ``n``,
            top to bottom.
        chance: the accuracy of guessing, 0 to 1; a dotted line.
        title: what was counted: which set, frames or videos.
    """
    fig, axes = _subplots(1, 1, (0.8 * PAGE_WIDTH, 0.32 * len(rows) + 1.0))
    ax = axes[0, 0]
    place = np.arange(len(rows))
    percent = 100 * rows[["accuracy", "low", "high"]].to_numpy()
    below, above = percent[:, 0] - percent[:, 1], percent[:, 2] - percent[:, 0]
    ax.errorbar(percent[:, 0], place, xerr=[below, above], fmt="o", color=BLUE, capsize=3, ms=5)
    for y, (accuracy, _, high) in zip(place, percent, strict=True):
        ax.annotate(
            f"{accuracy:.1f}", (high, y), (5, 0), textcoords="offset points", va="center", size=8
        )
    ax.axvline(100 * chance, color="0.4", ls=":", lw=1.2)
    ax.annotate(
        "chance", (100 * chance, 1), (3, 2), xycoords=("data", "axes fraction"),
        textcoords="offset points", va="bottom", size=8, color="0.4",
    )  # fmt: skip
    names = [f"{v}  (n = {n})" for v, n in zip(rows["variant"], rows["n"], strict=True)]
    ax.set_yticks(place, names)
    ax.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
    ax.margins(x=0.12)
    ax.set_xlabel("accuracy (%), 95 % interval")
    ax.set_title(title, pad=14)
    ax.grid(axis="x", color="0.9")
    return fig


def accuracy_speed(rows: pd.DataFrame, *, band: tuple[str, str] | None = None) -> Figure:
    """Draw the paper's Figures 1 and 4: accuracy against milliseconds a frame, a panel a data set.

    Args:
        rows: columns ``dataset``, ``method``, ``ms`` (per frame), ``accuracy`` (per cent, as
            published) and ``reported``: True where the number is the paper's, drawn hollow; ours
            are filled.
        band: two methods; the room between their accuracies is shaded, as in Figure 4.
    """
    datasets, methods = list(rows["dataset"].unique()), list(rows["method"].unique())
    fig, axes = _subplots(1, len(datasets), (PAGE_WIDTH, 2.9), sharex=True)
    look = dict(zip(methods, zip(CYCLE, "osD^vPX", strict=True), strict=False))
    shown = {}
    for ax, dataset in zip(axes[0], datasets, strict=True):
        part = rows[rows["dataset"] == dataset]
        if band:
            ends = [part.loc[part["method"] == method, "accuracy"].iloc[0] for method in band]
            label = f"from {band[0]} to {band[1]}"
            shown[band] = ax.axhspan(*ends, color=SKY, alpha=0.2, lw=0, label=label)
        for row in part.itertuples():
            colour, marker = look[row.method]
            fill = "white" if row.reported else colour
            (shown[row.method, row.reported],) = ax.plot(
                row.ms, row.accuracy, marker, ms=7, mew=1.6, color=colour, mfc=fill, ls="none",
                label=f"{row.method} ({'paper' if row.reported else 'ours'})",
            )  # fmt: skip
        ax.set_xscale("log")
        ax.set_xlim(0.1, 100)  # the paper's axis, so that both figures can be laid side by side
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_title(dataset)
        ax.grid(color="0.9")
        ax.margins(0.12)
        ax.set_xlabel("ms per frame")
    axes[0, 0].set_ylabel("accuracy (%)")
    fig.legend(handles=list(shown.values()), loc="outside lower center", ncols=2)
    return fig


def _subplots(rows: int, columns: int, inches: tuple[float, float], **shared):
    """A figure and its axes, always (rows, columns)."""
    fig, axes = plt.subplots(
        rows, columns, figsize=inches, layout="constrained", squeeze=False, **shared
    )
    # Out of pyplot's list: a notebook would draw it once more at the end of the cell, and a long
    # run would keep every figure in memory.
    plt.close(fig)
    return fig, axes


def _pictures(
    titles: Sequence[str],
    arrays: Sequence[Sequence[np.ndarray | None]],
    full_colour_px: float,
    row_labels: Sequence[str] = (),
) -> Figure:
    """A grid of pictures on one printed scale; ``titles`` above, None leaves a place empty."""
    columns = len(titles)
    first = next(array for array in arrays[0] if array is not None)
    height, width = first.shape[:2] if first.dtype == np.uint8 else first.shape[1:]
    inches = PAGE_WIDTH / max(columns, 3)
    fig, axes = _subplots(
        len(arrays), columns, (inches * columns, inches * height / width * len(arrays) + 0.5)
    )
    scales = []
    for row, line in zip(axes, arrays, strict=True):
        for ax, array in zip(row, line, strict=True):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if array is None:
                continue
            if array.dtype == np.uint8:
                picture, scale = array, None
            elif len(array) == 2:
                picture = flow.flow_to_rgb(array, full_colour_px=full_colour_px)
                scale = (
                    f"motion: full colour = {full_colour_px:g} px per frame, "
                    "right red, down green, left cyan, up violet"
                )
            else:
                picture = _residual_to_rgb(array)
                scale = f"residual: grey = 0, black to white = ±{RESIDUAL_LEVELS} grey levels"
            ax.imshow(picture)
            if scale not in (None, *scales):
                scales.append(scale)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax, label in zip(axes[:, 0], row_labels, strict=False):
        ax.set_ylabel(label)
    fig.supxlabel("\n".join(scales), fontsize=8)
    return fig


def _residual_to_rgb(residual: np.ndarray) -> np.ndarray:
    """A residual ``(3, H, W)`` as uint8 ``(H, W, 3)``, zero at mid-grey."""
    grey = 128 + residual * (127 / RESIDUAL_LEVELS)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _position(frame: CompressedFrame) -> str:
    return "I-frame" if frame.is_key else f"P-frame {frame.gop_position}"
