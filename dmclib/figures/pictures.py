"""Arrays in, one matplotlib figure out.

A notebook's cell ends with the figure, or with :func:`save`, which returns it; either shows it
once. Panels that may be compared share one scale, and the scale is printed. Colours are Okabe and
Ito's, which any colour vision can tell apart. The direction wheel of motion is the usual one, so
figures that need it also print lengths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from dmclib import files, flow, paths
from dmclib.codec import CompressedFrame

# Okabe and Ito's colours, without the yellow, which is too light for lines on white.
BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PINK, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
CYCLE = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK)
PAGE_WIDTH = 7.0  # inches; with text of 8 points or more, readable in a column half as wide
RESIDUAL_LEVELS = 64  # grey levels drawn as black or white: one scale for every residual


@dataclass(frozen=True)
class Mark:
    """A square window of a picture, and the change of the mean error in it."""

    x: int  # of its middle, px
    y: int
    radius: int  # half its side, px
    change_px: float  # mean end-point error after - before; negative is better


def use_house_style() -> None:
    """Set fonts, colours and resolution for all later figures; call once per notebook."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=CYCLE),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 9,
            "figure.dpi": 72,
            "font.size": 9,
            "legend.frameon": False,
            "pdf.fonttype": 42,  # text stays text
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
        full_colour_px: displacement drawn at full saturation. It has no default: with a scale per
            panel, a weak motion vector and a strong flow would look alike.
    """
    return _pictures(["frame", *fields], {"": [frame, *fields.values()]}, full_colour_px)


def motion_arrows(frame: np.ndarray, motion: np.ndarray) -> Figure:
    """Draw a motion field ``(2, H, W)``, pixels, as arrows on its frame (uint8, ``(H, W, 3)``).

    One arrow per block of 16 x 16 pixels, read at the block's middle: from where its content was to
    where it is, in the picture's own pixels. Blocks at rest have none.
    """
    height, width = motion.shape[1:]
    y, x = np.mgrid[8:height:16, 8:width:16]
    dx, dy = motion[:, y, x]
    moving = np.hypot(dx, dy) > 0
    x, y, dx, dy = x[moving], y[moving], dx[moving], dy[moving]

    fig, ((ax,),) = subplots(1, 1, (0.7 * PAGE_WIDTH, 0.7 * PAGE_WIDTH * height / width + 0.25))
    # Half-way to white, so that arrows are seen in a dark frame.
    ax.imshow(frame // 2 + 128)
    in_pixels = {"angles": "xy", "scale_units": "xy", "scale": 1}
    ax.quiver(x - dx, y - dy, dx, dy, **in_pixels, color=RED, width=0.004)
    ax.set_axis_off()
    ax.set_title(
        f"{moving.sum()} of {moving.size} blocks move; "
        f"arrows in the picture's pixels, longest {np.hypot(dx, dy).max(initial=0):.3g} px"
    )
    return fig


def residual_picture(residual: np.ndarray) -> Figure:
    """Draw a residual ``(3, H, W)``, grey levels: its colours, and its size at each pixel.

    Left, mid-grey is zero. Right, the mean of the three channels' absolute values.
    """
    height, width = residual.shape[1:]
    fig, ((left, right),) = subplots(1, 2, (PAGE_WIDTH, 0.45 * PAGE_WIDTH * height / width + 0.3))
    left.imshow(to_rgb(residual, full_colour_px=1))
    left.set_title(f"residual: grey = 0, black to white = ±{RESIDUAL_LEVELS}")
    size = right.imshow(np.abs(residual).mean(axis=0), cmap="viridis", vmin=0, vmax=RESIDUAL_LEVELS)
    right.set_title("mean absolute value of R, G, B")
    fig.colorbar(size, ax=right, label="grey levels", shrink=0.8, extend="max")
    for ax in (left, right):
        ax.set_axis_off()
    return fig


def gop_strip(gop: Sequence[CompressedFrame], *, full_colour_px: float) -> Figure:
    """Draw frames of a GOP, a column each: decoded, motion, residual.

    Up to six columns are readable. An I-frame's panels of motion and residual are empty.
    """
    rows = {
        "decoded": [frame.rgb for frame in gop],
        "motion": [None if frame.is_key else frame.motion for frame in gop],
        "residual": [None if frame.is_key else frame.residual for frame in gop],
    }
    return _pictures(_positions(gop), rows, full_colour_px)


def accumulation(
    plain: Sequence[CompressedFrame],
    accumulated: Sequence[CompressedFrame],
    *,
    full_colour_px: float,
) -> Figure:
    """Draw motion and residual against the frame before and against the I-frame.

    Args:
        plain: P-frames as ``codec.read_at`` returns them, a column each.
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
    return _pictures(_positions(plain), rows, full_colour_px)


