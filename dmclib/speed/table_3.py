"""Rows of ``dmc bench table3``: Table 3 of the paper (4.4), every competitor in the same run.

The paper's own figures are nowhere in it. Weights are random: they change no time. All runs in
float32 as PyTorch does it by default; the generator in the form that :mod:`dmclib.fast` chooses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from threading import Barrier

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from dmclib import codec, fast, flow, models
from dmclib.errors import DMCError
from dmclib.machine import choose_device
from dmclib.speed.clips import default_clip, drifting_texture, exhaust
from dmclib.speed.timing import Timing, forward, measure

GOP = 12  # frames: an I-frame and eleven P-frames
PWC = models.GeneratorConfig(widths=(128, 128, 96, 64, 32))  # Table 1's large generator
Call = Callable[[], object]


def networks(size: int, batch: int, device: str) -> dict[str, Call]:
    """Forward passes of the networks of Table 3 (a), by name, each over a batch of its input."""

    def pictures(channels: int) -> Tensor:
        return torch.randn(batch, channels, size, size, device=device)

    def ready(network: nn.Module) -> nn.Module:
        return network.eval().to(device)

    inception = {"weights": None, "init_weights": False, "aux_logits": False}
    by_rgb, by_flow = (torchvision.models.googlenet(**inception) for _ in "ab")
    # Two-stream networks see ten planes: the flow of five frames (Simonyan and Zisserman, 2014).
    by_flow.conv1.conv = nn.Conv2d(10, 64, kernel_size=7, stride=2, padding=3, bias=False)
    deep, deep_flow = (torchvision.models.resnet152(weights=None) for _ in "ab")
    deep_flow.conv1 = nn.Conv2d(10, 64, kernel_size=7, stride=2, padding=3, bias=False)
    generator = fast.generator(ready(models.DenseGenerator()))
    dmc = models.DMCNet(generator, ready(models.motion_resnet18(400))).eval()
    vectors, residual = pictures(2), pictures(3)
    return {
        "GoogLeNet RGB": forward(ready(by_rgb), pictures(3)),
        "GoogLeNet flow": forward(ready(by_flow), pictures(10)),
        "ResNet-152 RGB": forward(ready(deep), pictures(3)),
        "ResNet-152 flow": forward(ready(deep_flow), pictures(10)),
        "ResNet-18 vectors": forward(ready(models.motion_resnet18(400)), pictures(2)),
        "ResNet-18 residual": forward(ready(models.motion_resnet18(400, channels=3)), pictures(3)),
        "ResNet-18 flow": forward(ready(models.motion_resnet18(400)), pictures(2)),
        "generator": forward(generator, vectors, residual),
        "ResNet-18 cue": forward(dmc.classifier, vectors),
        "generator + ResNet-18": forward(dmc, vectors, residual),
    }


# Method -> what it runs on every frame, on I-frames alone and on P-frames alone.
_COVIAR = {"every": [], "I": ["ResNet-152 RGB"], "P": ["ResNet-18 vectors", "ResNet-18 residual"]}
METHODS = {
    "two-stream GoogLeNet": {"every": ["GoogLeNet RGB", "GoogLeNet flow"], "I": [], "P": []},
    "two-stream ResNet-152": {"every": ["ResNet-152 RGB", "ResNet-152 flow"], "I": [], "P": []},
    "CoViAR": _COVIAR,
    "CoViAR + TV-L1": _COVIAR | {"P": [*_COVIAR["P"], "ResNet-18 flow"]},
    "DMC-Net": _COVIAR | {"P": [*_COVIAR["P"], "generator + ResNet-18"]},
}
# One needs the other's output: taken apart to see where the time goes, together beside others.
CHAINS = {"generator + ResNet-18": ("generator", "ResNet-18 cue")}
PREPARATION = {
    "two-stream GoogLeNet": ["RGB", "TV-L1"],
    "two-stream ResNet-152": ["RGB", "TV-L1"],
    "CoViAR": ["vectors and residual"],
    "CoViAR + TV-L1": ["vectors and residual", "TV-L1"],
    "DMC-Net": ["vectors and residual"],
}


def preparation(clip: Path, *, repeats: int, frames: int = 36) -> dict[str, Timing]:
    """Time a frame's way from the file to the networks, on the processor.

    "RGB" decodes pictures; "vectors and residual" decodes those with motion and residual; "TV-L1"
    is OpenCV's flow of one pair, at the clip's size as the paper's targets were made.

    Args:
        clip: MPEG-4 Part 2.
        repeats: timed runs, each over the clip's first ``frames`` frames (one pair for TV-L1).
        frames: how many.
    """
    pair = list(islice(codec.decode_rgb(clip), 2))
    calls = {
        "RGB": lambda: exhaust(islice(codec.decode_rgb(clip), frames)),
        "vectors and residual": lambda: exhaust(islice(codec.read_frames(clip), frames)),
        "TV-L1": lambda: flow.estimate(*pair, method="tvl1"),
    }
    times = measure(calls, repeats=repeats, warmup=1)
    decoded = ("RGB", "vectors and residual")
    return times | {name: _sum([(times[name], 1 / frames)]) for name in decoded}


def table_3a(
    prepared: Mapping[str, Timing],
    *,
    size: int = 224,
    batches: Sequence[int] = (1, 8),
    repeats: int = 5,
    device: str | None = None,
) -> list[dict]:
    """Rows of Table 3 (a): milliseconds a frame, averaged over a GOP of twelve frames.

    An I-frame costs CoViAR and DMC-Net one ResNet-152, a P-frame the small networks; so a frame
    costs (I + 11 P) / 12 on average. The paper says "average per-frame", and its 0.59 ms is less
    than one ResNet-152 takes there. Two-stream methods run both networks on every frame.

    Args:
        prepared: what :func:`preparation` found.
        size: side of the networks' input.
        batches: frames that a network takes at once; 1 in the paper.
        repeats: timed passes of each.
        device: of the networks; by default :func:`choose_device`.

    Returns:
        One row a method and batch: ``preprocess_ms``, ``networks_ms`` (one after another),
        ``at_once_ms`` (a frame's networks at the same time), ``total_ms`` and ``fps`` (with
        ``networks_ms``), ``total_at_once_ms`` and ``fps_at_once``; the times have quartiles, those
        of their parts weighted alike. And one row (``table`` "parts") for each part of a frame's
        time, one network after another.
    """
    device, found = device or choose_device(), []
    for batch in batches:
        calls = networks(size, batch, device)
        several = {tuple(n) for uses in METHODS.values() for n in uses.values() if len(n) > 1}
        with ExitStack() as stack:
            together = {
                names: stack.enter_context(at_once([calls[name] for name in names], device))
                for names in several
            }
            times = measure(calls | together, repeats=repeats, warmup=1)
        for method in METHODS:
            about = {"method": method, "device": device, "size": size, "batch": batch}
            found += _method_rows(about, times, prepared, repeats)
    return found


def _method_rows(about: dict, times: Mapping, prepared: Mapping, repeats: int) -> list[dict]:
    uses, batch = METHODS[about["method"]], about["batch"]
    share = {"every": 1 / batch, "I": 1 / GOP / batch, "P": (GOP - 1) / GOP / batch}
    before = [(name, prepared[name], 1.0) for name in PREPARATION[about["method"]]]
    single = [
        (name, times[name], share[kind])
        for kind in uses
        for group in uses[kind]
        for name in CHAINS.get(group, (group,))
    ]
    groups = [(names, share[kind]) for kind, names in uses.items() if names]
    sums = {
        "preprocess": _sum([part[1:] for part in before]),
        "networks": _sum([part[1:] for part in single]),
        "at_once": _sum([(times[tuple(n) if len(n) > 1 else n[0]], w) for n, w in groups]),
    }
    for name, last in (("total", "networks"), ("total_at_once", "at_once")):
        sums[name] = _sum([(sums["preprocess"], 1), (sums[last], 1)])
    row = {"table": "3a"} | about
    for name, timing in sums.items():
        row |= timing.ms(name)
    row |= {"fps": 1 / sums["total"].median, "fps_at_once": 1 / sums["total_at_once"].median}
    parts = [
        {"table": "parts"} | about | {"part": name} | _sum([(timing, weight)]).ms("part")
        for name, timing, weight in before + single
    ]
    return [row | {"repeats": repeats}, *parts]


# --- Table 3 (b) and beyond ---------------------------------------------------------------------


def flow_methods(size: int, device: str) -> dict[str, Call]:
    """Table 3 (b)'s competitors, each over one pair of pictures or one P-frame of ``size`` px."""
    pictures = [
        np.ascontiguousarray(picture)
        for picture in islice(drifting_texture(height=size, width=size), 2)
    ]
    first, second = (
        torch.from_numpy(p).to(device).permute(2, 0, 1)[None] / 127.5 - 1 for p in pictures
    )
    motion, residual = (torch.randn(1, n, size, size, device=device) for n in (2, 3))
    raft = torchvision.models.optical_flow
    large, small = (
        make(weights=None).eval().to(device) for make in (raft.raft_large, raft.raft_small)
    )
    generator = fast.generator(models.DenseGenerator().eval().to(device))

    def opencv(method: flow.Method) -> Call:
        return lambda: flow.estimate(*pictures, method=method)

    return {
        "TV-L1 (OpenCV)": opencv("tvl1"),
        "TV-L1 (torch)": lambda: list(
            flow.estimate_clip(pictures, method="tvl1-torch", device=device)
        ),
        "Farneback": opencv("farneback"),
        "DIS": opencv("dis"),
        "RAFT large": forward(large, first, second),
        "RAFT small": forward(small, first, second),
        "PWC-size estimator": forward(
            models.DenseGenerator(PWC).eval().to(device), motion, residual
        ),
        "DMC generator": forward(generator, motion, residual),
    }


