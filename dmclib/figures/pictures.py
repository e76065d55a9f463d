"""Arrays in, one matplotlib figure out.

A notebook's cell ends with the figure, or with :func:`save`, which gives it back: either shows it
once. Panels that may be compared share one scale, and the scale is printed. Colours are Okabe and
Ito's, told apart with any colour vision; the direction wheel of motion is the usual one, so figures
that need it also say lengths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """A square window of a picture, and by how much the mean error in it changed."""

    x: int  # of its middle, px
    y: int
    radius: int  # half its side, px
    change_px: float  # mean end-point error after - before; negative is better


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

    fig, axes = subplots(1, 1, (0.7 * PAGE_WIDTH, 0.7 * PAGE_WIDTH * height / width + 0.25))
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


def residual_picture(residual: np.ndarray) -> Figure:
    """Draw a residual ``(3, H, W)``, grey levels: its colours, and how large it is where.

    Left, mid-grey is nothing missed. Right, the mean of the three channels' absolute values.
    """
    height, width = residual.shape[1:]
    fig, axes = subplots(1, 2, (PAGE_WIDTH, 0.45 * PAGE_WIDTH * height / width + 0.3))
    left, right = axes[0]
    left.imshow(residual_to_rgb(residual))
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
        marks: row label -> column title -> places to mark, as :func:`error_changes` finds them: a
            circle where the error fell, a dashed square where it rose; by how much, in px, stands
            under the panel.
    """
    titles = list(next(iter(examples.values())))
    arrays = [[row[title] for title in titles] for row in examples.values()]
    fig = _pictures(titles, arrays, full_colour_px, list(examples))
    if not marks:
        return fig
    fig.set_figheight(fig.get_figheight() + 0.15 + 0.35 * len(examples))  # for the words below
    panels = iter(fig.axes)
    for label in examples:
        for title in titles:
            _draw_marks(next(panels), marks.get(label, {}).get(title, ()))
    told = "error against flow, mean of the window, px: circle fell most, dashed square rose most"
    fig.supxlabel(f"{told}\n{fig.get_supxlabel()}", fontsize=8)
    return fig


def error_changes(
    before: np.ndarray, after: np.ndarray, flow_field: np.ndarray, *, count: int, radius: int
) -> list[Mark]:
    """Find where a field came closest to flow, and where it went furthest from it.

    The end-point error against flow, averaged over windows that lie inside the picture: first the
    ``count`` windows where it fell most from ``before`` to ``after``, the largest fall first, then
    the ``count`` where it rose most. No two windows overlap. There are fewer where it did not fall
    (or rise), or where no room is left.

    Args:
        before: motion ``(2, H, W)``, px, such as the motion vectors.
        after: the same, such as the cue that was made from them.
        flow_field: what both are compared with, ``(2, H, W)``, px.
        count: windows of each sort.
        radius: half a window's side, px; less than half of the picture's.
    """
    fields = [np.asarray(field, np.float32) for field in (before, after, flow_field)]
    change = np.subtract(*(flow.endpoint_error(f, fields[2]) for f in (fields[1], fields[0])))
    side = 2 * radius + 1
    windows = np.lib.stride_tricks.sliding_window_view(change, (side, side))
    mean = windows.mean(axis=(2, 3))  # at [y, x]: the window whose middle is at y + r, x + r
    free = np.ones(mean.shape, bool)
    marks = []
    for sign in (-1, 1):
        for _ in range(count):
            open_places = np.where(free, sign * mean, 0)
            y, x = np.unravel_index(open_places.argmax(), mean.shape)
            if open_places[y, x] <= 0:
                break
            marks.append(Mark(int(x) + radius, int(y) + radius, radius, float(mean[y, x])))
            free[max(y - side + 1, 0) : y + side, max(x - side + 1, 0) : x + side] = False
    return marks


def subplots(rows: int, columns: int, inches: tuple[float, float], **shared):
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
    fig, axes = subplots(
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
                picture = residual_to_rgb(array)
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


def title_strip(titles: Sequence[str], note: str, *, width: int, height: int) -> np.ndarray:
    """Draw titles side by side, each above a panel of equal width, and a note below them.

    Args:
        titles: left to right.
        note: what holds for all panels, such as their scale.
        width: of the strip, px.
        height: of the strip, px; the text is sized to it, and to the width where that is short.

    Returns:
        uint8 ``(height, width, 3)``, RGB, to be put above pictures.
    """
    fig = plt.figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    # A letter is some 0.55 of the size wide; 0.72 points are a pixel here.
    largest = min(0.28 * height, 0.97 * width / (0.55 * len(note)))
    for number, title in enumerate(titles):
        place = (number + 0.5) / len(titles)
        fig.text(place, 0.7, title, ha="center", va="center", fontsize=0.72 * 0.38 * height)
    fig.text(0.5, 0.22, note, ha="center", va="center", fontsize=0.72 * largest)
    fig.canvas.draw()
    drawn = np.asarray(fig.canvas.buffer_rgba())[..., :3].copy()
    plt.close(fig)
    return drawn


def _draw_marks(ax: Axes, marks: Sequence[Mark]) -> None:
    """A circle where the error fell, a dashed square where it rose; under the panel, how much."""
    look = {"fill": False, "lw": 1.3, "ec": BLACK}
    for mark in marks:
        if mark.change_px < 0:
            ax.add_patch(Circle((mark.x, mark.y), mark.radius, **look))
        else:
            corner, side = (mark.x - mark.radius, mark.y - mark.radius), 2 * mark.radius
            ax.add_patch(Rectangle(corner, side, side, ls=(0, (2, 1)), **look))
    sorts = {
        "fell": [-mark.change_px for mark in marks if mark.change_px < 0],
        "rose": [mark.change_px for mark in marks if mark.change_px >= 0],
    }
    told = [f"{word} {', '.join(f'{c:.2f}' for c in sort)}" for word, sort in sorts.items() if sort]
    ax.set_xlabel("\n".join(told), fontsize=8)


def residual_to_rgb(residual: np.ndarray) -> np.ndarray:
    """Draw a residual ``(3, H, W)`` as uint8 ``(H, W, 3)``, zero at mid-grey."""
    grey = 128 + residual * (127 / RESIDUAL_LEVELS)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _position(frame: CompressedFrame) -> str:
    return "I-frame" if frame.is_key else f"P-frame {frame.gop_position}"
