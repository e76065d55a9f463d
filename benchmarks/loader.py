"""Rows of ``dmc bench loader``: training samples per second from prepared clips, and their cost.

A sample is what :class:`loader.Segments` gives for one clip: three P-frames at 224 px, each motion,
residual and flow, cropped, mirrored and normalised.
"""

import random
import tempfile
from collections import defaultdict
from pathlib import Path

from torch.utils.data import Dataset

from dmclib import codec, flow, paths
from dmclib.data import Clip, loader, puppets
from dmclib.flow import store
from dmclib.speed import timing
from dmclib.speed.clips import exhaust
from dmclib.transforms import Sample

CLIPS = 8  # that are read; each again and again, at other frames
PASS = 48  # samples that are timed together
BATCH = 16  # clips


def rows(*, repeats: int = 3) -> list[dict]:
    """Measure how fast training samples come, with 2, 1 and no workers, and where their time goes.

    The files have just been written, so they are in memory (a warm page cache).

    Args:
        repeats: timed passes of each row.

    Returns:
        For each part of the work a row with ``part_ms`` per sample on one core and its quartiles
        over the passes. ``transport`` brings a finished sample from one worker into a batch. The
        other parts are told apart by a profiler, whose own time is in them. Then rows of
        ``samples_per_second``, and a row of stored flow: ``read_ms`` of one random field of a
        closed file with quartiles, ``kb`` per field (1000 bytes, container included).
    """
    with tempfile.TemporaryDirectory() as folder, timing.pinned(1):
        source, clips = _prepare(Path(folder))
        segments = loader.Segments([clips[n % len(clips)] for n in range(PASS)])
        parts = {name: spent.ms("part") for name, spent in _parts(segments, repeats).items()}
        streams = {
            "transport": loader.Batches(_Ready(segments), workers=1),
            "in this process": loader.Batches(segments, workers=0),
            "1 worker": loader.Batches(segments, workers=1),
            "2 workers": loader.Batches(segments, workers=2),
        }
        passes = {
            name: lambda stream=stream: exhaust(stream.batches(0, BATCH))
            for name, stream in streams.items()
        }
        times = timing.measure(passes, repeats=repeats, warmup=1)
        field = {"task": "a stored field", "clip": source} | _stored_field(clips, 12 * repeats)
    parts["transport"] = times.pop("transport").ms("part", per=PASS)
    table = [{"task": f"a sample: {part}", "clip": source} | ms for part, ms in parts.items()]
    for name, taken in times.items():
        row = {"task": f"samples, {name}", "clip": source}
        table.append(row | taken.rate("samples_per_second", PASS))
    return [*(row | {"repeats": repeats} for row in table), field]


def _stored_field(clips: list[Clip], repeats: int) -> dict:
    counts = {clip: codec.probe(clip.flow).frames for clip in clips}
    dice = random.Random(0)

    def read() -> None:
        clip = dice.choice(clips)
        store.read(clip.flow, [dice.randint(1, counts[clip])])

    kb = sum(clip.flow.stat().st_size for clip in counts) / sum(counts.values()) / 1e3
    row = timing.measure({"read": read}, repeats=repeats)["read"].ms("read") | {"kb": kb}
    return row | {"repeats": repeats}


class _Ready(Dataset):
    """Samples that cost nothing, so that only their transport takes time."""

    def __init__(self, segments: loader.Segments):
        self.labels, self.sampling = segments.labels, segments.sampling
        self._sample = segments[0]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> Sample:
        return Sample(*(x.clone() for x in vars(self._sample).values()))


def _parts(segments: loader.Segments, repeats: int) -> dict[str, timing.Timing]:
    """Seconds per sample of each part of the work, by the profiler, over ``repeats`` passes."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        spent = timing.cumulative(lambda: exhaust(map(segments.__getitem__, range(len(segments)))))
        cumulative = defaultdict(float, {k: v / len(segments) for k, v in spent.items()})
        # Reading vectors and residual of decoded frames, which it takes from the decoder itself.
        frames = cumulative["read.read"] - cumulative["read._groups"]
        parts = {
            "decode": cumulative["container.probe"] + cumulative["read.read_at"] - frames,
            "vectors": cumulative["vectors.whole_pixel_moves"] + cumulative["vectors.motion_field"],
            "flow": cumulative["store.read"],
        }
        parts["residual"] = frames - parts["vectors"]
        whole = cumulative["loader.__getitem__"]
        parts["transform"] = whole - sum(parts.values())
        for name, value in (parts | {"whole, without transport": whole}).items():
            seconds[name].append(value)
    return {name: timing.Timing.of(values) for name, values in seconds.items()}


def _prepare(folder: Path) -> tuple[str, list[Clip]]:
    """Make clips with flow: real ones with DIS where they are at hand, else puppets with theirs."""
    root = (paths.data_root() or folder) / "ucf101-4class" / "videos"
    sources = sorted(root.glob("*/*.avi"))
    clips = []
    for number in range(CLIPS):
        path = folder / f"{number}.mp4"
        clip = Clip(path.stem, 0, "train", path, path, path.with_suffix(store.SUFFIX))
        clips.append(clip)
        if sources:
            codec.transcode(sources[number * len(sources) // CLIPS], path)
            fields = flow.estimate_clip(codec.decode_rgb(path), method="dis")
        else:
            action = puppets.ACTIONS[number % len(puppets.ACTIONS)]
            puppet = puppets.Puppet(puppets.Recipe(action, "train", number, size=256))
            codec.encode(puppet.frames(), path)
            fields = map(puppet.motion, range(1, codec.probe(path).frames))
        store.write(clip.flow, fields)
    return ("UCF-101" if sources else "puppets"), clips
