"""Crop, flip, resize and normalise, knowing that motion is not a picture.

A motion field has values in pixels of its own grid: mirrored, its dx changes sign; resized, its
values grow or shrink with the picture. The residual is an ordinary picture. Everything here maps a
:class:`Sample` to a new one, batch first, on the device it is on, and draws random numbers from the
generator it is given only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LIMIT_PX = 20.0  # longer motion is clipped before it meets a network (RELEASED_CODE.md, section 1)
IMAGENET_STD = (0.229, 0.224, 0.225)  # of R, G, B in 0..1
MOTION_STD = 0.226  # their mean; the released code divides dx and dy by it


@dataclass(frozen=True)
class Sample:
    """What P-frames carry, and the flow that the generator is taught; one size, one device."""

    motion: Tensor  # float32 (N, 2, H, W), dx, dy in pixels, reference -> current
    residual: Tensor  # float32 (N, 3, H, W), RGB differences, -255..255
    flow: Tensor | None = None  # like motion; None where only the compressed video is known

    def to(self, device: torch.device | str) -> "Sample":
        """The same sample on another device."""
        return Sample(*(None if x is None else x.to(device) for x in vars(self).values()))


def flip(sample: Sample, *, keep_dx: bool = False) -> Sample:
    """Mirror left and right; what moved right now moves left.

    The released DMC-Net code forgets the sign (RELEASED_CODE.md, section 1), which ``keep_dx``
    follows; CoViAR's motion stream does not.
    """
    sign = sample.motion.new_tensor([1.0 if keep_dx else -1.0, 1.0]).view(1, 2, 1, 1)

    def mirrored(field: Tensor | None) -> Tensor | None:
        return None if field is None else field.flip(-1) * sign

    return Sample(mirrored(sample.motion), sample.residual.flip(-1), mirrored(sample.flow))


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

    def cut(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[..., top : top + height, left : left + width]

    return Sample(cut(sample.motion), cut(sample.residual), cut(sample.flow))


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Resize to ``size`` = (height, width), bilinear; motion and flow scale along, per axis.

    4 px to the right at width 340 are 2 px at width 170. (The authors resize motion as a picture
    and leave its values; ours are pixels of the grid they are on, always.)
    """
    height, width = sample.motion.shape[-2:]
    factor = sample.motion.new_tensor([size[1] / width, size[0] / height]).view(1, 2, 1, 1)

    def scaled(x: Tensor) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    flow = None if sample.flow is None else scaled(sample.flow) * factor
    return Sample(scaled(sample.motion) * factor, scaled(sample.residual), flow)


def normalize(sample: Sample) -> Sample:
    """Bring pixels and grey levels to the scale that networks expect (RELEASED_CODE.md, section 1).

    Motion and flow: clipped to +-20 px, then ``px / 40 / 0.226``, so -2.21..2.21 and zero stays
    exactly zero. (The authors go through eight bits, where zero becomes 0.0087 and a value is off
    by at most one step of 0.0174; apart from that the scale is theirs.)
    Residual: +128, clipped to 0..255, / 255 - 0.5, over the ImageNet deviation of its channel. This
    is the authors' to the digit, so a zero residual becomes 0.0086 (R), 0.0088 (G), 0.0087 (B).
    """
    std = sample.residual.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
    residual = ((sample.residual + 128).clamp(0, 255) / 255 - 0.5) / std

    def on_scale(px: Tensor | None) -> Tensor | None:
        return None if px is None else px.clamp(-LIMIT_PX, LIMIT_PX) / (2 * LIMIT_PX * MOTION_STD)

    return Sample(on_scale(sample.motion), residual, on_scale(sample.flow))


def denormalize_motion(motion: Tensor) -> Tensor:
    """Bring a normalised field, or a generator's cue, back to pixels (clipping is not undone)."""
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
    """Cut a random window out of each item, mirror half of them, and bring all to ``size``.

    The window has the shape of ``size``; it is the largest that fits the frame, times one of
    ``scales``, at a random place. Motion and flow are rescaled and mirrored with the picture. Every
    item draws its own. (Paper section 4.2 and CoViAR, whose windows may also be slightly oblong.)

    Args:
        sample: in pixels and grey levels, before :func:`normalize`.
        size: (height, width) to come out.
        generator: a CPU generator; the only source of randomness, so one seed repeats a batch.
        scales: window scales, each at most 1.
        keep_dx: mirror as the released code does (:func:`flip`).
        together: so many neighbouring items are one moving picture and share what is drawn.
    """
    items = len(sample.motion)
    draws = items // together
    scale = torch.tensor(scales)[torch.randint(len(scales), (draws,), generator=generator)]
    place = torch.rand(draws, 2, generator=generator)
    mirror = torch.rand(draws, generator=generator) < 0.5
    scale, place, mirror = (x.repeat_interleave(together, 0) for x in (scale, place, mirror))
    frame = sample.motion.shape[-2:]

    out = Sample(
        sample.motion.new_empty(items, 2, *size),
        sample.residual.new_empty(items, 3, *size),
        None if sample.flow is None else sample.flow.new_empty(items, 2, *size),
    )
    for i in range(items):  # quicker than one grid_sample call, and exact where nothing is resized
        height, width = _window(frame, size, scale[i].item())
        top = int(place[i, 0] * (frame[0] - height + 1))
        left = int(place[i, 1] * (frame[1] - width + 1))
        item = resize(crop(_item(sample, i), top, left, height, width), size)
        if mirror[i]:
            item = flip(item, keep_dx=keep_dx)
        out.motion[i], out.residual[i] = item.motion[0], item.residual[0]
        if sample.flow is not None:
            out.flow[i] = item.flow[0]
    return out


def center_crop(sample: Sample, size: tuple[int, int], scale: float = 0.875) -> Sample:
    """Cut the window in the middle and bring it to ``size`` = (height, width).

    The window is ``scale`` times the largest of that shape which fits. The default is the paper's
    test crop: of a 340x256 frame the middle 224x224, which ``size=(224, 224)`` leaves as it is.
    """
    frame = sample.motion.shape[-2:]
    height, width = _window(frame, size, scale)
    window = crop(sample, (frame[0] - height) // 2, (frame[1] - width) // 2, height, width)
    return resize(window, size)


def ten_views(sample: Sample, size: tuple[int, int], scale: float = 0.875) -> Iterator[Sample]:
    """Give the paper's ten test views, one after the other, each of all items (section 4.2).

    The window of :func:`center_crop` in the four corners and in the middle of the frame, each as it
    is and then mirrored. CoViAR's streams are asked about all ten, the cue about the middle alone.
    """
    frame = sample.motion.shape[-2:]
    height, width = _window(frame, size, scale)
    bottom, right = frame[0] - height, frame[1] - width
    places = [(top, left) for top in (0, bottom) for left in (0, right)]
    for top, left in [*places, (bottom // 2, right // 2)]:
        view = resize(crop(sample, top, left, height, width), size)
        yield view
        yield flip(view)


def _window(frame: Sequence[int], size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width, in pixels, of ``scale`` times the largest window of size's shape."""
    fit = scale * min(frame[0] / size[0], frame[1] / size[1])
    return max(round(fit * size[0]), 1), max(round(fit * size[1]), 1)


def _item(sample: Sample, i: int) -> Sample:
    """The i-th item as a batch of one."""
    flow = None if sample.flow is None else sample.flow[i : i + 1]
    return Sample(sample.motion[i : i + 1], sample.residual[i : i + 1], flow)
