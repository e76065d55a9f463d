"""Numbers as charts, in the house style of ``figures``: accuracies, curves, times."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import LogFormatter, NullLocator
from matplotlib.transforms import Bbox

from dmclib.figures.pictures import BLACK, BLUE, CYCLE, ORANGE, PAGE_WIDTH, RED, SKY, subplots

PAPERS_MS = (0.1, 100)  # the paper's axis; ours is never shorter, so that slopes compare
MARKERS = "osD^vPX"
BELOW = {"loc": "outside lower center"}  # where a figure's legend stands


def packet_sizes(sizes_bytes: Sequence[int], is_key: Sequence[bool]) -> Figure:
    """Draw the size of each compressed frame, in order: bars in kB (1000 bytes), I and P apart."""
    kilobytes, is_key = np.asarray(sizes_bytes) / 1000, np.asarray(is_key, bool)
    fig, ((ax,),) = subplots(1, 1, (PAGE_WIDTH, 2.4))
    kinds = (("I-frames", is_key, BLUE, "///"), ("P-frames", ~is_key, ORANGE, None))
    for kind, chosen, colour, hatch in kinds:
        if chosen.any():
            (x,), y = np.nonzero(chosen), kilobytes[chosen]
            label = f"{kind}: median {np.median(y):.3g} kB"
            ax.bar(x, y, color=colour, hatch=hatch, ec="white", lw=0, label=label)
    ax.set(xlabel="frame", ylabel="packet size (kB)")
    ax.margins(x=0.01)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def training_curves(log: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Draw the course of trainings: a row per metric, a column per stage, a colour per variant.

    Args:
        log: columns ``stage``, ``epoch``, ``variant``, ``seed`` and one per metric, NaN where a
            variant lacks the metric. Thin lines are seeds, the thick one their mean.
        metrics: the columns to draw; a name ends with its unit or "(share)" if it has one.
    """
    stages, variants = log.groupby("stage", sort=False), log["variant"].unique()
    inches = (PAGE_WIDTH, 1.9 * len(metrics) + 0.5)
    fig, axes = subplots(len(metrics), len(stages), inches, sharex="col", sharey="row")
    colour = dict(zip(variants, CYCLE * len(variants), strict=False))
    shown = {}
    for row, metric in zip(axes, metrics, strict=True):
        row[0].set_ylabel(metric)
        if metric.endswith("accuracy"):
            row[0].set_ylim(0, 1)  # a share: what looks like a leap is to be one
        for ax, (_, part) in zip(row, stages, strict=True):
            for variant, own in part.dropna(subset=[metric]).groupby("variant", sort=False):
                for _, seed in own.groupby("seed"):
                    ax.plot(seed["epoch"], seed[metric], color=colour[variant], lw=0.6, alpha=0.5)
                mean = own.groupby("epoch")[metric].mean()
                look = {"color": colour[variant], "lw": 1.8, "label": variant}
                (shown[variant],) = ax.plot(mean, ".-", **look)
    for column, (stage, _) in zip(axes.T, stages, strict=True):
        column[0].set_title(stage)
        column[-1].set_xlabel("epoch")
    for ax in axes.flat:
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.ticklabel_format(axis="y", useOffset=False)
    fig.legend(handles=list(shown.values()), ncols=4, **BELOW)
    return fig