def table_3b(
    *,
    size: int = 224,
    repeats: int = 5,
    methods: Sequence[str] | None = None,
    device: str | None = None,
) -> list[dict]:
    """Rows of Table 3 (b): a frame's motion by each method, alone and with a ResNet-18 behind it.

    Args:
        size: side of the pictures that all of them see, a multiple of 8 from 128 px (RAFT's terms).
        repeats: timed runs, one pair each.
        methods: keys of :func:`flow_methods`; all by default.
        device: of whatever runs in torch; OpenCV's methods have the processor.

    Returns:
        One row a method: ``ms``, ``fps``, ``with_resnet18_ms`` (both medians added, as in the
        paper), ``with_resnet18_fps``, quartiles; or ``needs``.
    """
    device = device or choose_device()
    calls, found = flow_methods(size, device), []
    classifier = models.motion_resnet18(400).eval().to(device)
    timed = {"ResNet-18": forward(classifier, torch.randn(1, 2, size, size, device=device))}
    for name in methods or calls:
        try:
            calls[name]()
            timed[name] = calls[name]
        except DMCError as error:
            found.append({"table": "3b", "method": name, "needs": str(error)})
    times = measure(timed, repeats=repeats, warmup=1)
    behind = times.pop("ResNet-18")
    for name, alone in times.items():
        both = _sum([(alone, 1), (behind, 1)])
        where = "cpu" if "torch" not in name and name in _OPENCV else device
        row = {"table": "3b", "method": name, "device": where, "size": size}
        row |= {key.removeprefix("alone_"): value for key, value in alone.ms("alone").items()}
        row |= {"fps": 1 / alone.median} | both.ms("with_resnet18")
        found.append(row | {"with_resnet18_fps": 1 / both.median, "repeats": repeats})
    return found


