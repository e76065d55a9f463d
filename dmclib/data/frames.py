"""Which frames a clip contributes, and the frames of a whole split as arrays.

:func:`load_frames` keeps one file per clip under :data:`dmclib.paths.CACHE`; after an interruption
it goes on with the clips that are missing.
"""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from dmclib import cluster, codec, files, flow, paths
from dmclib.data import corpora, manifest
from dmclib.data.datasets import GOP, Clip, Dataset, Prepared, PuppetActions, Videos, code
from dmclib.errors import DatasetError, VideoError
from dmclib.transforms import Sample, to_height

Reading = Literal["plain", "accumulated", "subpixel", "dis"]  # see DataConfig
ALONE_SECONDS = 5  # so long this process makes clips by itself: as long as workers need to start
READINGS = {
    "plain": {},
    "accumulated": {"accumulate": True},
    "subpixel": {"subpixel": True},
    "dis": {},
}


@dataclass(frozen=True)
class DataConfig:
    """Which data set, which of its frames, and how they are read: plain values, kept as JSON.

    Readings of vectors and residual: "plain", relative to the frame before, in whole pixels, as in
    every released DMC run; "accumulated", traced back to the GOP's I-frame over up to eleven frames
    (paper, 3.1; CoViAR), still clipped to -20..20 px by ``transforms.normalize``; "subpixel", plain
    with the vectors' half pixels; "dis", no vectors at all but DIS flow between the decoded frames,
    the fast flow that a practitioner would try first. Flow always leads from the frame before to
    this one.
    """

    folder: str | None = None  # of the publishers' videos, laid out as ``corpus`` says
    corpus: str = "folder"  # a word of corpora.ADAPTERS
    prepared: str | None = None  # folder of ``dmc prepare``; without both, PuppetActions
    split_number: int = 1  # of the official lists
    clips_per_class: tuple[int, int, int] = (20, 4, 12)  # of PuppetActions
    frames_per_clip: int = 6  # that are stored, and that a test sees
    height: int = 128  # px, of stored frames; frames of prepared clips are not scaled
    seed: int = 0  # of the clips, not of the training
    reading: Reading = "plain"  # of vectors and residual
    scenes: str = "photographs"  # of PuppetActions; or "noise"

    def __post_init__(self):
        if min(*self.clips_per_class, self.frames_per_clip, self.height) < 1:
            raise DatasetError(
                f"{self.clips_per_class} clips per class, {self.frames_per_clip} frames per clip "
                f"and a height of {self.height} px: each must be at least 1."
            )
        if self.folder and self.prepared:
            raise DatasetError("give a folder of videos or a prepared folder, not both.")
        reading_options(self.reading)

    def open(self) -> Dataset:
        """The data set itself."""
        split = {"split_number": self.split_number, "split_seed": self.seed}
        if self.prepared is not None:
            return Prepared(self.prepared, **split)
        if self.folder is not None:
            return Videos(corpora.open_corpus(self.corpus, self.folder), **split)
        return PuppetActions(tuple(self.clips_per_class), self.seed, self.scenes)

    @property
    def scaled_to(self) -> int | None:
        """Height to which frames are scaled before cropping, px; None: they are not scaled."""
        return None if self.prepared is not None else self.height

    def content(self) -> str:
        """Letters that change when the videos change, or what was prepared from them."""
        if self.prepared is not None:
            manifest.read(self.prepared)  # says what is wrong if there is none
            return manifest.sha256(Path(self.prepared) / manifest.FILE)
        return folder_digest(self.folder) if self.folder is not None else ""


@dataclass(frozen=True)
class Frames:
    """The n P-frames that a split contributes, with their labels and clips."""

    motion: Tensor  # float16 (n, 2, h, w), px per frame; accumulated, px since the I-frame
    residual: Tensor  # int8 (n, 3, h, w), RGB, clipped to -128..127 as the released code does
    flow: Tensor  # float16 (n, 2, h, w), px per frame
    rgb: Tensor  # uint8 (n, 3, h, w)
    label: Tensor  # int64 (n,)
    clip: Tensor  # int64 (n,), index into ``names``
    names: tuple[str, ...]

    def sample(self, rows: Tensor, *, picture: Literal["residual", "rgb"] = "residual") -> Sample:
        """The frames of ``rows`` in float32; with "rgb" the picture, less 128, as the residual."""
        levels = self.residual[rows].float() if picture == "residual" else self.rgb[rows] - 128.0
        return Sample(self.motion[rows].float(), levels, self.flow[rows].float())


def reading_options(reading: Reading) -> dict[str, bool]:
    """The options of :func:`codec.read_at` and :func:`codec.read_frames` for a reading."""
    if reading not in READINGS:
        raise DatasetError(f"there is no reading {reading!r}; there are {', '.join(READINGS)}.")
    return READINGS[reading]


def segment_centers(frames: int, segments: int) -> list[int]:
    """The middle frame of each of ``segments`` equal parts of a clip, moved off key frames."""
    if frames < 2:
        raise DatasetError(f"a clip of {frames} frames has no P-frame to look at.")
    return [off_key_frame(int((part + 0.5) * frames / segments)) for part in range(segments)]


def off_key_frame(number: int) -> int:
    """The number itself; for a key frame, which has no motion, the one before, or 1 for frame 0."""
    return max(1, number - 1) if number % GOP == 0 else number


