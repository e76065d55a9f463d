"""Crop, flip, resize and normalise motion and pictures (paper, 4.2).

The values of a motion field are pixels of its own grid: mirrored, its dx changes sign; resized, its
values grow or shrink with the picture. The residual is an ordinary picture. Every function maps a
:class:`Sample` to a new one on the same device, and draws random numbers only from the generator
that it is given.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LIMIT_PX = 20.0  # longer motion is clipped before it meets a network, as in the released code
IMAGENET_STD = (0.229, 0.224, 0.225)  # of R, G, B in 0..1
MOTION_STD = 0.226  # their mean; the released code divides dx and dy by it
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sample:
    """What P-frames carry, and the flow that the generator learns from; one size, one device."""

    motion: Tensor  # float32 (N, 2, H, W), dx, dy in pixels, reference -> current
    residual: Tensor  # float32 (N, 3, H, W), RGB differences, -255..255
    flow: Tensor | None = None  # like motion; None where only the compressed video is known

    def map(self, field: Map, picture: Map) -> "Sample":
        """Apply ``field`` to motion and flow, and ``picture`` to the residual."""
        flow = None if self.flow is None else field(self.flow)
        return Sample(field(self.motion), picture(self.residual), flow)

    def to(self, device: torch.device | str) -> "Sample":
        """Copy the sample to another device."""
        return self.map(lambda x: x.to(device), lambda x: x.to(device))

    def __getitem__(self, items: slice) -> "Sample":
        """The frames of a slice, as views."""
        return self.map(lambda x: x[items], lambda x: x[items])


def join(samples: Sequence[Sample]) -> Sample:
    """Put the frames of several samples of one size into one, in order."""
    fields = zip(*(vars(sample).values() for sample in samples), strict=True)
    return Sample(*(None if field[0] is None else torch.cat(field) for field in fields))


def flip(sample: Sample, *, keep_dx: bool = False) -> Sample:
    """Mirror left and right: what moved right now moves left.

    ``keep_dx`` leaves the sign of dx as it is, as the released DMC-Net code does; CoViAR's code
    changes it.
    """
    sign = sample.motion.new_tensor([1.0 if keep_dx else -1.0, 1.0]).view(1, 2, 1, 1)
    return sample.map(lambda field: field.flip(-1) * sign, lambda picture: picture.flip(-1))


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """Cut out a window, given in pixels; values stay as they are.

    Raises:
        ValueError: if the window does not lie within the frame.
    """
    rows, columns = sample.motion.shape[-2:]
    if not (0 <= top <= top + height <= rows and 0 <= left <= left + width <= columns):
        raise ValueError(
            f"Crop of {height} x {width} at row {top}, column {left} leaves the "
            f"{rows} x {columns} frame."
        )

    def cut(x: Tensor) -> Tensor:
        return x[..., top : top + height, left : left + width]

    return sample.map(cut, cut)


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Resize to ``size`` = (height, width), bilinear; motion and flow are scaled along each axis.

    4 px to the right at width 340 are 2 px at width 170. (The authors resize motion like a picture
    and keep its values. Ours are always pixels of the grid that they are on.)
    """
    height, width = sample.motion.shape[-2:]
    factor = sample.motion.new_tensor([size[1] / width, size[0] / height]).view(1, 2, 1, 1)

    def scaled(x: Tensor) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    return sample.map(lambda field: scaled(field) * factor, scaled)


def to_height(sample: Sample, height: int | None) -> Sample:
    """:func:`resize` to a height, px, in the same shape; None leaves the sample as it is."""
    rows, columns = sample.motion.shape[-2:]
    if height in (None, rows):
        return sample
    return resize(sample, (height, round(columns * height / rows)))


def normalize(sample: Sample, *, eight_bit: bool = False) -> Sample:
    """Bring pixels and grey levels to the scale that the networks expect.

    Motion and flow: clipped to +-20 px, then ``px / 40 / 0.226``, so -2.21..2.21 and zero stays
    exactly zero. ``eight_bit`` cuts them to eight bits before, as the authors do (RELEASED_CODE.md,
    section 1): zero becomes 0.0087, and a value is off by at most one step of 0.0174.
    Residual: +128, clipped to 0..255, / 255 - 0.5, over the ImageNet deviation of its channel. This
    is the authors' to the digit, so a zero residual becomes 0.0086 (R), 0.0088 (G), 0.0087 (B).
    """
    std = sample.residual.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)

    # In place after the first step, which saves as much time again.
    def from_levels(levels: Tensor, deviation: Tensor | float) -> Tensor:
        return (levels + 128).clamp_(0, 255).div_(255).sub_(0.5).div_(deviation)

    def field(px: Tensor) -> Tensor:
        if eight_bit:
            return from_levels((px * (127.5 / LIMIT_PX)).trunc_(), MOTION_STD)
        return px.clamp(-LIMIT_PX, LIMIT_PX).div_(2 * LIMIT_PX * MOTION_STD)

    return sample.map(field, lambda levels: from_levels(levels, std))


