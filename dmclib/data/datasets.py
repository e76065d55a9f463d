"""Data sets with one interface: classes, the clips of a split, and the flow that teaches.

Flow is exact for drawn actors and computed for real clips.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from dmclib import codec, files, flow, paths
from dmclib.data import lists, manifest, puppets
from dmclib.data.corpus import Corpus, Video
from dmclib.data.lists import SPLITS
from dmclib.errors import DatasetError, VideoError
from dmclib.flow import store

GOP = 12  # frames from one I-frame to the next (paper, 3.1)


def code() -> str:
    """Letters that change with the code that makes clips, flow or frames."""
    return files.code_digest("codec", "flow", "data", "transforms")


@dataclass(frozen=True)
class Clip:
    """One labelled video."""

    name: str  # unique within its data set
    label: int  # index into the data set's classes
    split: str
    source: Path  # the publishers' file; for puppets and prepared clips the clip itself
    path: Path  # the MPEG-4 Part 2 clip to read; made by ``make`` where it is missing
    flow: Path | None = None  # prepared flow (``flow.store``), where there is some


class Dataset(Protocol):
    """What training and notebooks need of a data set."""

    name: str
    classes: tuple[str, ...]

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split, in a fixed order."""

    def make(self, clip: Clip) -> None:
        """Write ``clip.path`` if it is not there."""

    def flow(self, clip: Clip, index: int, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """Flow into frame ``index``: float32 (2, H, W), px; the frames are RGB uint8 (H, W, 3)."""

    def key(self) -> dict:
        """What clips and flow follow from; whatever is made from them is named by it."""


class PuppetActions:
    """Drawn actors doing ten actions, encoded for real; flow is the renderer's own.

    Train, validation and test differ in photographs (:data:`scenes.PHOTOGRAPHS`) and in part of the
    motion (:data:`puppets.LOOKS`).

    Args:
        clips_per_class: how many clips of each action for train, validation, test.
        seed: another seed gives another data set.
        scenes: "photographs", or "noise" for textures that give a block matcher nothing to miss.

    Raises:
        DatasetError: another word for ``scenes``.
    """

    classes = puppets.ACTIONS

    def __init__(
        self,
        clips_per_class: tuple[int, int, int] = (20, 4, 12),
        seed: int = 0,
        scenes: str = "photographs",
    ):
        self.clips_per_class, self.seed, self.scenes = clips_per_class, seed, scenes
        self.name = "PuppetActions" + (" before noise" if scenes == "noise" else "")
        self._folder = paths.CACHE / "puppets" / code() / scenes
        self._recipe(self.classes[0], SPLITS[0], 0)  # refuses an unknown word before any clip

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
        return self._recipe(self.classes[clip.label], clip.split, number)

    def _recipe(self, action: str, split: str, number: int) -> puppets.Recipe:
        return puppets.Recipe(action, split, self.seed * 100_000 + number, scenes=self.scenes)

    def make(self, clip: Clip) -> None:
        """Render and encode the clip if it is not there, or not whole."""
        if not _is_whole(clip):
            puppet = puppets.Puppet(self.recipe(clip))
            codec.encode(puppet.frames(), clip.path, fps=puppets.FPS, gop=GOP)

    def flow(self, clip: Clip, index: int, previous=None, current=None) -> np.ndarray:
        """The exact motion into frame ``index``, float32 (2, H, W), px. Pictures are not read."""
        return puppets.Puppet(self.recipe(clip)).motion(index)

    def key(self) -> dict:
        """What the clips follow from."""
        return {"name": self.name, "seed": self.seed, "code": code()}


class _Listed:
    """Videos in splits: by the publishers' lists, or by chance where there are none."""

    classes: tuple[str, ...]

    def __init__(
        self, found: dict[str, Clip], listed: dict[int, dict], number: int, seed: int, place: Path
    ):
        known = tuple(listed) or (1,)
        if number not in known:
            raise DatasetError(f"{place} has no split {number}; there are {known}.")
        dealt = lists.split_by_scene(sorted(found), listed.get(number), seed)
        self._clips = {
            split: [replace(found[name], split=split) for name in sorted(dealt[split])]
            for split in SPLITS
        }
        # Where every clip is tested by one split, a class may be missing from a split's test.
        tested = sorted(name for parts in listed.values() for name in parts["test"])
        for split in SPLITS:
            there = {clip.label for clip in self._clips[split]}
            absent = [name for label, name in enumerate(self.classes) if label not in there]
            if absent and not (split == "test" and there and tested == sorted(found)):
                raise DatasetError(
                    f"{place}, split {number}, gives no {split} clip of {', '.join(absent)}: it "
                    "holds too few, or the official lists name none of them. Add videos, or remove "
                    "the class."
                )

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split, by name."""
        _split_number(split)
        return self._clips[split]


class Videos(_Listed):
    """A corpus in its publishers' files; flow is TV-L1.

    Clips are re-encoded to 340x256, GOP 12, quantizer 1 (paper, 4.2) when they are first needed,
    in their own shape if the corpus says so. That suits small folders; prepare a whole corpus first
    (:class:`Prepared`).

    Args:
        corpus: what is there.
        split_number: which of its lists to follow.
        split_seed: of the deal by chance, where it has no lists (:func:`lists.split_by_scene`).
    """

    def __init__(self, corpus: Corpus, *, split_number: int = 1, split_seed: int = 0):
        self.name, self.classes, self._letterbox = corpus.name, corpus.classes, corpus.letterbox
        found = {video.name: _to_make(video, corpus.letterbox) for video in corpus.videos}
        super().__init__(found, corpus.lists, split_number, split_seed, corpus.root)

    def make(self, clip: Clip) -> None:
        """Re-encode the source if the clip is not there, or not whole."""
        if not _is_whole(clip):
            codec.transcode(clip.source, clip.path, gop=GOP, letterbox=self._letterbox)

    def flow(self, clip: Clip, index: int, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """TV-L1 flow from ``previous`` to ``current``, float32 (2, H, W), px."""
        return flow.estimate(previous, current, method="tvl1")

    def key(self) -> dict:
        """What the flow follows from; the clips' own names hold their content."""
        return {"name": self.name, "code": code()}


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
        """Make nothing; raise a :class:`DatasetError` if the clip is gone."""
        if not clip.path.exists():
            raise DatasetError(f"{clip.path} is not there any more; run dmc prepare again.")

    def flow(self, clip: Clip, index: int, previous=None, current=None) -> np.ndarray:
        """The prepared flow into frame ``index``, float32 (2, H, W), px. Pictures are not read."""
        if clip.flow is None:
            raise DatasetError(f"{self.folder} has no flow; run dmc prepare with --flow tvl1.")
        return store.read(clip.flow, [index])[0]

    def key(self) -> dict:
        """What clips and flow follow from."""
        return {"name": self.name, "manifest": manifest.sha256(self.folder / manifest.FILE)}


def _to_make(video: Video, letterbox: bool) -> Clip:
    """A clip in the cache, named by the video's content, the code, and the letterbox."""
    try:
        content = manifest.sha256(video.source)[:16]
    except OSError as problem:
        raise DatasetError(f"{video.source} cannot be read ({problem}); remove it.") from None
    name = f"{content}-{code()}" + ("-letterbox" if letterbox else "")
    path = paths.CACHE / "clips" / f"{name}.mp4"
    return Clip(video.name, video.label, "", video.source, path)


def _is_whole(clip: Clip) -> bool:
    """Whether a clip is in the cache with its index, which an .mp4 of ours has at its end."""
    try:
        codec.probe(clip.path)
    except VideoError:
        return False
    return True


def _split_number(split: str) -> int:
    if split not in SPLITS:
        raise DatasetError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}.")
    return SPLITS.index(split)
