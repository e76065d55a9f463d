"""Look into a clip frame by frame in JupyterLab, and search for a block as an encoder does."""

import base64
import html
import io
import tempfile
from itertools import product
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from dmclib import codec, demo, figures
from dmclib.codec import CompressedFrame
from dmclib.codec.vectors import MACROBLOCK
from dmclib.errors import DMCError, VideoError

DPI = 100
PLAY_MS = 700  # per frame: a page takes up to half a second to draw


def gop_explorer(
    clip: str | Path,
    *,
    weights: demo.Weights | None = None,
    start: int | None = None,
    full_colour_px: float = 8,
) -> "Explorer":
    """Show a clip by GOP and frame: picture, packet size, vectors, residual and cue.

    Args:
        clip: as for :func:`codec.read_at`.
        weights: of the cue (:func:`demo.find_weights`); without them there is no such panel.
        start: the frame shown first, and where no widgets run the only one; by default the first
            P-frame.
        full_colour_px: displacement drawn at full saturation.

    Raises:
        VideoError: the clip cannot be read, has no P-frame or no frame ``start``.
    """
    return Explorer(Path(clip), weights, start, full_colour_px)


class Explorer(widgets.VBox):
    """Controls above a page. Its blocks tell dx and dy while the mouse is over them."""

    def __init__(
        self, clip: Path, weights: demo.Weights | None, start: int | None, full_colour_px: float
    ):
        self._clip, self._weights, self._full_colour_px = clip, weights, full_colour_px
        self._packets = codec.packets(clip)
        moving = [n for n, packet in enumerate(self._packets) if not packet.is_key]
        if not moving:
            raise VideoError(
                f"{clip}: has no P-frame, so it holds neither vectors nor residual. Re-encode it "
                "with codec.transcode."
            )
        first, last = moving[0] if start is None else start, len(self._packets) - 1
        codec.read_at(clip, [first])  # a bad number or file fails here, and not in a callback
        self.number = widgets.IntSlider(first, 0, last, description="frame")
        self.reading = widgets.ToggleButtons(options=["plain", "accumulated"])
        self.half = widgets.Checkbox(False, description="half pixels", indent=False)
        self.page = widgets.HTML()
        play = widgets.Play(min=0, max=last, value=first, interval=PLAY_MS)
        widgets.jslink((play, "value"), (self.number, "value"))
        for control in (self.number, self.reading, self.half):
            control.observe(self._draw, "value")
        self._draw()
        controls = widgets.HBox([play, self.number, self.reading, self.half])
        super().__init__([controls, self.page])

    @property
    def frame(self) -> CompressedFrame:
        """The frame that is shown, in the reading that is chosen."""
        accumulate = self.reading.value == "accumulated"
        (frame,) = codec.read_at(
            self._clip, [self.number.value], accumulate=accumulate, subpixel=self.half.value
        )
        return frame

    def _draw(self, _change=None) -> None:
        try:
            frame = self.frame
            fig = self._figure(frame)
        except DMCError as problem:  # a frame in the middle of the clip is damaged
            self.page.value = f"<p>{html.escape(str(problem))}</p>"
            return
        self.page.value = _with_blocks(fig, frame.motion)

    def _figure(self, frame: CompressedFrame):
        keys = [n for n, packet in enumerate(self._packets) if packet.is_key]
        begin = max(n for n in keys if n <= frame.index)
        end = min((n for n in keys if n > frame.index), default=len(self._packets))
        sizes = {n: self._packets[n].size_bytes for n in range(begin, end)}
        cue = None
        if self._weights is not None:
            # The generator was trained on the plain reading, whatever else is shown.
            (plain,) = codec.read_at(self._clip, [frame.index])
            cue = demo.cue(self._weights.generator, self._weights.height, plain)
        accumulated = self.reading.value == "accumulated"
        unit = "px since the I-frame" if accumulated else "px per frame"
        return figures.explorer_page(
            frame, sizes, cue, full_colour_px=self._full_colour_px, unit=unit
        )

    def _repr_mimebundle_(self, **kwargs):
        """The widget and, for a page where none runs (a book, GitHub), the frame as a picture."""
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle | {"image/jpeg": _jpeg(self._figure(self.frame))}


def own_video(*, weights: demo.Weights | None = None) -> "OwnVideo":
    """Ask for a video, by its path or as an upload, and show it by :func:`gop_explorer`.

    It is re-encoded as the paper's are, MPEG-4 Part 2 of 340x256, to a copy that goes with the
    kernel; of a long one the first ``demo.LONGEST`` frames. The video itself is never written to.

    Args:
        weights: of the cue (:func:`demo.find_weights`); without them there is no such panel.
    """
    return OwnVideo(weights)


