"""Data sets with one interface, and which frames a clip contributes.

A data set names its ``classes``, lists the :class:`Clip`s of a split (``train``, ``validation``,
``test``), and gives the optical flow that teaches the generator: exact for puppets, TV-L1 for real
clips. :func:`load_frames` turns a split into arrays, once; what it made is kept under
:data:`dmclib.paths.CACHE`, a file a clip, and taken up again after an interruption.
"""

import fcntl
import hashlib
import multiprocessing.connection
import os
import re
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from dmclib import codec, files, flow, paths, puppets
from dmclib.errors import DatasetError
from dmclib.transforms import Sample, resize

SPLITS = ("train", "validation", "test")
GOP = 12  # frames from one I-frame to the next (paper, 3.1)
VIDEO_SUFFIXES = (".avi", ".mp4", ".m4v", ".mkv")
# The modules that clips and their flow follow from; in the name of everything made from them.
MADE_BY = ("codec", "flow", "gops", "puppets", "vectors", "video")


@dataclass(frozen=True)
class Clip:
    """One labelled video."""

    name: str  # unique within its data set
    label: int  # index into the data set's classes
    split: str
    source: Path  # the publisher's file; for puppets the clip itself
    path: Path  # the MPEG-4 Part 2 clip to read; made by ``make`` where it is missing


class Dataset(Protocol):
    """What training and notebooks need from a data set."""

    name: str
    classes: tuple[str, ...]

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split, in a fixed order."""

    def make(self, clip: Clip) -> None:
        """Write ``clip.path`` if it is not there."""

    def flow(self, clip: Clip, index: int, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """Flow into frame ``index``: float32 (2, H, W), px; the frames are RGB uint8 (H, W, 3)."""

    def key(self) -> dict:
        """What the data set's clips and flow follow from, for naming what is made from them."""


