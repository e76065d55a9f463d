"""Rows of ``dmc bench table3``: Table 3 of the paper (4.4), every competitor in the same run.

None of the paper's own figures is in it. Weights are random; they do not change a time. All
networks of one input, and the generator, run in the form that :mod:`dmclib.fast` chooses, and in
the same run as PyTorch has them by default ("eager"); RAFT has two inputs, and only that form.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
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
from dmclib.speed.timing import Call, Timing, forward, measure

GOP = 12  # frames: an I-frame and eleven P-frames
PWC = models.GeneratorConfig(widths=(128, 128, 96, 64, 32))  # Table 1's large generator


def networks(
    size: int, batch: int, device: str, form: Callable[[nn.Module], nn.Module] = fast.form
) -> dict[str, Call]:
    """Forward passes of the networks of Table 3 (a), by name, each over a batch of its input."""

    def planes(channels: int) -> Tensor:
        return torch.randn(batch, channels, size, size, device=device)

    def timed(network: nn.Module, channels: int) -> Call:
        return forward(form(network.eval().to(device)), planes(channels))

    # Two-stream networks see ten planes: the flow of five frames (Simonyan and Zisserman, 2014).
    ten = {"out_channels": 64, "kernel_size": 7, "stride": 2, "padding": 3, "bias": False}
    inception = {"weights": None, "init_weights": False, "aux_logits": False}
    by_rgb, by_flow = (torchvision.models.googlenet(**inception) for _ in "ab")
    by_flow.conv1.conv = nn.Conv2d(10, **ten)
    deep, deep_flow = (torchvision.models.resnet152(weights=None) for _ in "ab")
    deep_flow.conv1 = nn.Conv2d(10, **ten)
    dmc = models.DMCNet(models.motion_resnet18(400), models.DenseGenerator(), stream="cue")
    dmc = form(dmc.eval().to(device))
    vectors, residual = planes(2), planes(3)
    return {
        "GoogLeNet RGB": timed(by_rgb, 3),
        "GoogLeNet flow": timed(by_flow, 10),
        "ResNet-152 RGB": timed(deep, 3),
        "ResNet-152 flow": timed(deep_flow, 10),
        "ResNet-18 vectors": timed(models.motion_resnet18(400), 2),
        "ResNet-18 residual": timed(models.motion_resnet18(400, channels=3), 3),
        "ResNet-18 flow": timed(models.motion_resnet18(400), 2),
        "generator": forward(dmc.generator, vectors, residual),
        "ResNet-18 cue": forward(dmc.classifier, vectors),
        "generator + ResNet-18": forward(dmc, vectors, residual),
    }


# Method -> what prepares a frame; the networks on every frame, on I-frames and on P-frames alone.
_I, _P = {"I": ["ResNet-152 RGB"]}, ["ResNet-18 vectors", "ResNet-18 residual"]
METHODS = {
    "two-stream GoogLeNet": (["RGB", "TV-L1"], {"every": ["GoogLeNet RGB", "GoogLeNet flow"]}),
    "two-stream ResNet-152": (["RGB", "TV-L1"], {"every": ["ResNet-152 RGB", "ResNet-152 flow"]}),
    "CoViAR": (["vectors and residual"], _I | {"P": _P}),
    "CoViAR + TV-L1": (["vectors and residual", "TV-L1"], _I | {"P": [*_P, "ResNet-18 flow"]}),
    "DMC-Net": (["vectors and residual"], _I | {"P": [*_P, "generator + ResNet-18"]}),
}
# One needs the other's output. Taken apart to see where the time goes; one call at the same time
# as others.
CHAINS = {"generator + ResNet-18": ("generator", "ResNet-18 cue")}


def preparation(clip: Path, *, repeats: int) -> dict[str, Timing]:
    """Time what one frame costs before the networks, on the processor.

    "RGB" decodes pictures; "vectors and residual" decodes those with motion and residual; "TV-L1"
    is OpenCV's flow of one pair, at the clip's size as the paper's targets were made.

    Args:
        clip: MPEG-4 Part 2.
        repeats: timed runs, each over the clip's first 36 frames (one pair for TV-L1).
    """
    pair, frames = list(islice(codec.decode_rgb(clip), 2)), 36
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
    """Rows of Table 3 (a): milliseconds per frame, averaged over a GOP of twelve frames.

    An I-frame costs CoViAR and DMC-Net one ResNet-152, a P-frame the small networks; so a frame
    costs (I + 11 P) / 12 on average, as the paper's 0.59 ms, which is less than one ResNet-152
    takes there. Two-stream methods run both networks on every frame.

    Args:
        prepared: what :func:`preparation` returned.
        size: side of the networks' input.
        batches: frames that a network takes at once; 1 in the paper.
        repeats: timed passes of each.
        device: of the networks.

    Returns:
        One row per method and batch: ``preprocess_ms``, ``networks_ms`` (one after another; eager,
        ``eager_networks_ms``), ``at_once_ms`` (a frame's networks at the same time), ``total_ms``
        and ``fps`` (with ``networks_ms``), ``total_at_once_ms`` and ``fps_at_once``. Quartiles of a
        sum are sums of quartiles. Then one row (``table`` "parts") per part of a frame's time, one
        network after another.
    """
    device, rows = device or choose_device(), []
    groups = {tuple(n) for _, uses in METHODS.values() for n in uses.values() if len(n) > 1}
    for batch in batches:
        calls, together = networks(size, batch, device), {}
        eager = networks(size, batch, device, form=lambda network: network)
        eager = {f"{name}, eager": call for name, call in eager.items()}
        with ExitStack() as stack:
            for names in groups:
                call = at_once([calls[name] for name in names], device)
                together[names] = stack.enter_context(call)
            times = measure(calls | eager | together, repeats=repeats, warmup=1)
        for method in METHODS:
            setting = {"method": method, "device": device, "size": size, "batch": batch}
            rows += _method_rows(setting, times, prepared, repeats)
    return rows


def _method_rows(setting: dict, times: Mapping, prepared: Mapping, repeats: int) -> list[dict]:
    (preparations, uses), batch = METHODS[setting["method"]], setting["batch"]
    share = {"every": 1 / batch, "I": 1 / GOP / batch, "P": (GOP - 1) / GOP / batch}
    before = [(name, prepared[name], 1.0) for name in preparations]
    single, eager, groups = [], [], []
    for kind, names in uses.items():
        links = [link for name in names for link in CHAINS.get(name, (name,))]
        single += [(link, times[link], share[kind]) for link in links]
        eager += [(times[f"{link}, eager"], share[kind]) for link in links]
        groups.append((times[tuple(names) if len(names) > 1 else names[0]], share[kind]))
    sums = {
        "preprocess": _sum([part[1:] for part in before]),
        "networks": _sum([part[1:] for part in single]),
        "eager_networks": _sum(eager),
        "at_once": _sum(groups),
    }
    for name, last in (("total", "networks"), ("total_at_once", "at_once")):
        sums[name] = _sum([(sums["preprocess"], 1), (sums[last], 1)])
    row = {"table": "3a"} | setting
    for name, timing in sums.items():
        row |= timing.ms(name)
    row |= {"fps": 1 / sums["total"].median, "fps_at_once": 1 / sums["total_at_once"].median}
    parts = [
        {"table": "parts"} | setting | {"part": name} | _sum([(timing, weight)]).ms("part")
        for name, timing, weight in before + single
    ]
    return [row | {"repeats": repeats}, *parts]


OPENCV = ("TV-L1 (OpenCV)", "Farneback", "DIS")  # run on the processor


def flow_methods(size: int, device: str) -> dict[str, Call]:
    """Table 3 (b)'s competitors, each over one pair of pictures or one P-frame of ``size`` px."""
    texture = islice(drifting_texture(height=size, width=size), 2)
    pictures = [np.ascontiguousarray(picture) for picture in texture]
    pair = [torch.from_numpy(p).to(device).permute(2, 0, 1)[None] / 127.5 - 1 for p in pictures]
    fields = [torch.randn(1, n, size, size, device=device) for n in (2, 3)]

    def by(method: flow.Method) -> Call:
        return lambda: flow.estimate(*pictures, method=method, device=device)

    def ready(network: nn.Module) -> nn.Module:
        return network.eval().to(device)

    raft = torchvision.models.optical_flow
    pwc = partial(models.summed, ready(models.DenseGenerator(PWC)))
    return {
        "TV-L1 (OpenCV)": by("tvl1"),
        "TV-L1 (torch)": by("tvl1-torch"),
        "Farneback": by("farneback"),
        "DIS": by("dis"),
        "RAFT large": forward(ready(raft.raft_large(weights=None)), *pair),
        "RAFT small": forward(ready(raft.raft_small(weights=None)), *pair),
        "PWC-size estimator": forward(pwc, *fields),
        "DMC generator": forward(fast.form(ready(models.DenseGenerator())), *fields),
    }


def table_3b(
    *,
    size: int = 224,
    repeats: int = 5,
    methods: Sequence[str] | None = None,
    device: str | None = None,
) -> list[dict]:
    """Rows of Table 3 (b): a frame's motion by each method, alone and followed by a ResNet-18.

    Args:
        size: side of the pictures that all of them see, a multiple of 8 from 128 px (RAFT's terms).
        repeats: timed runs, one pair each.
        methods: keys of :func:`flow_methods`; all by default.
        device: of whatever runs in torch.

    Returns:
        One row per method: ``ms``, ``fps``, ``with_resnet18_ms`` (both medians added, as in the
        paper), ``with_resnet18_fps``, ``with_eager_resnet18_ms``, quartiles; or ``needs``.
    """
    device = device or choose_device()
    calls, rows = flow_methods(size, device), []
    classifier = models.motion_resnet18(400).eval().to(device)
    field = torch.randn(1, 2, size, size, device=device)
    behind = {"resnet18": fast.form(classifier), "eager_resnet18": classifier}
    timed = {name: forward(network, field) for name, network in behind.items()}
    for name in methods or calls:
        try:
            calls[name]()
            timed[name] = calls[name]
        except DMCError as error:
            rows.append({"table": "3b", "method": name, "needs": str(error)})
    times = measure(timed, repeats=repeats, warmup=1)
    behind = {name: times.pop(name) for name in behind}
    for name, alone in times.items():
        both = {end: _sum([(alone, 1), (timing, 1)]) for end, timing in behind.items()}
        place = "cpu" if name in OPENCV else device
        row = {"table": "3b", "method": name, "device": place, "size": size} | alone.ms()
        row |= {"fps": 1 / alone.median, "with_resnet18_fps": 1 / both["resnet18"].median}
        for end, timing in both.items():
            row |= timing.ms(f"with_{end}")
        rows.append(row | {"repeats": repeats})
    return rows


def rows() -> list[dict]:
    """Both tables at the paper's size, for ``dmc bench table3``.

    ``over_dmc_net`` is a method's total over DMC-Net's.
    """
    with default_clip() as clip:
        prepared = preparation(clip, repeats=5)
        first = table_3a(prepared, batches=(1, 4), repeats=5)
    first = [row for row in first if row["table"] == "3a"]
    totals = {row["batch"]: row["total_ms"] for row in first if row["method"] == "DMC-Net"}
    first = [row | {"over_dmc_net": row["total_ms"] / totals[row["batch"]]} for row in first]
    return [*first, *table_3b(repeats=3)]


@contextmanager
def at_once(calls: Sequence[Call], device: str) -> Iterator[Call]:
    """Make one call of several that run at the same time and end together.

    On a GPU each has a stream of its own. On the processor each has a thread, and torch's threads
    are divided among them.
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
        torch.get_num_threads()  # torch sets up a thread once; later it would undo the next line
        torch.set_num_threads(max(1, threads // len(calls)))
        all_there.wait()

    with ThreadPoolExecutor(len(calls)) as pool:
        exhaust(pool.map(lambda _: begin(), calls))
        torch.set_num_threads(threads)  # for threads made later; those above keep theirs
        yield lambda: exhaust(pool.map(lambda call: call(), calls))


def _sum(parts: Sequence[tuple[Timing, float]]) -> Timing:
    """Times that follow one another, each times its weight; quartiles are added like medians."""
    sides = ("median", "lower", "upper")
    seconds = [sum(getattr(timing, side) * weight for timing, weight in parts) for side in sides]
    return Timing(*seconds, min(timing.repeats for timing, _ in parts))