class OwnVideo(widgets.VBox):
    """A field for a path, a button for an upload, and below them the video or what is wrong."""

    def __init__(self, weights: demo.Weights | None):
        self._weights = weights
        self._folder = tempfile.TemporaryDirectory(prefix="dmc-own-")
        self.path = widgets.Text(placeholder="path of a video, then Enter", continuous_update=False)
        self.upload = widgets.FileUpload(accept="video/*", description="or upload one")
        self.path.observe(self._take_path, "value")
        self.upload.observe(self._take_upload, "value")
        super().__init__([widgets.HBox([self.path, self.upload])])

    def _take_path(self, change: dict) -> None:
        self._show(Path(change["new"]).expanduser())

    def _take_upload(self, change: dict) -> None:
        (file,) = change["new"]
        # Its name says what it is called elsewhere, and is no place here.
        name = Path(self._folder.name) / f"upload{Path(file['name']).suffix}"
        name.write_bytes(file["content"])
        self._show(name)

    def _show(self, video: Path) -> None:
        clip = Path(self._folder.name) / "clip.mp4"
        self._say(f"{video.name} is being re-encoded.")
        try:
            codec.transcode(video, clip, frames=demo.LONGEST)
            explorer = gop_explorer(clip, weights=self._weights)
        except DMCError as problem:
            self._say(str(problem))
            return
        self.children = [self.children[0], explorer]

    def _say(self, sentence: str) -> None:
        self.children = [self.children[0], widgets.HTML(f"<p>{html.escape(sentence)}</p>")]

    def _repr_mimebundle_(self, **kwargs):
        """The widget and, for a page where none runs, what it would do."""
        does = "In JupyterLab, a path or an upload here shows a video of yours frame by frame."
        return super()._repr_mimebundle_(**kwargs) | {"text/html": f"<p>{does}</p>"}


def _jpeg(fig) -> str:
    """A figure in base64: noise, of which residuals are full, is three times as large as PNG."""
    file = io.BytesIO()
    fig.savefig(file, dpi=DPI, format="jpeg", pil_kwargs={"quality": 85})
    return base64.b64encode(file.getvalue()).decode()


def _with_blocks(fig, motion: np.ndarray) -> str:
    """A page as HTML: its picture, and over its first two panels each block with a tooltip.

    A widget of a picture tells of no mouse; a tooltip of SVG needs neither a library nor a kernel.
    """
    wide, high = (fig.get_size_inches() * DPI).round().astype(int)
    parts = [
        f'<svg viewBox="0 0 {wide} {high}" style="width: 100%; max-width: {wide}px">',
        "<style>.b {fill: transparent} .b:hover {stroke: black; stroke-width: 2}</style>",
        f'<image width="{wide}" height="{high}" href="data:image/jpeg;base64,{_jpeg(fig)}"/>',
    ]
    rows, columns = motion.shape[1:]
    blocks = list(_blocks(motion))
    for ax in fig.axes[:2]:
        box = ax.get_position()
        left, top, scale = box.x0 * wide, (1 - box.y1) * high, box.width * wide / columns
        for x, y, side in blocks:
            w, h = min(side, columns - x), min(side, rows - y)
            dx, dy = motion[:, y + h // 2, x + w // 2]
            parts.append(
                f'<rect class="b" x="{left + scale * x:.1f}" y="{top + scale * y:.1f}" '
                f'width="{scale * w:.1f}" height="{scale * h:.1f}"><title>dx {dx:+g}, dy {dy:+g} px'
                f"; block of {w} x {h} px at x {x}, y {y}</title></rect>"
            )
    return "".join([*parts, "</svg>"])


def _blocks(motion: np.ndarray):
    """Yield x, y and side of each block: a macroblock, or its quarters where they move apart."""
    half = MACROBLOCK // 2
    rows, columns = motion.shape[1:]
    for y, x in product(range(0, rows, MACROBLOCK), range(0, columns, MACROBLOCK)):
        block = motion[:, y : y + MACROBLOCK, x : x + MACROBLOCK]
        middles = block[:, half // 2 :: half, half // 2 :: half]
        if (middles == middles[:, :1, :1]).all():
            yield x, y, MACROBLOCK
        else:
            for down, right in product((0, half), repeat=2):
                if y + down < rows and x + right < columns:
                    yield x + right, y + down, half


def search_block(
    before: np.ndarray, now: np.ndarray, corner: tuple[int, int], *, reach: int = 12
) -> np.ndarray:
    """Compare a macroblock with every place near it in the frame before, as an encoder may.

    Args:
        before, now: uint8 ``(H, W, 3)``.
        corner: x and y of its top left pixel in ``now``; all of the block is inside.
        reach: largest step tried in each direction, px.

    Returns:
        float32 ``(2 * reach + 1,) * 2``: the mean absolute difference, grey levels, if the content
        moved by (dx, dy), at ``[dy + reach, dx + reach]``; NaN where the place is not inside.
    """
    (x, y), (height, width) = corner, before.shape[:2]
    block = now[y : y + MACROBLOCK, x : x + MACROBLOCK].astype(np.int16)
    costs = np.full((2 * reach + 1, 2 * reach + 1), np.nan, np.float32)
    for dy, dx in product(range(-reach, reach + 1), repeat=2):
        top, left = y - dy, x - dx
        if 0 <= top <= height - MACROBLOCK and 0 <= left <= width - MACROBLOCK:
            place = before[top : top + MACROBLOCK, left : left + MACROBLOCK]
            costs[dy + reach, dx + reach] = np.abs(block - place).mean()
    return costs
