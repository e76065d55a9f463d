"""Rows of ``dmc bench training``: frames per second that each kind of training learns from.

A step is forward, backward and update as :func:`training.fit` takes it. Its batch is in memory, so
reading clips is not timed. ``dmc reproduce --dry-run`` computes its hours from these rows. Rows "a
step" take one apart, at the size of a short training, beside PyTorch's own convolutions.
"""

from types import SimpleNamespace

import torch

from dmclib import models, training, transforms
from dmclib.data import DataConfig
from dmclib.data.loader import Batch
from dmclib.losses import LossWeights
from dmclib.machine import choose_device, has_bf16
from dmclib.reproduce.dry_run import kind
from dmclib.speed.timing import Timing, measure
from dmclib.training import TrainConfig
from dmclib.training.distributed import ProcessGroup
from dmclib.training.loop import Loop, cast

CLASSES = 101  # UCF-101's
MSE, ADVERSARIAL = LossWeights(reconstruction=10), LossWeights(reconstruction=10, adversarial=1)
ALONE = LossWeights(classification=0, reconstruction=1)
# All that the paper trains; of pictures, what it takes for I-frames and what a laptop can.
TIMED = (
    {"stream": "rgb", "network": "resnet152"},
    {"stream": "rgb"},
    {"stream": "motion"},
    {"stream": "residual"},
    {"stream": "flow"},
    {"stream": "cue", "weights": ALONE},
    {"stream": "cue", "weights": MSE},
    {"stream": "cue", "weights": ADVERSARIAL},
)


def rows(*, size: int = 224, clips: int | None = None, repeats: int | None = None) -> list[dict]:
    """Time a step of every kind of training that the paper has, on random fields.

    Args:
        size: side of the crop, px.
        clips: in a batch, three frames each; by default a training's own on a GPU and 2 on a CPU.
        repeats: timed steps; by default 15 on a GPU and 5 on a CPU, about a minute.

    Returns:
        A row per kind with ``frames_per_second`` and its quartiles; on a processor a row of
        :func:`taken_apart` for each precision that it computes in.
    """
    device = choose_device()
    on_gpu = device != "cpu"
    repeats = repeats or (15 if on_gpu else 5)
    found = []
    for chosen in TIMED:  # one by one: each has the memory to itself
        config = TrainConfig(data=DataConfig(), epochs=1, size=size, **chosen)
        batch = clips or (config.clips_per_batch if on_gpu else 2)
        frames = batch * config.segments
        row = {"task": kind(config), "device": device, "size": size, "clips_per_batch": batch}
        row |= {"frames_per_batch": frames}
        row |= _time(config, batch, device, repeats).rate("frames_per_second", frames)
        found.append(row | {"repeats": repeats})
    if not on_gpu:
        precisions = ("float32", "bf16") if has_bf16(device) else ("float32",)
        found += [taken_apart(precision) for precision in precisions]
    return found


def taken_apart(precision: str, *, size: int = 96, clips: int = 6, repeats: int = 7) -> dict:
    """A step of ResNet-18 on the processor: its parts, and the whole with torch's convolutions.

    ``forward_ms`` is a median; ``backward_ms`` and ``update_ms`` are what the next part adds to it.
    ``gain`` is the time with torch's convolutions (``theirs_ms``) over ours.
    """
    config = TrainConfig(
        stream="motion", data=DataConfig(), epochs=1, size=size, precision=precision
    )
    ours, batch = _loop(config, clips, "cpu")
    theirs, _ = _loop(config, clips, "cpu")
    for module in theirs.networks.modules():
        if isinstance(module, models.SmallMapConv2d):
            module.__class__ = torch.nn.Conv2d

    def loss() -> torch.Tensor:
        with cast(config, torch.device("cpu")):
            logits = ours.networks.logits(batch.sample.motion).float()
        return torch.nn.functional.cross_entropy(logits, batch.label.repeat_interleave(3))

    calls = {
        "forward": loss,
        "backward": lambda: loss().backward(),
        "ours": lambda: ours.step(0, batch),
        "theirs": lambda: theirs.step(0, batch),
    }
    times = measure(calls, repeats=repeats, warmup=2)
    row = {"task": "a step", "precision": precision, "size": size, "frames_per_batch": 3 * clips}
    ms = {name: 1e3 * times[name].median for name in calls}
    row |= {"forward_ms": ms["forward"], "backward_ms": ms["backward"] - ms["forward"]}
    row |= {"update_ms": ms["ours"] - ms["backward"]}
    row |= times["ours"].ms("ours") | times["theirs"].ms("theirs")
    return row | {"gain": ms["theirs"] / ms["ours"], "repeats": repeats}


def _time(config: TrainConfig, clips: int, device: str, repeats: int) -> Timing:
    """One step on ``clips`` clips."""
    loop, batch = _loop(config, clips, device)
    return measure({"step": lambda: loop.step(0, batch)}, repeats=repeats, warmup=3)["step"]


def _loop(config: TrainConfig, clips: int, device: str) -> tuple[Loop, Batch]:
    """A training that is ready for its first step, and a batch of random fields for it."""
    shape = (config.size, config.size)
    fields = (torch.randn(clips * config.segments, n, *shape, device=device) for n in (2, 3, 2))
    labels = torch.arange(clips, device=device) % CLASSES
    batch = Batch(transforms.Sample(*fields), labels, torch.arange(clips))
    networks = training.build_networks(config, CLASSES)
    networks.to(device, memory_format=torch.channels_last)
    endless = SimpleNamespace(items=range(10**9))  # learning rates need the length of a training
    return Loop(config, networks.train(), endless, ProcessGroup(torch.device(device))), batch