_OPENCV = {"TV-L1 (OpenCV)", "Farneback", "DIS"}


def rows() -> list[dict]:
    """Both tables at the paper's size, for ``dmc bench table3``."""
    with default_clip() as clip:
        prepared = preparation(clip, repeats=5)
        found = [*table_3a(prepared, batches=(1, 4), repeats=3), *table_3b(repeats=3)]
    return [row for row in found if row["table"] != "parts"]


# --- helpers ------------------------------------------------------------------------------------


@contextmanager
def at_once(calls: Sequence[Call], device: str) -> Iterator[Call]:
    """Make one call of several that run at the same time and end together.

    On a GPU each has a stream of its own; on the processor each has a thread, and torch's threads
    are shared out among them.
    """
    if device == "cuda":
        streams = [torch.cuda.Stream() for _ in calls]

        def together() -> None:
            current = torch.cuda.current_stream()
            for call, stream in zip(calls, streams, strict=True):
                stream.wait_stream(current)
                with torch.cuda.stream(stream):
                    call()
            for stream in streams:
                current.wait_stream(stream)

        yield together
        return
    threads, all_there = torch.get_num_threads(), Barrier(len(calls))

    def begin() -> None:
        torch.get_num_threads()  # what torch does once a thread; later it would undo the next line
        torch.set_num_threads(max(1, threads // len(calls)))
        all_there.wait()

    with ThreadPoolExecutor(len(calls)) as pool:
        exhaust(pool.map(lambda _: begin(), calls))
        torch.set_num_threads(threads)  # for threads made later; those above keep theirs
        yield lambda: exhaust(pool.map(lambda call: call(), calls))


def _sum(parts: Sequence[tuple[Timing, float]]) -> Timing:
    """Times that follow one another, each so often; the quartiles are added like the medians."""
    sides = ("median", "lower", "upper")
    seconds = [sum(getattr(timing, side) * weight for timing, weight in parts) for side in sides]
    return Timing(*seconds, min(timing.repeats for timing, _ in parts))
