"""Rows of ``dmc bench path``: from compressed file to label, against the same by optical flow."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dmclib import codec, fast, flow, models, transforms
from dmclib.fast import stream
from dmclib.machine import choose_device
from dmclib.speed.clips import decode_bare, default_clip, exhaust
from dmclib.speed.table_3 import flow_methods
from dmclib.speed.timing import Call, forward, measure


def rows(
    clip: str | Path | None = None, *, frames: int = 44, batch: int = 8, repeats: int = 5
) -> list[dict]:
    """Time the whole path and the cue alone against OpenCV's TV-L1, in turn in one run.

    Over the whole path both sides end in the same ResNet-18 at 224 px, in the form that
    :mod:`dmclib.fast` chooses; "eager" means all networks as PyTorch has them by default. The cue
    and TV-L1 alone see pictures of the clip's size.

    Args:
        clip: MPEG-4 Part 2; see :func:`clips.default_clip`.
        frames: P-frames of it that our side streams; TV-L1's side takes two pairs.
        batch: frames that the networks take at once.
        repeats: timed runs.

    Returns:
        Five rows: ``task``, ``clip``, ``theirs_ms`` and ``ours_ms`` per frame with quartiles,
        ``fps`` of ours, ``gain`` (theirs over ours). In the fourth, theirs is bare decoding; in the
        fifth it is our own path, eager.
    """
    device = choose_device()
    classifier = models.motion_resnet18(400)
    eager = models.DMCNet(classifier, models.DenseGenerator(), stream="cue").eval().to(device)
    network = fast.form(eager)
    with default_clip(clip) as path:
        setting = {"batch": batch, "device": device}
        pair = list(islice(codec.decode_rgb(path), 2))
        height, width = pair[0].shape[:2]
        motion, residual = (torch.randn(batch, n, height, width, device=device) for n in (2, 3))
        calls = {
            "TV-L1 path": by_flow(path, network.classifier, 2, method="tvl1", **setting),
            "TV-L1 path, eager": by_flow(path, eager.classifier, 2, method="tvl1", **setting),
            "our path": by_cue(path, network, frames, **setting),
            "our path, eager": by_cue(path, eager, frames, **setting),
            "decoding": lambda: decode_bare(path, range(frames)),
            "TV-L1": lambda: flow.estimate(*pair, method="tvl1"),
            "cue": forward(network.generator, motion, residual),
        }
        times = measure(calls, repeats=repeats, warmup=1)
        name = path.name
    per_call = dict.fromkeys(calls, frames) | {"TV-L1": 1, "cue": batch}
    per_call |= {"TV-L1 path": 2, "TV-L1 path, eager": 2}
    found = []
    for task, theirs, ours in (
        ("whole path, beside decoding, TV-L1, ResNet-18", "TV-L1 path", "our path"),
        ("the same, eager", "TV-L1 path, eager", "our path, eager"),
        ("cue alone, beside TV-L1", "TV-L1", "cue"),
        ("whole path, beside bare decoding", "decoding", "our path"),
        ("whole path, beside eager", "our path, eager", "our path"),
    ):
        row = {"task": task, "clip": name, "device": device, "batch": batch}
        for side, call in (("theirs", theirs), ("ours", ours)):
            row |= times[call].ms(side, per=per_call[call])
        row |= {"fps": 1e3 / row["ours_ms"], "gain": row["theirs_ms"] / row["ours_ms"]}
        found.append(row | {"repeats": repeats})
    return found


def by_cue(clip: Path, network: stream.Network, frames: int, **setting) -> Call:
    """A call that scores the first ``frames`` P-frames as :func:`dmclib.fast.classify` does."""
    return lambda: exhaust(islice(stream.classify(clip, network, **setting), frames))


def by_flow(
    clip: Path, classifier: nn.Module, frames: int, *, method: flow.Method, batch: int, device: str
) -> Call:
    """A call that decodes pictures, estimates the flow into ``frames`` of them, and scores it."""

    def call() -> None:
        pictures = islice(codec.decode_rgb(clip), frames + 1)
        fields = flow.estimate_clip(pictures, method=method, device=device)
        while taken := list(islice(fields, batch)):
            field = torch.from_numpy(np.stack(taken)).to(device)
            sample = transforms.Sample(field, field.new_zeros(len(taken), 3, *field.shape[2:]))
            sample = transforms.normalize(transforms.center_crop(sample, (224, 224)))
            forward(classifier, sample.motion)()

    return call


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
        clip: MPEG-4 Part 2 with one frame more than the longest of ``frames``.
        frames: axis "frames": so many first frames of a video, by DMC-Net's stream (vectors and
            residual, generator, ResNet-18), and by RGB, DIS and the same classifier.
        sizes: axis "size": one frame of this side, px, for the parts alone.
        batches: axis "batch": one frame's share of a batch at 224 px, for the networks alone.
        repeats: timed runs.
        device: of the networks.

    Returns:
        Rows ``{"table": "curve", "axis", "x", "method", "ms", quartiles, "repeats"}``.
    """
    device, found = device or choose_device(), []

    def note(axis: str, x: int, calls: Mapping[str, Call], per: int = 1) -> None:
        for name, timing in measure(calls, repeats=repeats, warmup=1).items():
            row = {"table": "curve", "axis": axis, "x": x, "method": name, "device": device}
            found.append(row | timing.ms(per=per) | {"repeats": repeats})

    network = models.DMCNet(models.motion_resnet18(400), models.DenseGenerator(), stream="cue")
    network = fast.form(network.eval().to(device))
    classifier = network.classifier
    for count in frames:
        setting = {"batch": min(count, 8), "device": device}
        paths = {
            "DMC-Net": by_cue(clip, network, count, **setting),
            "RGB, DIS, ResNet-18": by_flow(clip, classifier, count, method="dis", **setting),
        }
        note("frames", count, paths)
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