def cue_panels(
    examples: Mapping[str, Mapping[str, np.ndarray]],
    *,
    full_colour_px: float,
    marks: Mapping[str, Mapping[str, Sequence[Mark]]] | None = None,
) -> Figure:
    """Draw the paper's Figure 5: a row per example, a column per kind of input.

    Args:
        examples: row label -> column title -> array: uint8 ``(H, W, 3)`` is a picture, ``(2, H,
            W)`` motion in pixels, ``(3, H, W)`` a residual. Every row has the first row's columns.
        full_colour_px: displacement drawn at full saturation, in all of them.
        marks: row label -> column title -> windows to mark, as :func:`error_changes` finds them: a
            circle where the error fell, a dashed square where it rose. The change in px is printed
            under the panel.
    """
    titles = list(next(iter(examples.values())))
    rows = {label: [row[title] for title in titles] for label, row in examples.items()}
    fig = _pictures(titles, rows, full_colour_px)
    if not marks:
        return fig
    fig.set_figheight(fig.get_figheight() + 0.15 + 0.35 * len(examples))  # for the text below
    panels = iter(fig.axes)
    for label in examples:
        for title in titles:
            _draw_marks(next(panels), marks.get(label, {}).get(title, ()))
    legend = "error against flow, mean of the window, px: circle fell most, dashed square rose most"
    fig.supxlabel(f"{legend}\n{fig.get_supxlabel()}", fontsize=8)
    return fig


def error_changes(
    before: np.ndarray, after: np.ndarray, flow_field: np.ndarray, *, count: int, radius: int
) -> list[Mark]:
    """Find the windows in which a field came closest to flow, and those in which it moved away.

    The measure is the end-point error against flow, averaged over a window inside the picture.
    First come the ``count`` windows where it fell most from ``before`` to ``after``, the largest
    fall first, then the ``count`` where it rose most. No two windows overlap. There are fewer if it
    fell (or rose) in fewer, or if no room is left.

    Args:
        before, after: motion ``(2, H, W)``, px, such as the vectors and the cue made from them.
        flow_field: what both are compared with, ``(2, H, W)``, px.
        count: windows of each sort.
        radius: half a window's side, px; less than half of the picture's.
    """
    change = flow.endpoint_error(after, flow_field) - flow.endpoint_error(before, flow_field)
    side = 2 * radius + 1
    windows = np.lib.stride_tricks.sliding_window_view(change, (side, side))
    mean = windows.mean(axis=(2, 3))  # at [y, x]: the window whose middle is at y + r, x + r
    free = np.ones(mean.shape, bool)
    marks = []
    for sign in (-1, 1):
        for _ in range(count):
            size = np.where(free, sign * mean, 0)
            y, x = np.unravel_index(size.argmax(), mean.shape)
            if size[y, x] <= 0:
                break
            marks.append(Mark(int(x) + radius, int(y) + radius, radius, float(mean[y, x])))
            free[max(y - side + 1, 0) : y + side, max(x - side + 1, 0) : x + side] = False
    return marks


def subplots(rows: int, columns: int, inches: tuple[float, float], **shared):
    """A figure and its axes, always (rows, columns)."""
    fig, axes = plt.subplots(
        rows, columns, figsize=inches, layout="constrained", squeeze=False, **shared
    )
    # Else a notebook would draw it again at the end of the cell, and keep every figure in memory.
    plt.close(fig)
    return fig, axes