def denormalize_motion(motion: Tensor) -> Tensor:
    """Scale a normalised field, or a generator's cue, back to pixels (clipping is not undone)."""
    return motion * (2 * LIMIT_PX * MOTION_STD)


def augment(
    sample: Sample,
    size: tuple[int, int],
    generator: torch.Generator,
    scales: Sequence[float] = (1, 0.875, 0.75),
    *,
    keep_dx: bool = False,
    together: int = 1,
) -> Sample:
    """Cut a random window out of each item, mirror half of them, and resize all to ``size``.

    The window has the shape of ``size``. It is the largest that fits the frame, times one of
    ``scales``, at a random position. Motion and flow are scaled and mirrored with the picture.
    (Paper section 4.2, and CoViAR, whose windows may also be slightly oblong.)

    Args:
        sample: in pixels and grey levels, before :func:`normalize`.
        size: (height, width) of the result.
        generator: a CPU generator, the only source of randomness: one seed repeats a batch.
        scales: window scales, each at most 1.
        keep_dx: mirror as the released code does (:func:`flip`).
        together: this many neighbouring items share window and mirroring, as frames of one clip.
    """
    count = len(sample.motion)
    draws = count // together
    scale = torch.tensor(scales)[torch.randint(len(scales), (draws,), generator=generator)]
    corner = torch.rand(draws, 2, generator=generator)
    mirror = torch.rand(draws, generator=generator) < 0.5
    scale, corner, mirror = (x.repeat_interleave(together, 0) for x in (scale, corner, mirror))
    frame = sample.motion.shape[-2:]

    def empty(x: Tensor) -> Tensor:
        return x.new_empty(count, x.shape[1], *size)

    whole = sample.map(empty, empty)
    for i in range(count):  # faster than one grid_sample, and exact where nothing is resized
        height, width = _window(frame, size, scale[i].item())
        top = int(corner[i, 0] * (frame[0] - height + 1))
        left = int(corner[i, 1] * (frame[1] - width + 1))
        item = resize(crop(sample[i : i + 1], top, left, height, width), size)
        item = flip(item, keep_dx=keep_dx) if mirror[i] else item
        for target, x in zip(vars(whole).values(), vars(item).values(), strict=True):
            if target is not None:
                target[i] = x[0]
    return whole


def center_crop(sample: Sample, size: tuple[int, int], scale: float = 0.875) -> Sample:
    """Cut the window in the middle and resize it to ``size`` = (height, width).

    The window is ``scale`` times the largest one of that shape that fits. The default is the
    paper's test crop: the middle 224x224 of a 340x256 frame, which ``size=(224, 224)`` only cuts.
    """
    frame = sample.motion.shape[-2:]
    height, width = _window(frame, size, scale)
    window = crop(sample, (frame[0] - height) // 2, (frame[1] - width) // 2, height, width)
    return resize(window, size)


def ten_views(sample: Sample, size: tuple[int, int], scale: float = 0.875) -> Iterator[Sample]:
    """Yield the paper's ten test views, each of all items (section 4.2).

    The window of :func:`center_crop` in the four corners and in the middle of the frame, each as it
    is and then mirrored.
    """
    frame = sample.motion.shape[-2:]
    height, width = _window(frame, size, scale)
    bottom, right = frame[0] - height, frame[1] - width
    corners = [(top, left) for top in (0, bottom) for left in (0, right)]
    for top, left in [*corners, (bottom // 2, right // 2)]:
        view = resize(crop(sample, top, left, height, width), size)
        yield view
        yield flip(view)


def _window(frame: Sequence[int], size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width, in pixels, of ``scale`` times the largest window of size's shape."""
    fit = scale * min(frame[0] / size[0], frame[1] / size[1])
    return max(round(fit * size[0]), 1), max(round(fit * size[1]), 1)
