"""One timing protocol for every speed row: interleaved repeats, median and quartiles.

Two things are compared by running them in turn, A B A B, in one process: whatever else the machine
does meanwhile then falls on both alike, and their ratio stands even where the times do not.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Timing:
    """How long one call took, in seconds, over some repeats."""

    median: float
    lower: float  # first quartile
    upper: float  # third quartile
    repeats: int

    def ms(self, name: str, *, per: float = 1) -> dict[str, float]:
        """Columns of a speed row: ``<name>_ms`` and its quartiles ``_lower_ms``, ``_upper_ms``.

        ``per`` divides all three: the frames of a batch, for milliseconds a frame.
        """
        sides = {"": self.median, "_lower": self.lower, "_upper": self.upper}
        return {f"{name}{side}_ms": 1e3 * seconds / per for side, seconds in sides.items()}


def measure(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 15,
    warmup: int = 2,
    synchronize: Callable[[], object] | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, Timing]:
    """Time functions against each other.

    Where there is a CUDA GPU, a call is the time between two events on its current stream, one
    before the call and one behind all that it left to do; a function that uses further streams has
    them joined when it returns. Work on the processor falls between the events and counts too.
    Elsewhere it is wall time.

    Args:
        functions: name -> what to call; called in this order, again and again.
        repeats: timed calls of each.
        warmup: untimed calls of each beforehand (caches, memory pools, GPU kernels).
        synchronize, clock: what to wait for before each look at the clock, and the clock, in
            seconds. Either takes the place of the events; tests give their own.

    Returns:
        Name -> :class:`Timing`, in the order given.

    Raises:
        ValueError: ``repeats`` below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; at least one call must be timed.")
    with_events = synchronize is None and clock is None and torch.cuda.is_available()
    synchronize, clock = synchronize or (lambda: None), clock or time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name, function in functions.items():
            if with_events:
                taken = _between_events(function)
            else:
                synchronize()
                start = clock()
                function()
                synchronize()
                taken = clock() - start
            if turn >= warmup:
                seconds[name].append(taken)
    timings = {}
    for name, taken in seconds.items():
        lower, median, upper = np.quantile(taken, [0.25, 0.5, 0.75]).tolist()
        timings[name] = Timing(median, lower, upper, repeats)
    return timings


def _between_events(function: Callable[[], object]) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in "ab")
    torch.cuda.synchronize()  # what is still under way does not belong to this call
    before.record()
    function()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1e3


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Hold torch and OpenCV, where it is installed, to a number of threads; put back afterwards.

    For rows that compare the two: by default each takes as many as it likes.
    """
    try:
        import cv2  # an optional extra
    except ImportError:
        cv2 = None
    before = torch.get_num_threads(), cv2 and cv2.getNumThreads()
    torch.set_num_threads(threads)
    if cv2:
        cv2.setNumThreads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        if cv2:
            cv2.setNumThreads(before[1])


def forward(network: Callable, *inputs: torch.Tensor) -> Callable[[], object]:
    """A call that runs the network over these inputs, without gradients."""

    def call() -> object:
        with torch.inference_mode():  # here and not around: it holds for one thread alone
            return network(*inputs)

    return call