def accuracy_bars(rows: pd.DataFrame, *, chance: float, title: str) -> Figure:
    """Draw accuracies with their intervals, a line each; not bars, which would start at zero.

    Args:
        rows: columns ``variant``, ``accuracy``, ``low``, ``high`` (shares, 0 to 1) and ``n``,
            top to bottom.
        chance: the accuracy of guessing, 0 to 1; a dotted line.
        title: what was counted: which set, frames or videos.
    """
    fig, ((ax,),) = subplots(1, 1, (0.8 * PAGE_WIDTH, 0.32 * len(rows) + 1.0))
    offset = {"textcoords": "offset points", "size": 8}
    accuracy, low, high = 100 * rows[["accuracy", "low", "high"]].to_numpy().T
    y, sides = np.arange(len(rows)), [accuracy - low, high - accuracy]
    ax.errorbar(accuracy, y, xerr=sides, fmt="o", color=BLUE, capsize=3, ms=5)
    for line, (value, end) in enumerate(zip(accuracy, high, strict=True)):
        ax.annotate(f"{value:.1f}", (end, line), (5, 0), va="center", **offset)
    ax.axvline(100 * chance, color="0.4", ls=":", lw=1.2)
    at = {"xycoords": ("data", "axes fraction"), "color": "0.4", "va": "bottom"}
    ax.annotate("chance", (100 * chance, 1), (3, 2), **at, **offset)
    _name_lines(ax, [f"{v}  (n = {n})" for v, n in zip(rows["variant"], rows["n"], strict=True)])
    ax.margins(x=0.12)
    ax.set_xlabel("accuracy (%), 95 % interval")
    fig.suptitle(title, size=9)  # above the names too: the axes alone are narrow
    ax.grid(axis="x", color="0.9")
    return fig


def weight_maps(maps: Mapping[str, Mapping]) -> Figure:
    """Draw fused accuracy against two fusion weights: a panel per data set, all on one scale.

    Args:
        maps: title -> ``mv`` and ``dmc``, the weights; ``accuracy[mv][dmc]``, shares; ``authors``
            and ``best_on_test``, a ``mv`` and a ``dmc`` each. Colour is points above or below the
            authors' weights, from -3, so that data sets of different accuracy share a scale.
    """

    def at(grid: Mapping, choice: str) -> tuple[int, int]:
        mv, dmc = (grid[name].index(grid[choice][name]) for name in ("mv", "dmc"))
        return mv, dmc

    points = {}
    for title, grid in maps.items():
        accuracy = 100 * np.asarray(grid["accuracy"])
        points[title] = accuracy - accuracy[at(grid, "authors")]
    high = max(p.max() for p in points.values())
    fig, (axes,) = subplots(1, len(maps), (PAGE_WIDTH, 3.7))
    marks = {
        "authors": ("s", "the authors' weights"),
        "best_on_test": ("*", "highest on the test videos: chosen on them, so not a result"),
    }
    # Weights that leave a stream out lose more than 3 points: not worth the colours.
    scale = {"cmap": "viridis", "vmin": -3, "vmax": high}
    for ax, (title, grid) in zip(axes, maps.items(), strict=True):
        half = (grid["dmc"][1] - grid["dmc"][0]) / 2
        ends = [(weights[0], weights[-1]) for weights in (grid["dmc"], grid["mv"])]
        edges = [edge for first, last in ends for edge in (first - half, last + half)]
        image = ax.imshow(points[title], origin="lower", extent=edges, **scale)
        for name, (marker, label) in marks.items():
            weights = grid[name]["dmc"], grid[name]["mv"]
            ax.plot(*weights, marker, mfc="white", mec=BLACK, ms=9, ls="none", label=label)
        highest = points[title][at(grid, "best_on_test")]
        ax.set(title=f"{title}: highest {highest:+.2f}", xlabel="weight of DMC")
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel("weight of motion vectors")
    fig.colorbar(image, ax=axes, label="points from the authors' weights", extend="min")
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=2, **BELOW)
    return fig


def class_gains(rows: pd.DataFrame, *, title: str) -> Figure:
    """Draw the gain or loss of each class, or change, with its interval, in the rows' order.

    Args:
        rows: columns ``class`` (a name), ``gain``, ``low``, ``high``, shares from -1 to 1.
        title: what is compared with what, on how many videos.
    """
    names = rows["class"].str.replace("_", " ")
    # The names stand upright below the axes: long ones need a taller figure.
    fig, ((ax,),) = subplots(1, 1, (PAGE_WIDTH, 2.5 + 0.065 * names.str.len().max()))
    x, (gain, low, high) = np.arange(len(rows)), 100 * rows[["gain", "low", "high"]].to_numpy().T
    # With few films a gain may lie outside the percentiles of its bootstrap.
    below, above = (gain - low).clip(0), (high - gain).clip(0)
    for colour, chosen in ((BLUE, gain > 0), ("0.5", gain == 0), (RED, gain < 0)):
        bars = [below[chosen], above[chosen]]
        ax.errorbar(x[chosen], gain[chosen], bars, fmt="o", color=colour, ms=4, lw=1)
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set_xticks(x, names, rotation=90, fontsize=8)
    ax.margins(x=0.01)
    ax.set(title=title, ylabel="gain (points), 95 % interval")
    ax.grid(axis="y", color="0.9")
    return fig


