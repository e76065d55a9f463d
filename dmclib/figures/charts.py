"""Numbers as charts, in the house style of ``figures``: accuracies, curves, times."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter, NullLocator

from dmclib.figures.pictures import BLACK, BLUE, CYCLE, ORANGE, PAGE_WIDTH, RED, SKY, subplots

PAPERS_MS = (0.1, 100)  # the paper's axis; ours is never shorter, so that slopes can be compared


def packet_sizes(sizes_bytes: Sequence[int], is_key: Sequence[bool]) -> Figure:
    """Draw what each compressed frame costs, in order; bars in kB (1000 bytes), I and P apart."""
    kilobytes, is_key = np.asarray(sizes_bytes) / 1000, np.asarray(is_key, bool)
    position = np.arange(len(kilobytes))
    fig, axes = subplots(1, 1, (PAGE_WIDTH, 2.4))
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


def training_curves(log: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Draw how training went: a row per metric, a column per stage, a colour per variant.

    Args:
        log: columns ``stage``, ``epoch``, ``variant``, ``seed`` and one for each metric; a metric
            that a variant does not have is NaN. Thin lines are seeds, the thick one their mean.
        metrics: the columns to draw, with the unit or "(share)" in their name where they have one.
    """
    stages, variants = list(log["stage"].unique()), list(log["variant"].unique())
    inches = (PAGE_WIDTH, 1.9 * len(metrics) + 0.5)
    fig, axes = subplots(len(metrics), len(stages), inches, sharex="col", sharey="row")
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
    for ax in axes.flat:
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.ticklabel_format(axis="y", useOffset=False)
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
    fig, axes = subplots(1, 1, (0.8 * PAGE_WIDTH, 0.32 * len(rows) + 1.0))
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
    fig.suptitle(title, size=9)  # over the names as well: the axes alone are narrow
    ax.grid(axis="x", color="0.9")
    return fig


def weight_maps(maps: Mapping[str, Mapping]) -> Figure:
    """Draw how fused accuracy follows two fusion weights, a panel a data set, on one scale.

    Args:
        maps: title -> ``mv`` and ``dmc``, the weights; ``accuracy[mv][dmc]``, shares; ``authors``
            and ``best_on_test``, a ``mv`` and a ``dmc`` each. Colour is points above or below the
            authors' weights, from -3, so that data sets of different accuracy share a scale.
    """
    points = {}
    for title, found in maps.items():
        accuracy = 100 * np.asarray(found["accuracy"])
        mv, dmc = (found[name].index(found["authors"][name]) for name in ("mv", "dmc"))
        points[title] = accuracy - accuracy[mv, dmc]
    high = max(p.max() for p in points.values())
    fig, axes = subplots(1, len(maps), (PAGE_WIDTH, 3.7))
    marks = {
        "authors": ("s", "the authors' weights"),
        "best_on_test": ("*", "highest on the test videos: chosen on them, so not a result"),
    }
    for ax, (title, found) in zip(axes[0], maps.items(), strict=True):
        half = (found["dmc"][1] - found["dmc"][0]) / 2
        edges = [
            side
            for weights in (found["dmc"], found["mv"])
            for side in (weights[0] - half, weights[-1] + half)
        ]
        # Lower than 3 points under it are weights that leave a stream out: not worth the colours.
        scale = {"cmap": "viridis", "vmin": -3, "vmax": high}
        image = ax.imshow(points[title], origin="lower", extent=edges, **scale)
        for name, (marker, label) in marks.items():
            place = found[name]["dmc"], found[name]["mv"]
            ax.plot(*place, marker, mfc="white", mec=BLACK, ms=9, ls="none", label=label)
        mv, dmc = (found[name].index(found["best_on_test"][name]) for name in ("mv", "dmc"))
        ax.set_title(f"{title}: highest {points[title][mv, dmc]:+.2f}")
        ax.set_xlabel("weight of DMC")
        ax.spines[:].set_visible(False)
    axes[0, 0].set_ylabel("weight of motion vectors")
    fig.colorbar(image, ax=axes, label="points from the authors' weights", extend="min")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def class_gains(rows: pd.DataFrame, *, title: str) -> Figure:
    """Draw what each class, or change, gains or loses, with its interval, in the rows' order.

    Args:
        rows: columns ``class`` (a name), ``gain``, ``low``, ``high``, shares from -1 to 1.
        title: what is compared with what, on how many videos.
    """
    names = rows["class"].str.replace("_", " ")
    # The names stand upright below the axes, and are not to eat them up.
    fig, axes = subplots(1, 1, (PAGE_WIDTH, 2.5 + 0.065 * names.str.len().max()))
    ax = axes[0, 0]
    place, points = np.arange(len(rows)), 100 * rows[["gain", "low", "high"]].to_numpy()
    # A bootstrap of few films may leave the found gain outside its percentiles.
    below, above = (points[:, 0] - points[:, 1]).clip(0), (points[:, 2] - points[:, 0]).clip(0)
    sides = {BLUE: points[:, 0] > 0, "0.5": points[:, 0] == 0, RED: points[:, 0] < 0}
    for colour, chosen in sides.items():
        bars = [below[chosen], above[chosen]]
        ax.errorbar(place[chosen], points[chosen, 0], bars, fmt="o", color=colour, ms=4, lw=1)
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set_xticks(place, names, rotation=90, fontsize=8)
    ax.margins(x=0.01)
    ax.set_ylabel("gain (points), 95 % interval")
    ax.set_title(title)
    ax.grid(axis="y", color="0.9")
    return fig


