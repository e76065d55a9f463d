"""The paper's two diagrams, drawn anew: what runs at test time, and what teaches what.

Sources: Shou et al., CVPR 2019, Figures 2 and 3, their captions, and sections 3.3 and 3.4. Boxes
are laid out in inches of the page, so that text keeps its size; a kind of box has a colour and an
edge of its own.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Patch

from dmclib.figures.pictures import BLUE, GREEN, ORANGE, PAGE_WIDTH, RED

TEXT_POINTS = 10  # 5 when the page-wide diagram is set in a column of half the width
ROW_INCHES = 0.48  # from one line of boxes to the next
_BOX_HEIGHT = 0.38

# What a box is -> its fill, its edge and the edge's line.
_KINDS = {
    "data": ("white", "0.35", "-"),
    "network": ("#DCEBF5", BLUE, "-"),
    "slow": ("#FBE9CC", ORANGE, "--"),
    "new": ("#D5EFE6", GREEN, "-"),
}


@dataclass(frozen=True)
class _Box:
    """A drawn box: its patch, and the middles of its sides in inches."""

    patch: Patch
    left: tuple[float, float]
    right: tuple[float, float]
    top: tuple[float, float]
    bottom: tuple[float, float]


def pipelines() -> Figure:
    """Draw Figure 2: three ways from a compressed video to an action, and what each has to compute.

    (a) two streams, (b) CoViAR with a flow stream, (c) DMC-Net. Dashed boxes are what makes the
    first two slow: decoding every frame and estimating flow.
    """
    lines = {"a": 2, "b": 4, "c": 4}
    heights = {part: count * ROW_INCHES + 0.36 for part, count in lines.items()}
    fig, ax = _canvas(sum(heights.values()) + 0.35)
    top = ax.get_ylim()[1]
    _two_streams(ax, _heading(ax, top, "(a) Two streams: decode every frame, estimate flow"))
    top -= heights["a"]
    title = "(b) CoViAR + flow: three inputs as they are stored, flow as the fourth"
    _compressed(ax, _heading(ax, top, title), flow=True)
    top -= heights["b"]
    title = "(c) DMC-Net: a generator makes the fourth from two of the others"
    _compressed(ax, _heading(ax, top, title), flow=False)
    kinds = {"data": "data", "network": "network", "slow": "slow step", "new": "new in DMC-Net"}
    handles = [
        Patch(facecolor=_KINDS[kind][0], edgecolor=_KINDS[kind][1], ls=_KINDS[kind][2], label=label)
        for kind, label in kinds.items()
    ]
    place = {"loc": "lower center", "ncols": len(handles), "borderaxespad": 0}
    ax.legend(handles=handles, fontsize=TEXT_POINTS, **place)
    return fig


def training() -> Figure:
    """Draw Figure 3: the generator, the classifier and the discriminator, and the three losses.

    The tinted field is all that runs at test time. Numbers say in which of the two alternating
    steps a loss is minimised and a network moves (paper, 3.3.3).
    """
    fig, ax = _canvas(4.55)
    columns = (0.62, 2.0, 3.4, 4.8, 6.33)
    upper, middle, lower = 3.65, 2.35, 1.35
    ax.add_patch(_rounded(3.5, 3.66, 6.9, 1.3, facecolor="#F9E6F0", edgecolor="none", zorder=0))
    _text(ax, 0.18, 4.44, "all that runs at test time", ha="left", color="0.3")

    vectors = _box(ax, columns[0], upper + 0.3, "motion\nvectors", "data")
    residual = _box(ax, columns[0], upper - 0.3, "residual", "data")
    generator = _box(ax, columns[1], upper, "DMC\ngenerator", "new")
    cue = _box(ax, columns[2], upper, "DMC", "data")
    classifier = _box(ax, columns[3], upper, "classifier\n(ResNet-18)", "network")
    scores = _box(ax, columns[4], upper, "class\nscores", "data")
    decoded = _box(ax, columns[1], lower, "video frames,\nTV-L1", "slow", width=1.1)
    target = _box(ax, columns[2], lower, "optical\nflow", "data")
    discriminator = _box(ax, columns[3], lower, "discriminator", "network")
    verdict = _box(ax, columns[4], lower, "real (flow)\nor fake (DMC)", "data")
    classification = _loss(ax, columns[4], middle + 0.15, r"$L_\mathrm{cls}$")
    reconstruction = _loss(ax, columns[2], middle + 0.15, r"$L_\mathrm{mse}$")
    adversarial = _loss(ax, columns[4], 0.72, r"$L_\mathrm{adv}$")

    for start, end in (
        (vectors.right, generator.left),
        (residual.right, generator.left),
        (generator.right, cue.left),
        (cue.right, classifier.left),
        (classifier.right, scores.left),
        (scores.bottom, classification.top),
        (cue.bottom, reconstruction.top),
        (target.top, reconstruction.bottom),
        (decoded.right, target.left),
        (target.right, discriminator.left),
        ((cue.right[0] - 0.1, cue.bottom[1]), discriminator.top),
        (discriminator.right, verdict.left),
        (verdict.bottom, adversarial.top),
    ):
        _arrow(ax, start, end)

    for box in (generator, classifier):
        _text(ax, box.top[0], box.top[1] + 0.15, "moves in step 2", color=RED)
    x, y = discriminator.bottom  # its upper side is where the cue comes in
    _text(ax, x, y - 0.15, "moves in step 1", color=RED)
    for box, steps in ((classification, "2"), (reconstruction, "2"), (adversarial, "1 and 2")):
        _text(ax, box.left[0] - 0.06, box.left[1], f"step {steps}", ha="right", color=RED)
    _text(
        ax, 0.18, 0.3,
        r"1  The discriminator learns $L^D_\mathrm{adv}$ (eq. 2); the other two are fixed."
        "\n2  Generator and classifier learn "
        r"$L_\mathrm{cls} + \alpha L_\mathrm{mse} + \lambda L^G_\mathrm{adv}$"
        " (eq. 4); the discriminator is fixed.",
        ha="left",
    )  # fmt: skip
    return fig


def _two_streams(ax: Axes, top: float) -> None:
    first, second = top, top - ROW_INCHES
    video = _box(ax, 0.6, (first + second) / 2, "compressed\nvideo", "data")
    decoder = _box(ax, 1.88, first, "decoder", "slow")
    frames = _box(ax, 3.1, first, "RGB frames", "data")
    method = _box(ax, 3.1, second, "flow method", "slow")
    flow = _box(ax, 4.3, second, "flow", "data")
    networks = [_box(ax, 5.5, y, "CNN", "network") for y in (first, second)]
    fusion = _box(ax, 6.55, (first + second) / 2, "fusion", "network", width=0.7)
    _arrow(ax, video.right, decoder.left)
    _arrow(ax, decoder.right, frames.left)
    _arrow(ax, frames.bottom, method.top)
    _arrow(ax, method.right, flow.left)
    _arrow(ax, flow.right, networks[1].left)
    _arrow(ax, frames.right, networks[0].left)
    for network in networks:
        _arrow(ax, network.right, fusion.left)


def _compressed(ax: Axes, top: float, *, flow: bool) -> None:
    """CoViAR's three streams, and as a fourth flow (below them) or the cue (between MV and R)."""
    rows = [top - k * ROW_INCHES for k in range(4)]
    fourth = 3 if flow else 2  # between vectors and residual no arrow crosses another
    stored = [rows[k] for k in range(4) if k != fourth]
    video = _box(ax, 0.6, (rows[0] + rows[3]) / 2, "compressed\nvideo", "data")
    names = ("I-frames", "vectors", "residual")
    inputs = [
        _box(ax, 1.88, y, name, "data", width=0.95) for name, y in zip(names, stored, strict=True)
    ]
    networks = [
        _box(ax, 5.5, y, name, "network")
        for name, y in zip(("ResNet-152", "ResNet-18", "ResNet-18"), stored, strict=True)
    ]
    fusion = _box(ax, 6.55, (rows[0] + rows[3]) / 2, "fusion", "network", width=0.7)
    for source, network in zip(inputs, networks, strict=True):
        _arrow(ax, video.right, source.left)
        _arrow(ax, source.right, network.left)
    if flow:
        decoder = _box(ax, 1.88, rows[fourth], "decoder", "slow", width=0.95)
        maker = _box(ax, 3.1, rows[fourth], "flow method", "slow")
        _arrow(ax, video.right, decoder.left)
        _arrow(ax, decoder.right, maker.left)
    else:
        maker = _box(ax, 3.1, rows[fourth], "generator", "new")
        for source in inputs[1:]:
            _arrow(ax, source.right, maker.left)
    made = _box(ax, 4.3, rows[fourth], "flow" if flow else "DMC", "data", width=0.8)
    networks.append(_box(ax, 5.5, rows[fourth], "ResNet-18", "network"))
    _arrow(ax, maker.right, made.left)
    _arrow(ax, made.right, networks[-1].left)
    for network in networks:
        _arrow(ax, network.right, fusion.left)