def confusion_map(classes: Sequence[str], counts: np.ndarray, n: Sequence[int]) -> Figure:
    """Draw which class was recognised as which, in per cent of its videos; from 5 % as numbers.

    Args:
        classes: names, in the order of rows and columns.
        counts: int, shape ``(classes, classes)``; ``counts[is][called]``.
        n: int, videos of each class; some may be called a class that is not among these.
    """
    percent = 100 * np.asarray(counts) / np.asarray(n)[:, None]
    fig, ((ax,),) = subplots(1, 1, (PAGE_WIDTH, 0.85 * PAGE_WIDTH))
    image = ax.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        if value >= 5:
            colour = "white" if value > 60 else BLACK
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", size=8, color=colour)
    names = [name.replace("_", " ") for name in classes]
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="called", ylabel="is")
    fig.colorbar(image, ax=ax, label="videos of the class (%)", shrink=0.7)
    return fig


def time_shares(parts: pd.DataFrame, *, zoom_ms: float) -> Figure:
    """Draw where a frame's milliseconds go: a stacked bar per method, whole and enlarged.

    Args:
        parts: columns ``method`` (top to bottom), ``part`` (left to right) and ``part_ms``.
        zoom_ms: end of the right panel's axis; longer bars run out of it.
    """
    methods, names = list(parts["method"].unique()), list(parts["part"].unique())
    look = dict(zip(names, zip(CYCLE * 2, [None] * 7 + ["///"] * 7, strict=True), strict=False))
    fig, (axes,) = subplots(1, 2, (PAGE_WIDTH, 0.34 * len(methods) + 1.6), sharey=True)
    for line, method in enumerate(methods):
        left, own = 0.0, parts[parts["method"] == method]
        for part, ms in zip(own["part"], own["part_ms"], strict=True):
            colour, hatch = look[part]
            for ax in axes:
                ax.barh(line, ms, left=left, color=colour, hatch=hatch, ec="white", lw=0.4)
            left += ms
        total = f" {left:.3g} ms" if left < 100 else f" {left:,.0f} ms"
        axes[0].annotate(total, (left, line), va="center", size=8, annotation_clip=False)
    _name_lines(axes[0], methods)
    axes[0].margins(x=0.25)
    axes[0].set(title="whole", xlabel="ms per frame")
    axes[1].set(title=f"the first {zoom_ms:.0f} ms", xlabel="ms per frame", xlim=(0, zoom_ms))
    handles = [
        Rectangle((0, 0), 1, 1, fc=colour, hatch=hatch, ec="white", label=name)
        for name, (colour, hatch) in look.items()
    ]
    fig.legend(handles=handles, ncols=3, **BELOW)
    return fig


def cost_curves(rows: pd.DataFrame, labels: Mapping[str, tuple[str, str]]) -> Figure:
    """Draw how cost grows: a panel per axis, both scales logarithmic, quartiles as bands.

    Args:
        rows: columns ``axis``, ``x``, ``method``, ``ms``, ``lower_ms``, ``upper_ms``.
        labels: axis -> the labels of its panel's x and y.
    """
    look = _looks(rows["method"].unique())
    fig, (axes,) = subplots(1, len(labels), (PAGE_WIDTH, 2.9))
    shown = {}
    for ax, (axis, (x_label, y_label)) in zip(axes, labels.items(), strict=True):
        for method, own in rows[rows["axis"] == axis].groupby("method", sort=False):
            colour, marker = look[method]
            band = {"color": colour, "alpha": 0.2, "lw": 0}
            ax.fill_between(own["x"], own["lower_ms"], own["upper_ms"], **band)
            (shown[method],) = ax.plot(
                own["x"], own["ms"], f"{marker}-", color=colour, ms=4, lw=1.2, label=method
            )
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(sorted(rows.loc[rows["axis"] == axis, "x"].unique()))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(LogFormatter())  # the only ticks within one decade
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set(xlabel=x_label, ylabel=y_label)
        ax.grid(color="0.9")
    fig.legend(handles=list(shown.values()), ncols=3, **BELOW)
    return fig


