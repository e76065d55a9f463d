"""How the cost of a video grows with frames, resolution and batch: the curves of notebook 07."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from dmclib import fast, models
from dmclib.bench_networks import flow_methods
from dmclib.bench_path import Call, by_cue, by_flow
from dmclib.timing import choose_device, forward, measure


def curves(
    clip: Path,
    *,
    frames: Sequence[int],
    sizes: Sequence[int],
    batches: Sequence[int],
    repeats: int = 3,
    device: str | None = None,
) -> list[dict]:
    """How the cost grows: rows of milliseconds along three axes.

    Args:
        clip: MPEG-4 Part 2 with as many frames as the longest of ``frames``, and one more.
        frames: axis "frames": a whole video's cost when its first so many frames are looked at, by
            DMC-Net's stream (vectors and residual, generator, ResNet-18) and by RGB, DIS and the
            same classifier.
        sizes: axis "size": one frame of this side, px, for the parts alone.
        batches: axis "batch": a frame's share of a batch at 224 px, for the networks alone.
        repeats: timed runs.
        device: of the networks.

    Returns:
        Rows ``{"table": "curve", "axis", "x", "method", "ms", quartiles, "repeats"}``.
    """
    device, found = device or choose_device(), []

    def note(axis: str, x: int, calls: Mapping[str, Call], per: int = 1) -> None:
        for name, timing in measure(calls, repeats=repeats, warmup=1).items():
            row = {"table": "curve", "axis": axis, "x": x, "method": name, "device": device}
            times = timing.ms("one", per=per)
            found.append(row | {key[4:]: ms for key, ms in times.items()} | {"repeats": repeats})

    classifier = models.motion_resnet18(400).eval().to(device)
    network = models.DMCNet(fast.generator(models.DenseGenerator().eval().to(device)), classifier)
    for count in frames:
        setting = {"batch": min(count, 8), "device": device}
        ways = {
            "DMC-Net": by_cue(clip, network, count, **setting),
            "RGB, DIS, ResNet-18": by_flow(clip, classifier, count, method="dis", **setting),
        }
        note("frames", count, ways)
    for size in sizes:
        methods = flow_methods(size, device)
        field = torch.randn(1, 2, size, size, device=device)
        chosen = {name: methods[name] for name in ("TV-L1 (OpenCV)", "DIS", "DMC generator")}
        note("size", size, chosen | {"ResNet-18": forward(classifier, field)})
    for batch in batches:
        motion, residual = (torch.randn(batch, n, 224, 224, device=device) for n in (2, 3))
        generator = forward(network.generator, motion, residual)
        both = {"DMC generator": generator, "ResNet-18": forward(classifier, motion)}
        note("batch", batch, both, per=batch)
    return found