def count_frames(clip: Clip) -> int:
    """The number of frames in a clip's file.

    Raises:
        VideoError: the file is missing or damaged.
        DatasetError: it has one frame.
    """
    count = codec.probe(clip.path).frames
    if count < 2:
        raise DatasetError(
            f"{clip.source}: a clip of {count} frames has no P-frame to look at. Give a longer one "
            "or remove it."
        )
    return count


def folder_digest(folder: str | Path) -> str:
    """Sixteen letters that follow from the names, sizes and times of videos and split lists."""
    root = Path(folder)
    paths_in = [*root.rglob("*"), *root.parent.glob("ucfTrainTestlist/*")]
    seen = sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths_in if p.is_file())
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def load_frames(
    config: DataConfig, split: str, *, first: int | None = None, workers: int | None = None
) -> Frames:
    """Decode the frames that ``split`` contributes, or take them from the cache.

    A file of the cache that is cut short is made again.

    ``workers`` processes (by default one per core) make and decode clips and compute their flow.
    ``first`` limits the number of clips: the frames of a whole corpus fit into no memory.

    Raises:
        VideoError: if a clip cannot be read; the message names it.
        DatasetError: if the folder or its lists do not fit.
    """
    dataset = config.open()
    key = dataset.key() | {"frames": config.frames_per_clip, "height": config.height}
    key["reading"], key["code"] = config.reading, code()
    folder = paths.CACHE / "frames" / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    clips = dataset.clips(split)[:first]
    stored = {clip: folder / f"{clip.path.stem}-{clip.label}.safetensors" for clip in clips}
    if not all(map(_is_whole, stored.values())):
        _make(dataset, config, stored, workers or os.cpu_count() or 1, f"{dataset.name} {split}")
    parts = [load_file(stored[clip]) for clip in clips]
    joined = {
        name: torch.from_numpy(np.concatenate([part[name] for part in parts]))
        for name in ("motion", "residual", "flow", "rgb")
    }
    counts = torch.tensor([len(part["motion"]) for part in parts])
    labels = torch.tensor([clip.label for clip in clips])
    return Frames(
        **joined,
        label=labels.repeat_interleave(counts),
        clip=torch.arange(len(clips)).repeat_interleave(counts),
        names=tuple(clip.name for clip in clips),
    )


def _make(
    dataset: Dataset, config: DataConfig, stored: dict[Clip, Path], workers: int, name: str
) -> None:
    """Make the files of ``stored`` that are not there, or not whole."""
    folder = next(iter(stored.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    with files.held(folder / "lock"):  # two trainings that start together make them once
        missing = [(dataset, c, config, file) for c, file in stored.items() if not _is_whole(file)]
        with tqdm(total=len(missing), desc=name, unit="clip", leave=False) as bar:
            start = time.monotonic()
            while missing and (workers == 1 or time.monotonic() < start + ALONE_SECONDS):
                _extract(*missing.pop(0))
                bar.update()
            if not missing:
                return
            with cluster.workers(min(workers, len(missing))) as processes:
                for (_, clip, *_), answer in processes.each(_extract, missing):
                    if answer is cluster.LOST:
                        raise VideoError(
                            f"{clip.source}: the process that decoded it was lost: it crashed or "
                            "ran out of memory. Remove the video, or give another copy."
                        )
                    bar.update()


def _is_whole(file: Path) -> bool:
    """Whether a clip's frames are stored; a full disk or a copy that stopped may cut a file."""
    try:
        with safe_open(file, "numpy"):
            return True
    except (SafetensorError, OSError):
        return False


def _extract(dataset: Dataset, clip: Clip, config: DataConfig, target: Path) -> None:
    """Decode one clip's frames, add their flow, scale them and store them."""
    dataset.make(clip)
    indices = segment_centers(count_frames(clip), config.frames_per_clip)
    before = [index - 1 for index in indices]
    decoded = codec.read_at(clip.path, before + indices, **reading_options(config.reading))
    previous, current = decoded[: len(indices)], decoded[len(indices) :]
    if config.reading == "dis":
        both = zip(previous, current, strict=True)
        motion = np.stack([flow.estimate(old.rgb, new.rgb, method="dis") for old, new in both])
    else:
        motion = np.stack([frame.motion for frame in current])
    residual = np.stack([frame.residual for frame in current]).clip(-128, 127)
    rgb = np.stack([np.moveaxis(frame.rgb, 2, 0) for frame in current])
    pairs = zip(previous, current, strict=True)
    fields = np.stack([dataset.flow(clip, new.index, old.rgb, new.rgb) for old, new in pairs])
    full = Sample(*(torch.from_numpy(a).float() for a in (motion, residual, fields)))
    small, pictures = to_height(full, config.scaled_to), torch.from_numpy(rgb)
    size = small.motion.shape[2:]
    if size != pictures.shape[2:]:
        pictures = F.interpolate(pictures.float(), size, mode="bilinear", antialias=True).round()
    arrays = {
        "motion": small.motion.numpy().astype(np.float16),
        "residual": small.residual.numpy().round().astype(np.int8),
        "flow": small.flow.numpy().astype(np.float16),
        "rgb": pictures.numpy().astype(np.uint8),
    }
    with files.whole(target) as partial:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial)