def error_by_region(rows: pd.DataFrame, *, title: str) -> Figure:
    """Draw end-point errors with their intervals: a line per region, a mark per method.

    Args:
        rows: columns ``region`` (top to bottom), ``method``, ``error_px``, ``low``, ``high``.
        title: what the errors were measured against.
    """
    regions, methods = list(rows["region"].unique()), list(rows["method"].unique())
    fig, ((ax,),) = subplots(1, 1, (0.8 * PAGE_WIDTH, 0.42 * len(regions) + 1.6))
    for step, (method, (colour, marker)) in enumerate(_looks(methods).items()):
        own = rows[rows["method"] == method]
        error = own["error_px"].to_numpy()
        shift = 0.6 * ((step + 0.5) / len(methods) - 0.5)  # so that intervals do not overlap
        y = [regions.index(region) + shift for region in own["region"]]
        width = np.abs(own[["low", "high"]].to_numpy().T - error)
        ax.errorbar(error, y, xerr=width, fmt=marker, color=colour, ms=4, capsize=2, label=method)
    _name_lines(ax, regions)
    ax.set_xlim(left=0)
    ax.set(title=title, xlabel="end-point error (px per frame), 95 % interval over clips")
    ax.grid(axis="x", color="0.9")
    fig.legend(ncols=2 if max(map(len, methods)) > 12 else min(len(methods), 4), **BELOW)
    return fig


def trade_off(rows: Sequence[Mapping]) -> Figure:
    """Draw accuracy against distance to flow, a labelled mark per variant: left and up is better.

    Args:
        rows: ``variant``; ``accuracy``, ``low``, ``high``, shares from 0 to 1; ``epe_px``,
            ``epe_low``, ``epe_high``, px per frame, the ends None where there is no interval; and
            ``kind``: "alpha" for a weight of reconstruction, "mark" for all else. A line joins the
            alphas in the order of the rows.
    """
    fig, ((ax,),) = subplots(1, 1, (PAGE_WIDTH, 4.2))
    table = pd.DataFrame(rows)
    ends = {"epe_low": table["epe_px"], "epe_high": table["epe_px"]}
    table = table.astype(dict.fromkeys(ends, float)).fillna(ends)
    table[["accuracy", "low", "high"]] *= 100
    sweep = table[table["kind"] == "alpha"]
    ax.plot(sweep["epe_px"], sweep["accuracy"], color="0.4", lw=1.2)
    looks = zip(CYCLE * 2, MARKERS * 2, strict=True)
    labels = []
    for row in table.itertuples():
        colour, marker = ("0.4", "o") if row.kind == "alpha" else next(looks)
        across = [[row.epe_px - row.epe_low], [row.epe_high - row.epe_px]]
        up = [[row.accuracy - row.low], [row.high - row.accuracy]]
        bars = {"xerr": across, "yerr": up, "elinewidth": 0.8, "capsize": 2}
        ax.errorbar(row.epe_px, row.accuracy, fmt=marker, color=colour, ms=6, **bars)
        labels.append(ax.annotate(row.variant, (row.epe_px, row.accuracy), color=colour, size=8))
    ax.set(xlabel="distance to flow: end-point error (px per frame)", ylabel="accuracy (%)")
    joined = "; the line joins the weights of reconstruction" if len(sweep) else ""
    ax.set_title(f"95 % intervals{joined}")
    ax.margins(0.1)
    ax.grid(color="0.9")
    _place_apart(fig, labels)
    return fig