def _pictures(
    titles: Sequence[str], rows: Mapping[str, Sequence[np.ndarray | None]], full_colour_px: float
) -> Figure:
    """A grid of pictures on one printed scale, titles above; None leaves a panel empty."""
    arrays = list(chain(*rows.values()))
    first = next(array for array in arrays if array is not None)
    height, width = first.shape[:2] if first.dtype == np.uint8 else first.shape[1:]
    inches = PAGE_WIDTH / max(len(titles), 3)
    size = (inches * len(titles), inches * height / width * len(rows) + 0.5)
    fig, axes = subplots(len(rows), len(titles), size)
    for ax, array in zip(axes.flat, arrays, strict=True):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if array is not None:
            ax.imshow(to_rgb(array, full_colour_px=full_colour_px))
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax, label in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(label)
    scales = {  # by number of planes
        2: f"motion: full colour = {full_colour_px:g} px per frame, "
        "right red, down green, left cyan, up violet",
        3: f"residual: grey = 0, black to white = ±{RESIDUAL_LEVELS} grey levels",
    }
    drawn = (len(a) for a in arrays if a is not None and a.dtype != np.uint8)
    fig.supxlabel("\n".join(scales[planes] for planes in dict.fromkeys(drawn)), fontsize=8)
    return fig


def title_strip(titles: Sequence[str], note: str, *, width: int, height: int) -> np.ndarray:
    """Draw titles side by side, each above a panel of equal width, and a note below them.

    Returns uint8 ``(height, width, 3)``, RGB, to be put above pictures. The text is sized to
    ``height``, px, and to a short ``width``.
    """
    fig = plt.figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    # A letter's width is some 0.55 of its size; a pixel is 0.72 points here.
    largest = min(0.28 * height, 0.97 * width / (0.55 * len(note)))
    for number, title in enumerate(titles):
        middle = (number + 0.5) / len(titles)
        fig.text(middle, 0.7, title, ha="center", va="center", fontsize=0.72 * 0.38 * height)
    fig.text(0.5, 0.22, note, ha="center", va="center", fontsize=0.72 * largest)
    fig.canvas.draw()
    drawn = np.asarray(fig.canvas.buffer_rgba())[..., :3].copy()
    plt.close(fig)
    return drawn


def _draw_marks(ax: Axes, marks: Sequence[Mark]) -> None:
    """A circle where the error fell, a dashed square where it rose; under the panel, how much."""
    look, fell, rose = {"fill": False, "lw": 1.3, "ec": BLACK}, [], []
    for mark in marks:
        if mark.change_px < 0:
            ax.add_patch(Circle((mark.x, mark.y), mark.radius, **look))
            fell.append(-mark.change_px)
        else:
            corner, side = (mark.x - mark.radius, mark.y - mark.radius), 2 * mark.radius
            ax.add_patch(Rectangle(corner, side, side, ls=(0, (2, 1)), **look))
            rose.append(mark.change_px)
    lines = []
    for word, changes in (("fell", fell), ("rose", rose)):
        if changes:
            lines.append(f"{word} {', '.join(f'{change:.2f}' for change in changes)}")
    ax.set_xlabel("\n".join(lines), fontsize=8)


def to_rgb(array: np.ndarray, *, full_colour_px: float) -> np.ndarray:
    """Draw motion ``(2, H, W)`` or a residual ``(3, H, W)``, zero at mid-grey: uint8 ``(H, W, 3)``.

    A picture, uint8 ``(H, W, 3)``, is returned as it is. Motion: :func:`flow.flow_to_rgb`.
    """
    if array.dtype == np.uint8:
        return array
    if len(array) == 2:
        return flow.flow_to_rgb(array, full_colour_px=full_colour_px)
    grey = 128 + array * (127 / RESIDUAL_LEVELS)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _positions(frames: Sequence[CompressedFrame]) -> list[str]:
    return ["I-frame" if f.is_key else f"P-frame {f.gop_position}" for f in frames]
