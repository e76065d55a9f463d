"""One timing protocol for every speed row: interleaved repeats, median and quartiles.

Two things are compared by running them in turn, A B A B, in one process: whatever else the machine
does meanwhile then falls on both alike, and their ratio stands even where the times do not.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch


@dataclass(frozen=True)
class Timing:
    """How long one call took, in seconds, over some repeats."""

    median: float
    lower: float  # first quartile
    upper: float  # third quartile
    repeats: int


def measure(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 15,
    warmup: int = 2,
    synchronize: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time functions against each other.

    Args:
        functions: name -> what to call; called in this order, again and again.
        repeats: timed calls of each.
        warmup: untimed calls of each beforehand (caches, memory pools, GPU kernels).
        synchronize: called before each look at the clock. By default waits for the GPU where there
            is one, since its calls return before their work is done.
        clock: seconds, growing; tests give their own.

    Returns:
        Name -> :class:`Timing`, in the order given.

    Raises:
        ValueError: ``repeats`` below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; at least one call must be timed.")
    if synchronize is None:
        synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name, function in functions.items():
            synchronize()
            start = clock()
            function()
            synchronize()
            if turn >= warmup:
                seconds[name].append(clock() - start)
    timings = {}
    for name, taken in seconds.items():
        lower, median, upper = np.quantile(taken, [0.25, 0.5, 0.75]).tolist()
        timings[name] = Timing(median, lower, upper, repeats)
    return timings


def machine() -> dict[str, str | int | None]:
    """What a time depends on: processor, cores, threads, versions, GPU. Names no host, no path."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")  # Linux; elsewhere the architecture has to do
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
