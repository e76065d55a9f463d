"""A codec's steps as pictures: the search for one block, and a page of the GOP explorer."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dmclib.codec import CompressedFrame
from dmclib.figures.pictures import (
    BLUE,
    ORANGE,
    PAGE_WIDTH,
    RED,
    RESIDUAL_LEVELS,
    draw_arrows,
    draw_wheel,
    subplots,
    to_rgb,
)


def block_search(
    before: np.ndarray, now: np.ndarray, costs: np.ndarray, corner: tuple[int, int]
) -> Figure:
    """Draw the search for one macroblock: it, where it is looked for, and each place's cost.

    Args:
        before, now: uint8 ``(H, W, 3)``, two frames in turn.
        costs: as :func:`explore.search_block` gives them.
        corner: x and y of the block's top left pixel.
    """
    reach, (x, y) = costs.shape[0] // 2, corner
    dy, dx = np.unravel_index(np.nanargmin(costs), costs.shape) - np.array(reach)
    fig, ((left, middle, right),) = subplots(1, 3, (PAGE_WIDTH, 2.7))
    around = slice(max(y - 40, 0), y + 56), slice(max(x - 40, 0), x + 56)
    extent = [around[1].start, None, None, around[0].start]
    for ax, picture in ((left, now), (middle, before)):
        shown = picture[around]
        extent[1:3] = extent[0] + shown.shape[1], extent[3] + shown.shape[0]
        ax.imshow(shown, extent=extent)
        ax.add_patch(Rectangle(corner, 16, 16, fill=False, ec="white", lw=1.5))
    window = (x - reach, y - reach), 16 + 2 * reach, 16 + 2 * reach
    middle.add_patch(Rectangle(*window, fill=False, ec="white", ls=":", lw=1.5))
    middle.add_patch(Rectangle((x - dx, y - dy), 16, 16, fill=False, ec=ORANGE, lw=2))
    left.set_title("this frame, block")
    middle.set_title("frame before, best match")
    edge = reach + 0.5
    image = right.imshow(costs, cmap="viridis", extent=(-edge, edge, edge, -edge))
    right.plot(dx, dy, "o", mfc="none", mec=ORANGE, ms=9, mew=2)
    right.set(xlabel="dx (px)", ylabel="dy (px)", title=f"best: dx = {dx}, dy = {dy}")
    fig.colorbar(image, ax=right, label="mean difference (levels)", shrink=0.8)
    return fig


def explorer_page(
    frame: CompressedFrame,
    sizes_bytes: dict[int, int],
    cue: np.ndarray | None = None,
    *,
    full_colour_px: float,
    unit: str,
) -> Figure:
    """Draw all that a clip holds of one frame; the first axes are its panels, picture and motion.

    Args:
        frame: in any reading.
        sizes_bytes: packet size of each frame of its GOP, by frame number.
        cue: float ``(2, H, W)``, px; without it there is no such panel.
        full_colour_px: displacement drawn at full saturation.
        unit: of the motion.
    """
    panels = {f"motion ({unit})": frame.motion, "residual": frame.residual}
    if cue is not None:
        panels["DMC cue (px per frame)"] = cue
    count, (height, width) = 1 + len(panels), frame.rgb.shape[:2]
    side, gap, foot = 3 if count == 3 else 2.6, 0.06, 1.8  # inches
    tall = (side - gap) * height / width
    inches = np.array([count * side, foot + tall + 0.3])
    fig = plt.figure(figsize=inches)
    plt.close(fig)  # else a notebook would draw it again at the end of the cell

    def room(left: float, bottom: float, wide: float, high: float) -> Axes:
        return fig.add_axes(np.array([left, bottom, wide, high]) / np.tile(inches, 2))

    axes = [room(n * side, foot, side - gap, tall) for n in range(count)]
    draw_arrows(axes[0], frame.rgb, frame.motion)
    kind = "I-frame" if frame.is_key else f"P-frame {frame.gop_position} of its GOP"
    axes[0].set_title(f"frame {frame.index}, {kind}")
    for ax, (title, array) in zip(axes[1:], panels.items(), strict=True):
        ax.imshow(to_rgb(array, full_colour_px=full_colour_px))
        ax.set_axis_off()
        ax.set_title(title)
    bars = room(0.6, 0.45, inches[0] - 4.1, foot - 0.75)
    here = [ORANGE if number != frame.index else RED for number in sizes_bytes]
    here = [BLUE if n == 0 and c != RED else c for n, c in enumerate(here)]
    bars.bar(list(sizes_bytes), np.array(list(sizes_bytes.values())) / 1000, color=here)
    size = sizes_bytes[frame.index] / 1000
    bars.set(xlabel="frame", ylabel="packet (kB)", xticks=list(sizes_bytes))
    bars.set_title(f"this packet, red: {size:.3g} kB; blue: the I-frame", loc="left")
    draw_wheel(room(inches[0] - 3.3, 0.55, 0.8, 0.8), full_colour_px, 8)
    text = f"residual: grey = 0,\nblack to white =\n±{RESIDUAL_LEVELS} grey levels"
    fig.text(1 - 1.7 / inches[0], 0.95 / inches[1], text, va="center", fontsize=8)
    return fig
