"""Rows of ``dmc bench flow``: the cost of a frame's flow, and how near our TV-L1 is to OpenCV's.

All methods run in turn on the same pictures of 340x256, the paper's size.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from dmclib import codec, flow, paths
from dmclib.data.puppets import Puppet, Recipe
from dmclib.errors import CheckpointError
from dmclib.flow import raft, tvl1
from dmclib.speed.timing import Timing, measure, pinned

WIDTH, HEIGHT = 340, 256
BATCH = 64  # pairs at once on a GPU


def rows(*, repeats: int = 3) -> list[dict]:
    """Measure every method's time per pair, on one core, and TV-L1's agreement over real pairs.

    Args:
        repeats: timed pairs of each method, in turn.

    Returns:
        One row per method: ``task``, ``method``, ``pair_ms`` (median) with its quartiles and
        ``times_tvl1`` (OpenCV's TV-L1 / this). One row for a GPU, and that of :func:`agreement`.
        What cannot be measured here has ``needs``.
    """
    puppet = Puppet(Recipe("walk", "test", 0, size=WIDTH, frames=2))
    previous, current = (np.ascontiguousarray(picture[:HEIGHT]) for picture in puppet.frames())
    calls, missing = {}, []
    for method in flow.METHODS:
        try:
            if method.startswith("raft"):
                raft.load(method)
            calls[f"{method}, one core"] = lambda method=method: flow.estimate(
                previous, current, method=method
            )
        except CheckpointError:
            needs = f"the weights {raft.weights_path(method).name}"
            missing.append({"task": "a pair", "method": method, "needs": needs})
    on_gpu = f"tvl1-torch, batch {BATCH} on a GPU"
    if torch.cuda.is_available():
        stills, moved = (
            torch.from_numpy(picture).cuda().float().mean(-1).repeat(BATCH, 1, 1)
            for picture in (previous, current)
        )
        calls[on_gpu] = lambda: tvl1.estimate(stills, moved)
    else:
        missing.append({"task": "a pair", "method": on_gpu, "needs": "a CUDA GPU"})
    with pinned(1):
        times = measure(calls, repeats=repeats, warmup=1)
        table = [_row(name, times, BATCH if name == on_gpu else 1) for name in times]
        return [*table, *missing, agreement()]


def _row(method: str, times: dict[str, Timing], batch: int) -> dict:
    ratio = times["tvl1, one core"].median / times[method].median * batch
    row = {"task": "a pair", "method": method} | times[method].ms("pair", per=batch)
    return row | {"times_tvl1": ratio, "repeats": times[method].repeats}


def agreement(*, pairs: int = 20) -> dict:
    """Hold ``tvl1-torch`` against OpenCV's TV-L1 over real pairs.

    The row has, of the end-point differences of all their pixels, ``median_px``, ``mean_px``,
    ``p90_px`` and ``worst_pair_px`` (the largest median of a pair).
    """
    row = {"task": "agreement", "method": "tvl1-torch against tvl1", "pairs": pairs}
    root = paths.data_root()
    if root is None:
        return row | {"needs": "the real clips (DMC_SHARED_DATA)"}
    errors = []
    for previous, current in real_pairs(root, pairs):
        fields = [flow.estimate(previous, current, method=m) for m in ("tvl1-torch", "tvl1")]
        errors.append(flow.endpoint_error(*fields))
    median, p90 = np.quantile(errors, [0.5, 0.9]).tolist()
    return row | {
        "clip": "bikes.m4v and UCF-101",
        "median_px": median,
        "mean_px": float(np.mean(errors)),
        "p90_px": p90,
        "worst_pair_px": max(float(np.median(field)) for field in errors),
    }


def real_pairs(root: Path, count: int, *, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give successive frames of real clips, uint8 ``(256, 340, 3)``: previous, current.

    Every fifth pair is of ``clips/bikes.m4v``, the others of ``ucf101-4class``; ``seed`` draws
    clips and frames.
    """
    bikes = root / "clips" / "bikes.m4v"
    people = sorted((root / "ucf101-4class").rglob("*.avi"))
    rng = np.random.default_rng(seed)
    for k in range(count):
        clip = bikes if k % 5 == 0 else people[rng.integers(len(people))]
        index = int(rng.integers(1, codec.probe(clip).frames))
        pair = np.stack(list(islice(codec.decode_rgb(clip), index - 1, index + 1)))
        planes = torch.from_numpy(pair).movedim(3, 1).float()
        planes = F.interpolate(planes, (HEIGHT, WIDTH), mode="bilinear", antialias=True)
        yield tuple(planes.round().to(torch.uint8).movedim(1, 3).contiguous().numpy())