class PuppetActions:
    """Rendered puppets doing ten actions, encoded for real; flow is the renderer's own.

    Train, validation and test differ in textures and motion parameters (:data:`puppets.LOOKS`).

    Args:
        clips_per_class: how many clips of each action for train, validation, test.
        seed: another seed gives another data set.
    """

    name = "PuppetActions"
    classes = puppets.ACTIONS

    def __init__(self, clips_per_class: tuple[int, int, int] = (20, 4, 12), seed: int = 0):
        self.clips_per_class, self.seed = clips_per_class, seed
        self._folder = paths.CACHE / "puppets" / files.code_digest(*MADE_BY)

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split, actions taking turns."""
        count = self.clips_per_class[_split_number(split)]
        made = []
        for number in range(count):
            for label, action in enumerate(self.classes):
                name = f"{split}_{action}_{self.seed}_{number:03d}"
                path = self._folder / f"{name}.mp4"
                made.append(Clip(name, label, split, path, path))
        return made

    def recipe(self, clip: Clip) -> puppets.Recipe:
        """All that the clip follows from."""
        number = int(clip.name.rsplit("_", 1)[1])
        return puppets.Recipe(self.classes[clip.label], clip.split, self.seed * 100_000 + number)

    def make(self, clip: Clip) -> None:
        """Render and encode the clip if it is not there."""
        if not clip.path.exists():
            puppet = puppets.Puppet(self.recipe(clip))
            codec.encode(puppet.frames(), clip.path, fps=puppets.FPS, gop=GOP)

    def flow(self, clip: Clip, index: int, previous=None, current=None) -> np.ndarray:
        """The exact motion into frame ``index``, float32 (2, H, W), px. Pictures are not read."""
        return puppets.Puppet(self.recipe(clip)).motion(index)

    def key(self) -> dict:
        """What the clips follow from."""
        return {"name": self.name, "seed": self.seed, "code": files.code_digest(*MADE_BY)}


class VideoFolder:
    """Any ``<root>/<class>/*.{avi,mp4,m4v,mkv}``; flow is TV-L1.

    Clips are re-encoded to 340x256, GOP 12, quantizer 1 (paper, 4.2) when they are first needed. A
    ``ucfTrainTestlist`` folder beside ``root`` gives the official train and test lists, of which
    the clips that are there are taken. Elsewhere, ``split_seed`` deals each class's groups into 3
    parts train to 1 part test. Validation is always cut from train: every sixth group, or the last
    where there are fewer. A group is UCF-101's ``_gNN_`` or else the file itself, so that no scene
    is on both sides.
    """

    name = "VideoFolder"

    def __init__(self, root: str | Path, *, split_number: int = 1, split_seed: int = 0):
        self.root = Path(root)
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is not a folder; give one that holds <class>/<video>.")
        found = {
            folder.name: sorted(
                file
                for file in folder.iterdir()
                # macOS leaves "._name.mp4" beside copied videos, which are none.
                if file.suffix.lower() in VIDEO_SUFFIXES and not file.name.startswith(".")
            )
            for folder in sorted(self.root.iterdir())
            if folder.is_dir()
        }
        found = {name: videos for name, videos in found.items() if videos}
        if len(found) < 2:
            raise DatasetError(
                f"{self.root} holds {len(found)} folders with videos, and recognition needs two "
                f"classes or more; expected <root>/<class>/<video> ({', '.join(VIDEO_SUFFIXES)})."
            )
        self.classes = tuple(found)
        listed = _official_lists(self.root, split_number)
        self._clips: dict[str, list[Clip]] = {split: [] for split in SPLITS}
        for label, (class_name, videos) in enumerate(found.items()):
            train_groups = {}
            groups = sorted({_group(file) for file in videos})
            order = np.random.default_rng([split_seed, label]).permutation(len(groups))
            for file in videos:
                if listed is None:
                    part = "test" if order[groups.index(_group(file))] % 4 == 0 else "train"
                else:
                    part = listed.get(f"{class_name}/{file.name}")
                if part == "train":
                    train_groups.setdefault(_group(file), []).append(file)
                elif part == "test":
                    self._add("test", label, file)
            held_out = sorted(train_groups)[min(5, len(train_groups) - 1) :: 6]
            for group in sorted(train_groups):
                part = "validation" if group in held_out and len(train_groups) > 1 else "train"
                for file in train_groups[group]:
                    self._add(part, label, file)
        for split in SPLITS:
            there = {clip.label for clip in self._clips[split]}
            absent = [name for label, name in enumerate(self.classes) if label not in there]
            if absent:
                raise DatasetError(
                    f"{self.root} gives no {split} clip of {', '.join(absent)}: it holds too few, "
                    "or the official lists beside it name none of them. Add videos, or take the "
                    "class away."
                )

    def _add(self, split: str, label: int, source: Path) -> None:
        try:
            with open(source, "rb") as handle:
                content = hashlib.file_digest(handle, "sha256").hexdigest()[:16]
        except OSError as problem:
            raise DatasetError(f"{source} cannot be read ({problem}); mend or remove it.") from None
        path = paths.CACHE / "clips" / f"{content}-{files.code_digest(*MADE_BY)}.mp4"
        name = f"{self.classes[label]}/{source.name}"
        self._clips[split].append(Clip(name, label, split, source, path))

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split, by class and name."""
        _split_number(split)
        return self._clips[split]

    def make(self, clip: Clip) -> None:
        """Re-encode the source if that has not been done."""
        if not clip.path.exists():
            codec.transcode(clip.source, clip.path, gop=GOP)

    def flow(self, clip: Clip, index: int, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """TV-L1 flow from ``previous`` to ``current``, float32 (2, H, W), px."""
        return flow.estimate(previous, current, method="tvl1")

    def key(self) -> dict:
        """What the flow follows from; the clips' own names hold their content."""
        return {"name": self.name, "code": files.code_digest(*MADE_BY)}


@dataclass(frozen=True)
class DataConfig:
    """Which data set, and which of its frames: all plain values, so that it travels as JSON."""

    folder: str | None = None  # None is PuppetActions; else a VideoFolder
    clips_per_class: tuple[int, int, int] = (20, 4, 12)  # of PuppetActions
    frames_per_clip: int = 6
    height: int = 128  # stored frames are scaled to this
    seed: int = 0  # of the clips, not of the training

    def __post_init__(self):
        if min(*self.clips_per_class, self.frames_per_clip, self.height) < 1:
            raise DatasetError(
                f"{self.clips_per_class} clips a class, {self.frames_per_clip} frames a clip and "
                f"{self.height} px: each must be at least 1."
            )

    def open(self) -> Dataset:
        """The data set itself."""
        if self.folder is None:
            return PuppetActions(tuple(self.clips_per_class), self.seed)
        return VideoFolder(self.folder, split_seed=self.seed)


@dataclass(frozen=True)
class Frames:
    """The P-frames that a split contributes, n in all, and what they belong to."""

    motion: Tensor  # float16 (n, 2, h, w), px per frame
    residual: Tensor  # int8 (n, 3, h, w), RGB, clipped to -128..127 as the released code does
    flow: Tensor  # float16 (n, 2, h, w), px per frame
    rgb: Tensor  # uint8 (n, 3, h, w)
    label: Tensor  # int64 (n,)
    clip: Tensor  # int64 (n,), index into ``names``
    names: tuple[str, ...]

    def sample(self, rows: Tensor, *, picture: Literal["residual", "rgb"] = "residual") -> Sample:
        """The frames of ``rows`` in float32, for transforms and networks.

        With ``picture="rgb"`` the decoded frame, less 128, takes the residual's place: the two are
        cropped, flipped and normalised alike.
        """
        shown = (
            self.residual[rows].float() if picture == "residual" else self.rgb[rows].float() - 128
        )
        return Sample(self.motion[rows].float(), shown, self.flow[rows].float())


def segment_centers(frames: int, segments: int) -> list[int]:
    """The middle frame of each of ``segments`` equal parts of a clip, moved off key frames.

    A key frame has no motion. Where one would be taken, the last P-frame before it is, as CoViAR
    does; instead of frame 0, frame 1.
    """
    if frames < 2:
        raise DatasetError(f"a clip of {frames} frames has no P-frame to look at.")
    centers = [int((part + 0.5) * frames / segments) for part in range(segments)]
    return [max(1, c - 1) if c % GOP == 0 else c for c in centers]


def load_frames(config: DataConfig, split: str, *, workers: int | None = None) -> Frames:
    """Decode the frames that ``split`` contributes, or take them from the cache.

    Clips are made, decoded and given their flow in ``workers`` processes (all cores by default),
    with a progress bar. What is done stays done when this is interrupted.

    Raises:
        VideoError: if a clip cannot be read; the message names it.
        DatasetError: if the folder or its lists do not fit.
    """
    dataset = config.open()
    key = dataset.key() | {"frames": config.frames_per_clip, "height": config.height}
    key["how"] = files.code_digest("data", "transforms")
    folder = paths.CACHE / "frames" / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    clips = dataset.clips(split)
    stored = {clip: folder / f"{clip.path.stem}.safetensors" for clip in clips}
    if not all(file.exists() for file in stored.values()):
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


def metadata(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    """What a split's files say without being watched: features (clips, 6) and labels (clips,).

    Width, height, frames per second, frame count, bytes and bytes per frame of the published file.
    A classifier that does well on these has found how a data set was made, not what is in it.
    """
    rows, clips = [], dataset.clips(split)
    for clip in clips:
        if clip.source == clip.path:
            dataset.make(clip)
        info, size = codec.probe(clip.source), clip.source.stat().st_size
        rows.append([info.width, info.height, info.fps, info.frames, size, size / info.frames])
    return torch.tensor(rows, dtype=torch.float32), torch.tensor([clip.label for clip in clips])


def _make(
    dataset: Dataset, config: DataConfig, stored: dict[Clip, Path], workers: int, name: str
) -> None:
    """Make the files of ``stored`` that are not there."""
    folder = next(iter(stored.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two trainings that start together make them once
        missing = [clip for clip, file in stored.items() if not file.exists()]
        # spawn: a forked child would inherit FFmpeg's and torch's threads and may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(missing) or 1), context, _worker) as pool:
            jobs = [pool.submit(_extract, dataset, clip, config, stored[clip]) for clip in missing]
            try:
                for job in tqdm(jobs, desc=name, unit="clip", leave=False):
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _worker() -> None:
    """Set up a process of the pool."""
    # The pool already uses every core; OpenCV reads this when it is first imported.
    torch.set_num_threads(1)
    os.environ["OPENCV_FOR_THREADS_NUM"] = "1"

    def follow() -> None:
        # A pool does not notice that the process that wanted it was killed.
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _extract(dataset: Dataset, clip: Clip, config: DataConfig, target: Path) -> None:
    """Decode one clip's frames, add their flow, scale them and store them."""
    dataset.make(clip)
    try:
        indices = segment_centers(codec.probe(clip.path).frames, config.frames_per_clip)
    except DatasetError as problem:
        raise DatasetError(f"{clip.source}: {problem} Give a longer one or remove it.") from None
    before = [index - 1 for index in indices]
    decoded = codec.read_at(clip.path, before + indices)
    previous, current = decoded[: len(indices)], decoded[len(indices) :]
    motion = np.stack([frame.motion for frame in current])
    residual = np.stack([frame.residual for frame in current]).clip(-128, 127)
    rgb = np.stack([np.moveaxis(frame.rgb, 2, 0) for frame in current])
    fields = np.stack(
        [
            dataset.flow(clip, frame.index, last.rgb, frame.rgb)
            for last, frame in zip(previous, current, strict=True)
        ]
    )
    height, width = motion.shape[2:]
    if height != config.height:
        size = (config.height, round(width * config.height / height))
        full = Sample(*(torch.from_numpy(a).float() for a in (motion, residual, fields)))
        small = resize(full, size)
        motion, residual, fields = (t.numpy() for t in (small.motion, small.residual, small.flow))
        pictures = torch.from_numpy(rgb).float()
        rgb = F.interpolate(pictures, size, mode="bilinear", antialias=True).round().numpy()
    arrays = {
        "motion": motion.astype(np.float16),
        "residual": residual.round().astype(np.int8),
        "flow": fields.astype(np.float16),
        "rgb": rgb.astype(np.uint8),
    }
    with files.whole(target) as partial:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial)


def _split_number(split: str) -> int:
    if split not in SPLITS:
        raise DatasetError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}.")
    return SPLITS.index(split)


def _group(file: Path) -> str:
    """The scene that a video belongs to: UCF-101 cuts several clips from each."""
    match = re.search(r"_(g\d+)_", file.name)
    return match.group(1) if match else file.name


def _official_lists(root: Path, number: int) -> dict[str, str] | None:
    """``class/file`` -> train or test, from UCF-101's own lists; None where there are none."""
    folder = root.parent / "ucfTrainTestlist"
    if not folder.is_dir():
        return None
    listed = {}
    for part in ("train", "test"):
        file = folder / f"{part}list{number:02d}.txt"
        if not file.is_file():
            raise DatasetError(f"{folder} has no {file.name}; copy the official lists whole.")
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                listed[re.sub(r"\s+\d+$", "", line.strip())] = part  # train lines end in a label
    return listed
