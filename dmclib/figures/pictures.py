"""Arrays in, one matplotlib figure out.

A notebook's cell ends with the figure, or with :func:`save`, which returns it; either shows it
once. Panels that may be compared share one scale, and the scale is printed. Colours are Okabe and
Ito's, which any colour vision can tell apart. Motion has the usual colour wheel, drawn beside it.
"""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmclib import files, flow, paths
from dmclib.codec import CompressedFrame

# Okabe and Ito's colours, without the yellow, which is too light for lines on white.
BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PINK, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
CYCLE = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK)
PAGE_WIDTH = 7.0  # inches; with text of 8 points or more, readable in a column half as wide
PANEL_INCHES = 1.45  # a panel is never narrower: blocks and limbs must be seen
RESIDUAL_LEVELS = 64  # grey levels drawn as black or white: one scale for every residual


def use_house_style() -> None:
    """Set fonts, colours and resolution for all later figures; call once per notebook.

    A notebook keeps figures as JPEG: of residuals and photographs, PNG would take several times as
    much. :func:`save` writes them without loss.
    """
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=CYCLE),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 9,
            "figure.dpi": 144,  # as wide as a page's column, and sharp
            "font.size": 9,
            "legend.frameon": False,
            "pdf.fonttype": 42,  # text stays text
            "savefig.dpi": 130,
        }
    )
    if "ipykernel" in sys.modules:  # a second to import, and a kernel has it
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        # Colours at every pixel: the edges of blocks are to stay sharp.
        set_matplotlib_formats("jpeg", pil_kwargs={"quality": 85, "subsampling": 0})


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
        fields: panel title -> float field ``(2, H, W)`` in pixels per frame, left to right; a
            further picture, uint8 ``(H, W, 3)``, may stand among them.
        full_colour_px: displacement drawn at full saturation. It has no default: with a scale per
            panel, a weak motion vector and a strong flow would look alike.
    """
    return panels(["decoded picture", *fields], {"": [frame, *fields.values()]}, full_colour_px)[0]


def motion_arrows(frame: np.ndarray, motion: np.ndarray) -> Figure:
    """Draw a motion field ``(2, H, W)``, pixels, as arrows on its frame (uint8, ``(H, W, 3)``).

    One arrow per block of 16 x 16 pixels, read at the block's middle: from where its content was to
    where it is, in the picture's own pixels. Blocks at rest have none.
    """
    height, width = motion.shape[1:]
    fig, ((ax,),) = subplots(1, 1, (0.7 * PAGE_WIDTH, 0.7 * PAGE_WIDTH * height / width + 0.25))
    dx, dy, blocks = draw_arrows(ax, frame, motion)
    ax.set_title(
        f"{len(dx)} of {blocks} blocks move; "
        f"arrows in the picture's pixels, longest {np.hypot(dx, dy).max(initial=0):.3g} px"
    )
    return fig


def draw_arrows(
    ax: Axes, frame: np.ndarray, motion: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw what :func:`motion_arrows` shows; return the arrows' dx and dy and the blocks' count."""
    height, width = motion.shape[1:]
    y, x = np.mgrid[8:height:16, 8:width:16]
    dx, dy = motion[:, y, x]
    moving = np.hypot(dx, dy) > 0
    x, y, dx, dy = x[moving], y[moving], dx[moving], dy[moving]
    # Half-way to white, so that arrows are seen in a dark frame.
    ax.imshow(frame // 2 + 128)
    in_pixels = {"angles": "xy", "scale_units": "xy", "scale": 1}
    ax.quiver(x - dx, y - dy, dx, dy, **in_pixels, color=RED, width=0.004)
    ax.set_axis_off()
    return dx, dy, moving.size


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
    return panels(_positions(gop), rows, full_colour_px)[0]


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
    unit = "px (plain: per frame, accumulated: since the I-frame)"
    return panels(_positions(plain), rows, full_colour_px, unit=unit)[0]


def error_maps(
    frame: np.ndarray, fields: Mapping[str, np.ndarray], flow_field: np.ndarray, *, worst_px: float
) -> Figure:
    """Draw where each of several motion fields is wrong, all on one scale: up to four per row.

    Args:
        frame: uint8, shape ``(H, W, 3)``, RGB; the first panel.
        fields: panel title -> float field ``(2, H, W)`` in pixels per frame.
        flow_field: what they are compared with, of the same shape and unit.
        worst_px: end-point error at which the scale ends.
    """
    columns = min(1 + len(fields), 4)
    rows = -(-(1 + len(fields)) // columns)
    height, width = frame.shape[:2]
    inches = (PAGE_WIDTH, rows * (0.9 * PAGE_WIDTH / columns * height / width + 0.45))
    fig, axes = subplots(rows, columns, inches)
    for ax in axes.flat:
        ax.set_axis_off()
    axes.flat[0].imshow(frame)
    axes.flat[0].set_title("decoded picture")
    for ax, (title, field) in zip(axes.flat[1:], fields.items(), strict=False):
        error = flow.endpoint_error(field, flow_field)
        image = ax.imshow(error, cmap="viridis", vmin=0, vmax=worst_px)
        ax.set_title(f"{title}\n{error.mean():.2f} px")
    label = "end-point error (px per frame); above each panel its mean"
    fig.colorbar(image, ax=axes, label=label, extend="max", pad=0.01)
    return fig


def subplots(rows: int, columns: int, inches: tuple[float, float], **shared):
    """A figure and its axes, always (rows, columns)."""
    fig, axes = plt.subplots(
        rows, columns, figsize=inches, layout="constrained", squeeze=False, **shared
    )
    # Else a notebook would draw it again at the end of the cell, and keep every figure in memory.
    plt.close(fig)
    return fig, axes


def panels(
    titles: Sequence[str],
    rows: Mapping[str, Sequence[np.ndarray | None]],
    full_colour_px: float,
    *,
    notes: Sequence[str] = (),
    below: float = 0,
    unit: str = "px per frame",
) -> tuple[Figure, np.ndarray]:
    """Draw a grid of pictures with the scales of motion and residual below it.

    Many columns make it wider than a page. Its letters grow along, so that they have 8 points once
    the page has shrunk it.

    Args:
        titles: of the columns.
        rows: label -> one array per column, as :func:`to_rgb` takes them; None leaves a panel
            empty. Where one is motion, a colour wheel says what its colours mean.
        full_colour_px: displacement drawn at full saturation: one scale for all panels.
        notes: sentences below the scales.
        below: room for text under each panel, inches.
        unit: of the motion, as the scale names it.

    Returns:
        The figure, and its panels, an object array ``(rows, columns)``.
    """
    arrays = [array for array in chain(*rows.values()) if array is not None]
    first = arrays[0]
    height, width = first.shape[:2] if first.dtype == np.uint8 else first.shape[1:]
    inches = max(PAGE_WIDTH, PANEL_INCHES * len(titles) + 0.5)  # and the rows' labels
    points = 8 * inches / PAGE_WIDTH
    side = inches / max(len(titles), 3)
    inches = side * len(titles)

    planes = [len(array) for array in arrays if array.dtype != np.uint8]
    scales = {2: f"motion: hue = direction, full colour = {full_colour_px:g} {unit} or more"}
    scales[3] = f"residual: grey = 0, black to white = ±{RESIDUAL_LEVELS} grey levels"
    wheel_side = 0.8 if 2 in planes else 0  # inches
    per_inch = 72 / (0.53 * points)  # letters, which are about half as wide as their size
    letters = int((inches - 1.6 * wheel_side) * per_inch)
    texts = [scales[count] for count in dict.fromkeys(planes)] + list(notes)
    text = "\n".join(textwrap.fill(line, letters) for line in texts)

    foot_height = max(wheel_side + 0.1, (text.count("\n") + 1) * 1.3 * points / 72 + 0.15)
    titles = [
        "\n".join(textwrap.fill(line, int(0.9 * side * per_inch)) for line in title.split("\n"))
        for title in titles
    ]
    lines = max(title.count("\n") for title in titles) + 1
    grid_height = len(rows) * (side * height / width + below) + lines * 1.4 * points / 72 + 0.1
    fig = plt.figure(figsize=(inches, grid_height + foot_height), layout="constrained")
    grid, foot = fig.subfigures(2, 1, height_ratios=(grid_height, foot_height))
    axes = grid.subplots(len(rows), len(titles), squeeze=False)
    for row, (label, row_arrays) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(label, fontsize=points)
        for ax, array in zip(row, row_arrays, strict=True):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if array is not None:
                ax.imshow(to_rgb(array, full_colour_px=full_colour_px))
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=points)
    if wheel_side:
        size = wheel_side / inches, wheel_side / foot_height
        draw_wheel(foot.add_axes((0.1 / inches, 1 - size[1], *size)), full_colour_px, points)
    at = (1.6 * wheel_side + 0.05) / inches
    foot.text(at, 1, text, va="top", fontsize=points, linespacing=1.3)
    plt.close(fig)  # as in subplots
    return fig, axes


def draw_wheel(ax: Axes, full_colour_px: float, points: float) -> None:
    """Draw the colours of all directions and lengths; an arrow of full colour with its length."""
    steps = np.linspace(-1, 1, 121) * full_colour_px
    field = np.stack(np.meshgrid(steps, steps))
    field[:, np.hypot(*field) > full_colour_px] = 0
    reach = (-full_colour_px, full_colour_px)
    # Rows from the top: positive dy, which is down, is drawn below.
    ax.imshow(to_rgb(field, full_colour_px=full_colour_px), extent=(*reach, *reach[::-1]))
    ax.annotate("", (full_colour_px, 0), (0, 0), arrowprops={"arrowstyle": "->", "shrinkB": 0})
    ax.annotate(
        f"{full_colour_px:g} px", (full_colour_px, 0), (3, 0), textcoords="offset points",
        va="center", size=points, annotation_clip=False,
    )  # fmt: skip
    ax.set_axis_off()


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
