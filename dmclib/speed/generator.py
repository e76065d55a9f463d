"""Rows of ``dmc bench generator``: the cue's network against the least that this machine allows."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from dmclib import fast, models
from dmclib.speed.timing import Call, forward, measure


def limits(device: str) -> dict[str, float]:
    """What this machine gives to the simplest of programs, measured: the two sides of a roofline.

    Each is the first quartile of its times, so that other programs do not lower the limit.

    Returns:
        ``gflops``: floating-point operations of a float32 product of two 2048 x 2048 matrices (two
        per multiply-add), in 10^9 per second. ``gb_per_s``: bytes read and written by copying
        256 MB, in 10^9 per second.
    """
    a, b = torch.randn(2, 2048, 2048, device=device)
    source = torch.zeros(64 * 2**20, device=device)
    target = torch.empty_like(source)
    calls = {"product": lambda: torch.mm(a, b), "copy": lambda: target.copy_(source)}
    times = measure(calls, repeats=10)
    return {
        "gflops": 2 * 2048**3 / times["product"].lower / 1e9,
        "gb_per_s": 2 * source.nbytes / times["copy"].lower / 1e9,
    }


def generator_floor(machine: Mapping[str, float], *, size: int = 224) -> dict[str, float]:
    """The least time that one cue can take here, if only input and output pass through memory.

    ``machine`` is what :func:`limits` measured, ``size`` the side of the picture. In milliseconds:
    ``compute_ms`` (multiply-adds at the machine's peak), ``memory_ms`` (five planes in, two out,
    float32), and ``floor_ms``, the larger.
    """
    shapes = (1, 2, size, size), (1, 3, size, size)
    operations = 2 * models.count_macs(models.DenseGenerator(), *shapes)
    moved = 4 * (2 + 3 + 2) * size * size
    compute, memory = operations / machine["gflops"] / 1e6, moved / machine["gb_per_s"] / 1e6
    return {"compute_ms": compute, "memory_ms": memory, "floor_ms": max(compute, memory)}


def rows(*, repeats: int = 15) -> list[dict]:
    """Time the generator's forms against the paper's own, in turn, and the machine's floor.

    The paper's own is ``eager``: PyTorch, all maps stacked before every layer
    (``DenseGenerator.forward``). ``summed`` is ``models.summed``, ``torch.compile`` what PyTorch's
    compiler makes of the paper's, ``fast`` what ``fast.form`` chooses. On a GPU also
    ``fast, CUDA graph``, which launches it without Python, and ``fast, bfloat16``. PyTorch runs at
    its defaults: on a GPU its float32 convolutions are TF32.

    Returns:
        A row per device (the CPU at batch 1 and 8, a GPU at batch 1 and 64) and form, the paper's
        excepted: milliseconds per frame of both with quartiles, ``gain`` (eager over this form),
        the ``floor_ms`` of :func:`generator_floor`, how many times that this form takes, and the
        largest difference of its cue from eager's. What cannot run says what it ``needs``.
    """
    found = rows_on("cpu", batches=[1, 8], repeats=repeats)
    if torch.cuda.is_available():
        return found + rows_on("cuda", batches=[1, 64], repeats=repeats)
    return [*found, {"task": "cue", "device": "cuda", "needs": "a CUDA GPU"}]


def rows_on(
    device: str, *, batches: Sequence[int], size: int = 224, repeats: int = 15
) -> list[dict]:
    """The rows of one device; see :func:`rows`."""
    floor = generator_floor(limits(device), size=size)["floor_ms"]
    network = models.DenseGenerator().eval().to(device)
    forms = {"summed": lambda *inputs: models.summed(network, *inputs)[0]}
    forms |= {"torch.compile": compiled(network), "fast": fast.form(network)}
    found = []
    for batch in batches:
        inputs = [torch.randn(batch, n, size, size, device=device) for n in (2, 3)]
        calls = {"eager": forward(network, *inputs)}
        calls |= {name: forward(form, *inputs) for name, form in forms.items()}
        if device == "cuda":
            calls["fast, CUDA graph"] = _in_graph(calls["fast"])
            half = fast.form(copy.deepcopy(network).bfloat16())
            calls["fast, bfloat16"] = forward(half, *(x.bfloat16() for x in inputs))
        setting = {"task": "cue", "device": device, "size": size, "batch": batch}
        try:
            calls["torch.compile"]()
        except Exception as problem:  # whatever its compiler lacks, the other rows stand
            del calls["torch.compile"]
            reason = f"a torch.compile that works ({type(problem).__name__} here)"
            found.append({**setting, "form": "torch.compile", "needs": reason})
        reference, times = calls["eager"](), measure(calls, repeats=repeats)
        for form in list(calls)[1:]:
            row = {**setting, "form": form, **times["eager"].ms("eager", per=batch)}
            row |= times[form].ms("ours", per=batch)
            row |= {"gain": row["eager_ms"] / row["ours_ms"], "floor_ms": floor}
            row["times_the_floor"] = row["ours_ms"] / floor
            row["largest_difference"] = (calls[form]().float() - reference).abs().max().item()
            found.append(row | {"repeats": repeats})
    return found


def compiled(network: models.DenseGenerator) -> Callable[[Tensor, Tensor], Tensor]:
    """``network`` by PyTorch's compiler, which takes half a minute at the first call."""
    # It looks for a CUDA toolkit, and says at length if it finds one without a GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    return torch.compile(network, dynamic=False)


def _in_graph(call: Call) -> Call:
    """The call as a CUDA graph: all its launches recorded once, then replayed into one result."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # work of a first call only must not be recorded
        call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def again() -> Tensor:
        graph.replay()
        return result

    return again