def _canvas(height: float) -> tuple[Figure, Axes]:
    """A page-wide figure whose axes count inches from its lower left corner."""
    fig = plt.figure(figsize=(PAGE_WIDTH, height))
    plt.close(fig)  # out of pyplot's list, or a notebook would draw it twice
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, PAGE_WIDTH), ylim=(0, height))
    ax.set_axis_off()
    return fig, ax


def _heading(ax: Axes, top: float, text: str) -> float:
    """Write a part's heading under ``top`` and return the height of its first line of boxes."""
    _text(ax, 0.12, top - 0.16, text, ha="left", weight="bold")
    return top - 0.3 - _BOX_HEIGHT / 2


def _text(ax: Axes, x: float, y: float, text: str, *, ha: str = "center", **look) -> None:
    ax.text(x, y, text, ha=ha, va="center", size=TEXT_POINTS, linespacing=1.15, **look)


def _rounded(x: float, y: float, width: float, height: float, **look) -> Patch:
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.06"
    return FancyBboxPatch(corner, width, height, boxstyle=style, **look)


def _sides(patch: Patch, x: float, y: float, width: float, height: float) -> _Box:
    half, tall = width / 2, height / 2
    return _Box(patch, (x - half, y), (x + half, y), (x, y + tall), (x, y - tall))


def _box(ax: Axes, x: float, y: float, text: str, kind: str, *, width: float = 1.0) -> _Box:
    fill, edge, line = _KINDS[kind]
    height = max(_BOX_HEIGHT, 0.2 * (text.count("\n") + 1) + 0.06)
    patch = ax.add_patch(_rounded(x, y, width, height, fc=fill, ec=edge, ls=line, lw=1.2))
    _text(ax, x, y, text)
    return _sides(patch, x, y, width, height)


def _loss(ax: Axes, x: float, y: float, text: str) -> _Box:
    width, height = 0.72, 0.38
    patch = ax.add_patch(Ellipse((x, y), width, height, fc="white", ec=RED, lw=1.2))
    _text(ax, x, y, text)
    return _sides(patch, x, y, width, height)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "mutation_scale": 9, "lw": 1, "color": "0.25"}
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=1, zorder=0.5, **look))