def accuracy_speed(rows: pd.DataFrame, *, band: tuple[str, str]) -> Figure:
    """Draw the paper's Figures 1 and 4: accuracy against milliseconds per frame, a panel each.

    Args:
        rows: columns ``panel``, ``method``, ``ms`` (per frame), ``accuracy`` (per cent) and
            ``origin``: "paper" is drawn hollow, any other word filled; each with its number.
        band: two methods; where a panel has both from one origin, the space between their
            accuracies is shaded, as in Figure 4.
    """
    fig, (axes,) = subplots(1, rows["panel"].nunique(), (PAGE_WIDTH, 3.6))
    look = _looks(rows["method"].unique())
    for ax, (panel, part) in zip(axes, rows.groupby("panel", sort=False), strict=True):
        left = min(PAPERS_MS[0], part["ms"].min() / 4)
        right = max(PAPERS_MS[1], part["ms"].max() * 4)
        for row in part.itertuples():
            colour, marker = look[row.method]
            paper = row.origin == "paper"
            size, fill = (9, "none") if paper else (5.5, colour)  # one may lie inside the other
            ax.plot(row.ms, row.accuracy, marker, ms=size, mew=1.6, color=colour, mfc=fill)
            # To the left of the mark near the right edge, where there is no room.
            shift, side = (-8, "right") if paper or row.ms > right / 10 else (8, "left")
            text = f"{row.accuracy:.{1 if paper else 2}f}"
            at = {"textcoords": "offset points", "ha": side, "va": "center", "size": 8}
            ax.annotate(text, (row.ms, row.accuracy), (shift, 0), **at)
        for _, same in part.groupby("origin"):
            ends = same.set_index("method")["accuracy"]
            if set(band) <= set(ends.index):
                ax.axhspan(ends[band[0]], ends[band[1]], color=SKY, alpha=0.2, lw=0, zorder=0)
        ax.set(title=panel, xlabel="ms per frame", xscale="log", xlim=(left, right))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.grid(color="0.9")
        ax.margins(y=0.12)
    axes[0].set_ylabel("accuracy (%)")
    fig.legend(handles=_legend(look, rows["origin"].unique(), band), ncols=3, **BELOW)
    return fig


def _looks(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each method."""
    return dict(zip(methods, zip(CYCLE, MARKERS, strict=True), strict=False))


def _place_apart(fig: Figure, labels: Sequence[Annotation]) -> None:
    """Put each label beside its mark where it overlaps fewest marks and labels placed before."""
    fig.draw_without_rendering()  # the layout is known from here on
    marks = [label.axes.transData.transform(label.xy) for label in labels]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in marks]
    for label in labels:
        choices = []
        for far in (4, 14, 24):  # points above or below the mark
            for x, align in ((6, "left"), (-6, "right")):
                for y, side in ((far, "bottom"), (-far, "top")):
                    label.set(anncoords="offset points", position=(x, y), ha=align, va=side)
                    box = label.get_window_extent()
                    inside = label.axes.bbox.containsx(box.x0) and label.axes.bbox.containsx(box.x1)
                    cost = box.count_overlaps(taken) + 9 * (not inside)
                    choices.append((cost, len(choices), (x, y), align, side, box))
        *_, at, align, side, box = min(choices)
        label.set(position=at, ha=align, va=side)
        taken.append(box)


def _name_lines(ax: Axes, names: Sequence[str]) -> None:
    """Write a name at each line of the y axis, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def _legend(
    look: dict[str, tuple[str, str]], origins: Sequence[str], band: tuple[str, str]
) -> list[Artist]:
    """What the marks mean: one entry per method, then hollow and filled, then the band."""
    marks = [
        Line2D([], [], marker=marker, color=colour, ls="none", label=method)
        for method, (colour, marker) in look.items()
    ]
    for origin in origins:
        fill = {"mfc": "none", "ms": 9} if origin == "paper" else {"mfc": "0.3", "ms": 5.5}
        marks.append(Line2D([], [], marker="o", color="0.3", ls="none", label=origin, **fill))
    label = f"from {' to '.join(method.split()[0] for method in band)}"
    return [*marks, Rectangle((0, 0), 1, 1, color=SKY, alpha=0.2, lw=0, label=label)]
