"""Rows of ``dmc bench generator``: the cue's network beside the least that this machine allows."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from dmclib import fast, models
from dmclib.timing import choose_device, forward, measure


def limits(device: str, *, repeats: int = 10) -> dict[str, float]:
    """What this machine gives to the simplest of programs, measured: the two sides of a roofline.

    Of the repeats it is the first quartile of the times: a limit that others' work had a part in
    would be none.

    Returns:
        ``gflops``: floating-point operations of a float32 product of two 2048 x 2048 matrices (two
        for each multiply-add), in 10^9 a second. ``gb_per_s``: bytes read and written by copying
        256 MB, in 10^9 a second.
    """
    a, b = torch.randn(2, 2048, 2048, device=device)
    source = torch.zeros(64 * 2**20, device=device)
    target = torch.empty_like(source)
    calls = {"product": lambda: torch.mm(a, b), "copy": lambda: target.copy_(source)}
    times = measure(calls, repeats=repeats)
    return {
        "gflops": 2 * 2048**3 / times["product"].lower / 1e9,
        "gb_per_s": 2 * source.nbytes / times["copy"].lower / 1e9,
    }


def generator_floor(found: Mapping[str, float], *, size: int = 224) -> dict[str, float]:
    """The least time a frame's cue can take here, if only input and output pass through memory.

    Args:
        found: what :func:`limits` measured.
        size: side of the picture.

    Returns:
        Milliseconds: ``compute_ms`` (multiply-adds at the machine's peak), ``memory_ms`` (five
        planes in, two out, float32), and ``floor_ms``, the larger.
    """
    shapes = (1, 2, size, size), (1, 3, size, size)
    operations = 2 * models.count_macs(models.DenseGenerator(), *shapes)
    moved = 4 * (2 + 3 + 2) * size * size
    compute, memory = operations / found["gflops"] / 1e6, moved / found["gb_per_s"] / 1e6
    return {"compute_ms": compute, "memory_ms": memory, "floor_ms": max(compute, memory)}


def concatenated(network: models.DenseGenerator, motion: Tensor, residual: Tensor) -> Tensor:
    """The cue as the paper draws it and the released code makes it: all maps stacked, every layer.

    The reference that the faster forms are held against, in time and in value.
    """
    x = torch.cat([motion, residual], dim=1)
    for layer in network.layers:
        x = torch.cat([layer(x), x], dim=1)
    return motion + network.to_cue(x)


def rows(*, size: int = 224, batches: Sequence[int] = (1, 8), repeats: int = 15) -> list[dict]:
    """Time the generator's forms in PyTorch and the fast one, beside the machine's floor.

    ``eager`` stacks all maps before every layer (:func:`concatenated`), ``summed`` is
    ``DenseGenerator.forward``, ``fast`` what ``fast.generator`` chooses.

    Returns:
        One row a batch: milliseconds a frame with quartiles, how many times faster than eager the
        fast one is (``gain``), the largest difference of the two cues, and how many times the
        floor the fast one takes.
    """
    device = choose_device()
    floor = generator_floor(limits(device), size=size)["floor_ms"]
    network = models.DenseGenerator().eval().to(device)
    chosen = fast.generator(network)
    found = []
    for batch in batches:
        motion, residual = (torch.randn(batch, n, size, size, device=device) for n in (2, 3))
        calls = {
            "eager": forward(partial(concatenated, network), motion, residual),
            "summed": forward(network, motion, residual),
            "fast": forward(chosen, motion, residual),
        }
        times = measure(calls, repeats=repeats)
        row = {"task": "cue", "form": type(chosen).__name__, "device": device, "size": size}
        row |= {"batch": batch}
        for name, timing in times.items():
            row |= timing.ms(name, per=batch)
        row |= {"gain": row["eager_ms"] / row["fast_ms"], "floor_ms": floor}
        row["times_the_floor"] = row["fast_ms"] / floor
        row["largest_difference"] = (calls["eager"]() - calls["fast"]()).abs().max().item()
        found.append(row | {"repeats": repeats})
    return found
