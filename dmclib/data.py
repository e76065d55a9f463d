"""Data sets with one interface, and which frames a clip contributes.

A data set names its ``classes``, lists the :class:`Clip`s of a split (``train``, ``validation``,
``test``), and gives the optical flow that teaches the generator: exact for puppets, computed for
real clips. :func:`load_frames` turns a split into arrays, once; what it made is kept under
:data:`dmclib.paths.CACHE`, a file a clip, and taken up again after an interruption.
"""

import fcntl
import hashlib
import multiprocessing.connection
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from dmclib import codec, corpora, files, flow, flowstore, lists, manifest, paths, puppets
from dmclib.corpora import Corpus, Video
from dmclib.errors import DatasetError
from dmclib.lists import SPLITS
from dmclib.transforms import Sample, resize

GOP = 12  # frames from one I-frame to the next (paper, 3.1)
Reading = Literal["plain", "accumulated", "subpixel"]  # see DataConfig
READINGS = {"plain": {}, "accumulated": {"accumulate": True}, "subpixel": {"subpixel": True}}
# The modules that clips and their flow follow from; in the name of everything made from them.
MADE_BY = ("codec", "flow", "gops", "puppets", "vectors", "video")


@dataclass(frozen=True)
class Clip:
    """One labelled video."""

    name: str  # unique within its data set
    label: int  # index into the data set's classes
    split: str
    source: Path  # the publishers' file; for puppets and prepared clips the clip itself
    path: Path  # the MPEG-4 Part 2 clip to read; made by ``make`` where it is missing
    flow: Path | None = None  # prepared flow (``flowstore``), where there is some


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


class _Listed:
    """Videos in splits: by the publishers' lists, or by chance where there are none."""

    classes: tuple[str, ...]

    def __init__(
        self, found: dict[str, Clip], listed: dict[int, dict], number: int, seed: int, place: Path
    ):
        known = tuple(listed) or (1,)
        if number not in known:
            raise DatasetError(f"{place} has no split {number}; there are {known}.")
        dealt = lists.deal(sorted(found), listed.get(number), seed)
        self._clips = {
            split: [replace(found[name], split=split) for name in sorted(dealt[split])]
            for split in SPLITS
        }
        # Where the lists leave one part out at a time, so that every clip is tested once, a class
        # may be missing from such a part.
        tested = sorted(name for parts in listed.values() for name in parts["test"])
        for split in SPLITS[:2] if tested == sorted(found) else SPLITS:
            there = {clip.label for clip in self._clips[split]}
            absent = [name for label, name in enumerate(self.classes) if label not in there]
            if absent:
                raise DatasetError(
                    f"{place} gives no {split} clip of {', '.join(absent)}: it holds too few, "
                    "or the official lists name none of them. Add videos, or take the class away."
                )

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split, by name."""
        _split_number(split)
        return self._clips[split]


class Videos(_Listed):
    """A corpus in its publishers' files; flow is TV-L1.

    Clips are re-encoded to 340x256, GOP 12, quantizer 1 (paper, 4.2) when they are first needed,
    in their own shape if the corpus says so. That is for small folders; a whole corpus is prepared
    first (:class:`Prepared`).

    Args:
        corpus: what is there.
        split_number: which of its lists to follow.
        split_seed: of the deal by chance, where it has no lists (:func:`lists.deal`).
    """

    def __init__(self, corpus: Corpus, *, split_number: int = 1, split_seed: int = 0):
        self.name, self.classes, self._letterbox = corpus.name, corpus.classes, corpus.letterbox
        found = {video.name: _to_make(video, corpus.letterbox) for video in corpus.videos}
        super().__init__(found, corpus.lists, split_number, split_seed, corpus.root)

    def make(self, clip: Clip) -> None:
        """Re-encode the source if that has not been done."""
        if not clip.path.exists():
            codec.transcode(clip.source, clip.path, gop=GOP, letterbox=self._letterbox)

    def flow(self, clip: Clip, index: int, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """TV-L1 flow from ``previous`` to ``current``, float32 (2, H, W), px."""
        return flow.estimate(previous, current, method="tvl1")

    def key(self) -> dict:
        """What the flow follows from; the clips' own names hold their content."""
        return {"name": self.name, "code": files.code_digest(*MADE_BY)}


class Prepared(_Listed):
    """A folder that ``dmc prepare`` made: clips, flow and lists are those of its manifest."""

    def __init__(self, folder: str | Path, *, split_number: int = 1, split_seed: int = 0):
        self.folder = Path(folder)
        made = manifest.read(self.folder)
        self.name, self.classes = made.dataset, made.classes
        found = {}
        for name, entry in made.entries.items():
            path = self.folder / entry.clip
            field = None if entry.flow is None else self.folder / entry.flow
            found[name] = Clip(name, entry.label, "", path, path, field)
        super().__init__(found, made.lists, split_number, split_seed, self.folder)

    def make(self, clip: Clip) -> None:
        """Nothing is made here; say so if the clip is gone."""
        if not clip.path.exists():
            raise DatasetError(f"{clip.path} is not there any more; run dmc prepare again.")

    def flow(self, clip: Clip, index: int, previous=None, current=None) -> np.ndarray:
        """The prepared flow into frame ``index``, float32 (2, H, W), px. Pictures are not read."""
        if clip.flow is None:
            raise DatasetError(f"{self.folder} has no flow; run dmc prepare with --flow tvl1.")
        return flowstore.read(clip.flow, [index])[0]

    def key(self) -> dict:
        """What clips and flow follow from."""
        return {"name": self.name, "manifest": manifest.sha256(self.folder / manifest.FILE)}