def confusion_map(classes: Sequence[str], counts: np.ndarray, n: Sequence[int]) -> Figure:
    """Draw which classes are called which, in per cent of a class's videos; from 5 % in figures.

    Args:
        classes: names, in the order of the rows and columns.
        counts: int, shape ``(classes, classes)``; ``counts[is][called]``.
        n: int, videos of each class; some may be called a class that is not among these.
    """
    percent = 100 * np.asarray(counts) / np.asarray(n)[:, None]
    fig, axes = subplots(1, 1, (PAGE_WIDTH, 0.85 * PAGE_WIDTH))
    ax = axes[0, 0]
    image = ax.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        if value >= 5:
            colour = "white" if value > 60 else BLACK
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", size=8, color=colour)
    names = [name.replace("_", " ") for name in classes]
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_xlabel("called")
    ax.set_ylabel("is")
    fig.colorbar(image, ax=ax, label="videos of the class (%)", shrink=0.7)
    return fig


def time_shares(parts: pd.DataFrame, *, zoom_ms: float) -> Figure:
    """Draw where a frame's milliseconds go: a stacked bar a method, whole and enlarged.

    Args:
        parts: columns ``method`` (top to bottom), ``part`` (left to right) and ``part_ms``.
        zoom_ms: where the right panel's axis ends; longer bars run out of it.
    """
    methods, names = list(parts["method"].unique()), list(parts["part"].unique())
    look = dict(zip(names, zip(CYCLE * 2, [None] * 7 + ["///"] * 7, strict=True), strict=False))
    fig, axes = subplots(1, 2, (PAGE_WIDTH, 0.34 * len(methods) + 1.6), sharey=True)
    for place, method in enumerate(methods):
        left, own = 0.0, parts[parts["method"] == method]
        for part, ms in zip(own["part"], own["part_ms"], strict=True):
            colour, hatch = look[part]
            for ax in axes[0]:
                ax.barh(place, ms, left=left, color=colour, hatch=hatch, ec="white", lw=0.4)
            left += ms
        total = f" {left:.3g} ms" if left < 100 else f" {left:,.0f} ms"
        axes[0, 0].annotate(total, (left, place), va="center", size=8, annotation_clip=False)
    axes[0, 0].set_yticks(range(len(methods)), methods)
    axes[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    axes[0, 0].margins(x=0.25)
    axes[0, 1].set_xlim(0, zoom_ms)
    for ax, title in zip(axes[0], ("whole", f"the first {zoom_ms:.0f} ms"), strict=True):
        ax.set_title(title)
        ax.set_xlabel("ms per frame")
    handles = [
        Rectangle((0, 0), 1, 1, fc=colour, hatch=hatch, ec="white", label=name)
        for name, (colour, hatch) in look.items()
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3)
    return fig


def cost_curves(rows: pd.DataFrame, labels: Mapping[str, tuple[str, str]]) -> Figure:
    """Draw how cost grows: a panel an axis, both scales logarithmic, quartiles as bands.

    Args:
        rows: columns ``axis``, ``x``, ``method``, ``ms``, ``lower_ms``, ``upper_ms``.
        labels: axis -> what stands along its panel's x, and along its y.
    """
    methods = list(rows["method"].unique())
    look = dict(zip(methods, zip(CYCLE, "osD^vPX", strict=True), strict=False))
    fig, axes = subplots(1, len(labels), (PAGE_WIDTH, 2.9))
    shown = {}
    for ax, (axis, (across, along)) in zip(axes[0], labels.items(), strict=True):
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
        ax.yaxis.set_minor_formatter(LogFormatter())  # within one decade these are the only ticks
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel(across)
        ax.set_ylabel(along)
        ax.grid(color="0.9")
    fig.legend(handles=list(shown.values()), loc="outside lower center", ncols=3)
    return fig


def error_by_region(rows: pd.DataFrame, *, title: str) -> Figure:
    """Draw end-point errors with their intervals: a line a region of the picture, a mark a method.

    Args:
        rows: columns ``region`` (top to bottom), ``method``, ``error_px``, ``low``, ``high``.
        title: what the errors were measured against.
    """
    places, methods = list(rows["region"].unique()), list(rows["method"].unique())
    fig, axes = subplots(1, 1, (0.8 * PAGE_WIDTH, 0.42 * len(places) + 1.2))
    ax = axes[0, 0]
    look = zip(methods, CYCLE, "osD^vPX", strict=False)
    for step, (method, colour, marker) in enumerate(look):
        own = rows[rows["method"] == method]
        error = own["error_px"].to_numpy()
        beside = 0.6 * ((step + 0.5) / len(methods) - 0.5)  # so that intervals do not overlap
        y = [places.index(region) + beside for region in own["region"]]
        width = np.abs(own[["low", "high"]].to_numpy().T - error)
        ax.errorbar(error, y, xerr=width, fmt=marker, color=colour, ms=4, capsize=2, label=method)
    ax.set_yticks(range(len(places)), places)
    ax.set_ylim(len(places) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("end-point error (px per frame), 95 % interval over clips")
    ax.set_title(title)
    ax.grid(axis="x", color="0.9")
    fig.legend(loc="outside lower center", ncols=len(methods))
    return fig


def accuracy_speed(rows: pd.DataFrame, *, band: tuple[str, str]) -> Figure:
    """Draw the paper's Figures 1 and 4: accuracy against milliseconds a frame, a panel each.

    Args:
        rows: columns ``panel``, ``method``, ``ms`` (per frame), ``accuracy`` (per cent) and
            ``origin``: "paper" is drawn hollow, any other word filled; each with its number.
        band: two methods; the room between their accuracies, where a panel has both from one
            origin, is shaded, as in Figure 4.
    """
    panels, methods = list(rows["panel"].unique()), list(rows["method"].unique())
    fig, axes = subplots(1, len(panels), (PAGE_WIDTH, 3.6))
    look = dict(zip(methods, zip(CYCLE, "osD^vPX", strict=False), strict=False))
    for ax, panel in zip(axes[0], panels, strict=True):
        part = rows[rows["panel"] == panel]
        left = min(PAPERS_MS[0], part["ms"].min() / 4)
        right = max(PAPERS_MS[1], part["ms"].max() * 4)
        for row in part.itertuples():
            colour, marker = look[row.method]
            paper = row.origin == "paper"
            size, fill = (9, "none") if paper else (5.5, colour)  # one may lie inside the other
            ax.plot(row.ms, row.accuracy, marker, ms=size, mew=1.6, color=colour, mfc=fill)
            before = paper or row.ms > right / 10  # there is no room behind it
            ax.annotate(
                f"{row.accuracy:.1f}" if paper else f"{row.accuracy:.2f}",
                (row.ms, row.accuracy), (-8 if before else 8, 0), textcoords="offset points",
                ha="right" if before else "left", va="center", size=8,
            )  # fmt: skip
        for _, same in part.groupby("origin"):
            ends = same.set_index("method")["accuracy"]
            if set(band) <= set(ends.index):
                ax.axhspan(ends[band[0]], ends[band[1]], color=SKY, alpha=0.2, lw=0, zorder=0)
        ax.set_xscale("log")
        ax.set_xlim(left, right)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_title(panel)
        ax.grid(color="0.9")
        ax.margins(y=0.12)
        ax.set_xlabel("ms per frame")
    axes[0, 0].set_ylabel("accuracy (%)")
    fig.legend(
        handles=_legend(look, rows["origin"].unique(), band), loc="outside lower center", ncols=3
    )
    return fig


def _legend(
    look: dict[str, tuple[str, str]], origins: Sequence[str], band: tuple[str, str]
) -> list[Line2D | plt.Rectangle]:
    """What the marks mean: a line a method, then hollow and filled, then the band."""
    methods = [
        Line2D([], [], marker=marker, color=colour, ls="none", label=method)
        for method, (colour, marker) in look.items()
    ]
    fills = [
        Line2D(
            [], [], marker="o", color="0.3", ls="none", label=origin,
            mfc="none" if origin == "paper" else "0.3", ms=9 if origin == "paper" else 5.5,
        )
        for origin in origins
    ]  # fmt: skip
    shade = plt.Rectangle((0, 0), 1, 1, color=SKY, alpha=0.2, lw=0)
    shade.set_label(f"from {' to '.join(method.split()[0] for method in band)}")
    return [*methods, *fills, shade]
