"""One timing protocol for every speed row: interleaved repeats, median and quartiles.

Two things are compared by running them in turn, A B A B, in one process. Whatever else the machine
does meanwhile falls on both alike, and their ratio stands even where the times do not.
"""

import cProfile
import pstats
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """How long one call took, in seconds, over some repeats."""

    median: float
    lower: float  # first quartile
    upper: float  # third quartile
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Median and quartiles of these times."""
        lower, median, upper = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
        return cls(median, lower, upper, len(seconds))

    def ms(self, name: str = "", *, per: float = 1) -> dict[str, float]:
        """Columns of a speed row: ``<name>_ms`` and its quartiles ``_lower_ms``, ``_upper_ms``.

        ``per`` divides all three: the frames of a batch, for milliseconds per frame.
        """
        sides = {"": self.median, "_lower": self.lower, "_upper": self.upper}
        columns = {f"{name}{side}_ms": 1e3 * seconds / per for side, seconds in sides.items()}
        return {column.removeprefix("_"): ms for column, ms in columns.items()}

    def rate(self, name: str, count: float) -> dict[str, float]:
        """Columns of a speed row: ``count`` per second as ``name``, its quartiles as their own."""
        return {name: count / self.median, "lower": count / self.upper, "upper": count / self.lower}


def measure(
    functions: Mapping[str, Call], *, repeats: int = 15, warmup: int = 2
) -> dict[str, Timing]:
    """Time functions against each other, called in the order given, again and again.

    On a CUDA GPU a call's time lies between two events on its current stream, one before the call
    and one behind all work that it has queued; a function that uses further streams must join them
    before it returns. Work on the processor falls between the events and counts too. Without a GPU
    it is wall time. ``warmup`` calls of each come first, untimed (caches, memory pools, kernels).

    Raises:
        ValueError: ``repeats``, the timed calls of each, is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; at least one call must be timed.")
    duration = _between_events if torch.cuda.is_available() else _on_the_wall
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name, function in functions.items():
            taken = duration(function)
            if turn >= warmup:
                seconds[name].append(taken)
    return {name: Timing.of(taken) for name, taken in seconds.items()}


def cumulative(function: Call) -> dict[str, float]:
    """Seconds of one call in each Python function and all that it calls, by "module.function".

    They hold the profiler's own time: some microseconds for each call of a function.
    """
    profiler = cProfile.Profile()
    profiler.runcall(function)
    seconds: dict[str, float] = defaultdict(float)
    for (file, _, name), numbers in pstats.Stats(profiler).stats.items():
        seconds[f"{Path(file).stem}.{name}"] += numbers[3]
    return seconds


def _on_the_wall(function: Call) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _between_events(function: Call) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in "ab")
    torch.cuda.synchronize()  # earlier work does not belong to this call
    before.record()
    function()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1e3


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Hold torch and OpenCV to a number of threads; restore it afterwards.

    For rows that compare the two: by default each takes as many as it likes.
    """
    import cv2  # not above: most users of this module do not need it

    with ExitStack() as restore:
        restore.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
        restore.callback(cv2.setNumThreads, cv2.getNumThreads())
        cv2.setNumThreads(threads)
        yield


def forward(network: Callable, *inputs: torch.Tensor) -> Call:
    """A call that runs the network on these inputs, without gradients in whatever thread."""
    return torch.inference_mode()(partial(network, *inputs))