@dataclass(frozen=True)
class DataConfig:
    """Which data set, which of its frames, and how read: all plain values, to travel as JSON.

    A ``reading`` is of vectors and residual together. "plain": against the frame before, in whole
    pixels, as every released DMC run has them. "accumulated": traced back to the GOP's I-frame, as
    the paper's text (3.1) and CoViAR have them; that is up to eleven frames' motion, of which
    networks still see no more than -20 to 20 px (``transforms.normalize``). "subpixel": plain, but
    the vectors' half pixels are kept. Flow is into the frame from the one before in all three.
    """

    folder: str | None = None  # of the publishers' videos, read as ``corpus`` says
    corpus: str = "folder"  # a word of corpora.ADAPTERS
    prepared: str | None = None  # made by ``dmc prepare``; neither of the two is PuppetActions
    split_number: int = 1  # of the official lists
    clips_per_class: tuple[int, int, int] = (20, 4, 12)  # of PuppetActions
    frames_per_clip: int = 6  # that are stored of a clip, and that a test looks at
    height: int = 128  # stored frames are scaled to this; those of prepared clips are as they are
    seed: int = 0  # of the clips, not of the training
    reading: Reading = "plain"  # how vectors and residual are read

    def __post_init__(self):
        if min(*self.clips_per_class, self.frames_per_clip, self.height) < 1:
            raise DatasetError(
                f"{self.clips_per_class} clips a class, {self.frames_per_clip} frames a clip and "
                f"{self.height} px: each must be at least 1."
            )
        if self.folder and self.prepared:
            raise DatasetError("give a folder of videos or a prepared folder, not both.")
        how_to_read(self.reading)

    def open(self) -> Dataset:
        """The data set itself."""
        how = {"split_number": self.split_number, "split_seed": self.seed}
        if self.prepared is not None:
            return Prepared(self.prepared, **how)
        if self.folder is not None:
            return Videos(corpora.open_corpus(self.corpus, self.folder), **how)
        return PuppetActions(tuple(self.clips_per_class), self.seed)

    @property
    def scaled_to(self) -> int | None:
        """Height that frames are scaled to before cropping, px; None: they are as in the clip."""
        return None if self.prepared is not None else self.height

    def content(self) -> str:
        """Letters that change when the videos do, or what was prepared from them."""
        if self.prepared is not None:
            manifest.read(self.prepared)  # says what is wrong where it is none
            return manifest.sha256(Path(self.prepared) / manifest.FILE)
        return files.folder_digest(self.folder) if self.folder is not None else ""


@dataclass(frozen=True)
class Frames:
    """The P-frames that a split contributes, n in all, and what they belong to."""

    motion: Tensor  # float16 (n, 2, h, w), px per frame; accumulated, px since the I-frame
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


def how_to_read(reading: Reading) -> dict[str, bool]:
    """The settings of :func:`codec.read_at` and :func:`codec.read_frames` that a reading means."""
    if reading not in READINGS:
        raise DatasetError(f"there is no reading {reading!r}; there are {', '.join(READINGS)}.")
    return READINGS[reading]


def segment_centers(frames: int, segments: int) -> list[int]:
    """The middle frame of each of ``segments`` equal parts of a clip, moved off key frames.

    A key frame has no motion. Where one would be taken, the last P-frame before it is, as CoViAR
    does; instead of frame 0, frame 1.
    """
    if frames < 2:
        raise DatasetError(f"a clip of {frames} frames has no P-frame to look at.")
    return [off_key_frame(int((part + 0.5) * frames / segments)) for part in range(segments)]


def off_key_frame(number: int) -> int:
    """The number itself, or for a key frame that of the P-frame before it (1 for frame 0)."""
    return max(1, number - 1) if number % GOP == 0 else number


def load_frames(
    config: DataConfig, split: str, *, first: int | None = None, workers: int | None = None
) -> Frames:
    """Decode the frames that ``split`` contributes, or take them from the cache.

    Clips are made, decoded and given their flow in ``workers`` processes (all cores by default),
    with a progress bar. What is done stays done when this is interrupted. With ``first``, only so
    many clips are taken: the frames of a whole corpus fit into no memory.

    Raises:
        VideoError: if a clip cannot be read; the message names it.
        DatasetError: if the folder or its lists do not fit.
    """
    dataset = config.open()
    key = dataset.key() | {"frames": config.frames_per_clip, "height": config.height}
    key["reading"] = config.reading
    key["how"] = files.code_digest("data", "transforms")
    folder = paths.CACHE / "frames" / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    clips = dataset.clips(split)[:first]
    stored = {clip: folder / f"{clip.path.stem}-{clip.label}.safetensors" for clip in clips}
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
    decoded = codec.read_at(clip.path, before + indices, **how_to_read(config.reading))
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
    if config.prepared is None and height != config.height:
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


def _to_make(video: Video, letterbox: bool) -> Clip:
    """A clip in the cache, named by what the video holds and by how and what code makes it."""
    try:
        content = manifest.sha256(video.source)[:16]
    except OSError as problem:
        raise DatasetError(
            f"{video.source} cannot be read ({problem}); mend or remove it."
        ) from None
    name = f"{content}-{files.code_digest(*MADE_BY)}" + ("-letterbox" if letterbox else "")
    path = paths.CACHE / "clips" / f"{name}.mp4"
    return Clip(video.name, video.label, "", video.source, path)


def _split_number(split: str) -> int:
    if split not in SPLITS:
        raise DatasetError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}.")
    return SPLITS.index(split)
