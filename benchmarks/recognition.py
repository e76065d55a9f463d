"""Rows of ``dmc bench recognition``: a clip's label by the test protocol, and its parts."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from dmclib import codec, data, fast, paths, recognition, training
from dmclib.recognition import FRAMES
from dmclib.speed import timing
from dmclib.speed.clips import decode_bare, drifting_texture
from dmclib.training import TrainConfig

CLASSES = 101


def rows(clip: str | Path | None = None, *, size: int = 224, repeats: int = 3) -> list[dict]:
    """Time the label of one clip by its cue: 25 frames, one centre crop each, on one core.

    The two parts are bare decoding (:func:`clips.decode_bare`) of each needed GOP up to its frame,
    and generator and ResNet-18 on 25 frames in memory, in the form that :mod:`dmclib.fast` chooses
    and "eager", as PyTorch has them by default. Weights are random; they do not change a time.

    Args:
        clip: MPEG-4 Part 2 of GOP 12. By default 300 frames at 340x256: a real UCF-101 clip
            re-encoded or, where there is none, a drawn one.
        size: side of the crop, px.
        repeats: timed runs of each, in turn.

    Returns:
        One row: ``decode_ms``, ``network_ms`` and ``whole_ms`` with quartiles; ``ratio`` of the
        whole to the sum of the two; ``eager_network_ms``, ``eager_whole_ms``.
    """
    with timing.pinned(1), _clip(clip) as path:
        config = TrainConfig(stream="cue", data=data.DataConfig(), epochs=1, size=size)
        networks = training.build_networks(config, CLASSES).eval()
        centers = data.segment_centers(codec.probe(path).frames, FRAMES)
        needed = {n for center in centers for n in range(center - center % data.GOP, center + 1)}
        sample = [torch.randn(FRAMES, n, size, size) for n in (2, 3)]
        calls = {"decode": lambda: decode_bare(path, needed)}
        for name, form in (("", fast.form(networks)), ("eager_", networks)):
            calls[f"{name}network"] = timing.forward(form, *sample)
            calls[f"{name}whole"] = partial(recognition.recognise, path, form, size=size)
        times = timing.measure(calls, repeats=repeats, warmup=1)
        row = {"task": "label of a clip by its cue", "clip": path.name, "size": size}
    row |= {"frames": FRAMES, "decoded": len(needed)}
    for name, taken in times.items():
        row |= taken.ms(name)
    row["ratio"] = row["whole_ms"] / (row["decode_ms"] + row["network_ms"])
    return [row | {"repeats": repeats}]


@contextmanager
def _clip(given: str | Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        if given is None:
            files = sorted((paths.data_root() or paths.ROOT).glob("ucf101-4class/videos/*/*.avi"))
            long = next((path for path in files if codec.probe(path).frames == 300), None)
            given = Path(folder) / f"{long.stem if long else 'drawn'}.mp4"
            if long:
                codec.transcode(long, given)
            else:
                codec.encode(drifting_texture(300), given)
        yield Path(given)
