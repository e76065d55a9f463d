"""Where a training's batches come from: frames held in memory, or clips read as they are needed.

:class:`InMemory` deals out the frames of a small data set. :class:`Streamed` reads prepared clips
in worker processes, so that nothing but the batches under way is ever in memory; what a worker does
for one clip is :class:`Segments`. Both give the same kind of :class:`Batch` to one training loop.

Chance has no state here. An epoch's order follows from the seed and the epoch; a clip's frames,
crops and mirrorings from the seed, the epoch and the clip's name, whoever asks for them and when.
So an interrupted epoch can be repeated by itself, and processes can share its batches.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dmclib import codec, transforms
from dmclib.data.datasets import GOP, Clip
from dmclib.data.frames import Frames, Reading, how_to_read, off_key_frame, segment_centers
from dmclib.errors import DatasetError, DMCError, VideoError
from dmclib.flow import store
from dmclib.transforms import Sample

EVALUATION_FRAMES = 64  # that a network is asked about at a time
_AHEAD = 4  # clips that a worker may have ready; each is some megabytes of shared memory
_SCALES = (1, 0.875, 0.75)
_PICTURE_SCALES = (*_SCALES, 0.66)  # I-frames closer too: RELEASED_CODE.md, section 1

Picture = Literal["residual", "rgb"]


class Batch(NamedTuple):
    """Some clips' frames, ready for a network."""

    sample: Sample  # normalised; a clip's frames follow each other
    label: Tensor  # int64, one a clip, on the sample's device
    clip: Tensor  # int64, their numbers in the split, on the CPU


class Segments(Dataset):
    """TSN segments straight from compressed clips: nothing is decoded before it is asked for.

    In training, item ``epoch * len(self) + clip`` holds a random P-frame of each of ``segments``
    equal parts of the clip, each cropped and mirrored by chance. It follows from the seed, the
    epoch and the clip's name alone, whoever asks for it and when. Otherwise, item ``clip`` holds
    the middle frame of each part (:func:`segment_centers`; 25 in the paper), centre crop.

    Args:
        clips: MPEG-4 Part 2 clips of GOP 12, of any size, and their flow where they have it.
        segments: frames a clip.
        consecutive: the frames follow each other, for a classifier of whole clips: in training from
            a random one on, else from the middle of the clip. They share one crop and mirroring;
            the last frame is repeated where a clip is too short, and in an I-frame's place stands
            the P-frame before it.
        size: side of the crop, px.
        train: random frames and crops, or the test's.
        seed: of the frames, crops and mirrorings.
        keep_dx: mirror as the released code does (:func:`transforms.flip`).
        picture: "residual", or "rgb": the picture of the GOP's I-frame, less 128, in the residual's
            place (CoViAR's I-stream). An I-frame has neither motion nor flow: the one is zero then,
            the other None.
        reading: of vectors and residual (:class:`DataConfig`).
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        segments: int = 3,
        size: int = 224,
        train: bool = True,
        seed: int = 0,
        keep_dx: bool = False,
        consecutive: bool = False,
        picture: Picture = "residual",
        reading: Reading = "plain",
    ):
        self._how = how_to_read(reading)
        self.clips, self.segments, self.size = list(clips), segments, size
        self.train, self.seed, self.keep_dx, self.picture = train, seed, keep_dx, picture
        self.consecutive = consecutive

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> Sample:
        """The normalised frames of a clip, (segments, ..., size, size), on the CPU.

        Raises:
            VideoError: a clip or its flow is missing, damaged or not as they are prepared.
            DatasetError: a clip of one frame.
        """
        epoch, clip = divmod(number, len(self.clips))
        clip = self.clips[clip]
        dice = _dice(self.seed, epoch, clip.name)
        sample = self.read(clip, self.numbers(clip, dice))
        size = (self.size, self.size)
        if self.train:
            scales = _PICTURE_SCALES if self.picture == "rgb" else _SCALES
            together = self.segments if self.consecutive else 1
            how = {"keep_dx": self.keep_dx, "together": together}
            sample = transforms.augment(sample, size, dice, scales, **how)
        else:
            sample = transforms.center_crop(sample, size)
        return transforms.normalize(sample)

    def numbers(self, clip: Clip, dice: torch.Generator | None = None) -> list[int]:
        """The frames that a clip contributes, by number; ``dice`` is thrown in training alone.

        Raises:
            VideoError: the clip is missing or damaged.
            DatasetError: it has one frame.
        """
        count = codec.probe(clip.path).frames
        try:
            centers = segment_centers(count, self.segments)
        except DatasetError as problem:
            raise DatasetError(f"{clip.path}: {problem} Give a longer one or remove it.") from None
        if self.consecutive:
            room = max(count - self.segments, 0)
            start = room // 2
            if self.train:
                start = int(torch.rand(1, generator=dice).item() * (room + 1))
            places = range(start, start + self.segments)
            return [off_key_frame(min(place, count - 1)) for place in places]
        if not self.train:
            return centers
        places = torch.rand(self.segments, generator=dice).tolist()
        return [
            off_key_frame(int((part + place) * count / self.segments))
            for part, place in enumerate(places)
        ]

    def read(self, clip: Clip, numbers: list[int]) -> Sample:
        """These frames of a clip, whole, in pixels and grey levels; errors as for an item."""
        pictures = self.picture == "rgb"
        if pictures:
            numbers = [number - number % GOP for number in numbers]
        frames = codec.read_at(clip.path, numbers, **self._how)
        for frame in frames:
            if frame.is_key != pictures:
                raise VideoError(
                    f"{clip.path}: key frames are not {GOP} frames apart (frame {frame.index} "
                    "shows it). Prepare the clip again."
                )
        motion = np.stack([frame.motion for frame in frames])
        if pictures:
            shown = np.stack([frame.rgb for frame in frames]).transpose(0, 3, 1, 2)
            return Sample(torch.from_numpy(motion), torch.from_numpy(shown).float() - 128)
        residual = np.stack([frame.residual for frame in frames])
        residual = residual.clip(-128, 127)  # as in eight bits
        flow = None
        if clip.flow is not None:
            flow = store.read(clip.flow, numbers)
            if flow.shape != motion.shape:
                raise VideoError(
                    f"{clip.flow}: is {flow.shape[3]}x{flow.shape[2]} and its clip "
                    f"{motion.shape[3]}x{motion.shape[2]} pixels; prepare the clip again."
                )
            flow = torch.from_numpy(flow)
        return Sample(torch.from_numpy(motion), torch.from_numpy(residual).float(), flow)


class InMemory:
    """The frames of a split that fits into memory, cut and mirrored anew for every batch.

    Args:
        frames: decoded frames, equally many of each clip.
        segments, size, seed, keep_dx, consecutive: as for :class:`Segments`; of stored frames.
        picture: as for :class:`Segments`, but "rgb" is the P-frame's own picture.
        device: where batches are made and handed out.
    """

    def __init__(
        self,
        frames: Frames,
        *,
        segments: int,
        size: int,
        seed: int = 0,
        keep_dx: bool = False,
        consecutive: bool = False,
        picture: Picture = "residual",
        device: torch.device | str = "cpu",
    ):
        self.frames, self.segments, self.size = frames, segments, size
        self.consecutive = consecutive
        self.seed, self.keep_dx, self.picture, self.device = seed, keep_dx, picture, device
        # Rows of each clip, (clips, frames_per_clip): every clip contributes equally many.
        self._rows = torch.stack([(frames.clip == c).nonzero()[:, 0] for c in frames.clip.unique()])
        self.labels, self.names = frames.label[self._rows[:, 0]], frames.names

    def batches(self, epoch: int, clips: int, *, rank: int = 0, team: int = 1) -> Iterator[Batch]:
        """Deal out every clip once, at most ``clips`` at a time (:func:`deal`)."""
        for chosen in deal(len(self.labels), epoch, clips, seed=self.seed, rank=rank, team=team):
            sample = _join([self._item(epoch, clip) for clip in chosen.tolist()])
            yield Batch(sample, self.labels[chosen].to(self.device), chosen)

    def all(self) -> Iterator[Batch]:
        """Every frame's centre crop, whole clips in order; label and clip are given for each.

        Of consecutive frames, only those from the middle of each clip.
        """
        shown = self._rows
        if self.consecutive:
            start = (shown.shape[1] - self.segments) // 2
            shown = shown[:, start : start + self.segments]
        for clips in shown.split(max(1, EVALUATION_FRAMES // shown.shape[1])):
            rows = clips.flatten()
            sample = transforms.center_crop(self._take(rows), (self.size, self.size))
            label, clip = self.frames.label[rows], self.frames.clip[rows]
            yield Batch(transforms.normalize(sample), label.to(self.device), clip)

    def _item(self, epoch: int, clip: int) -> Sample:
        """Random frames of a clip, cropped and mirrored by chance."""
        dice, rows = _dice(self.seed, epoch, self.names[clip]), self._rows[clip]
        if self.consecutive:
            start = torch.randint(len(rows) - self.segments + 1, (1,), generator=dice)
            rows = rows[start : start + self.segments]
        else:
            parts = torch.tensor_split(rows, self.segments)
            rows = torch.cat([p[torch.randint(len(p), (1,), generator=dice)] for p in parts])
        sample, size = self._take(rows), (self.size, self.size)
        together = self.segments if self.consecutive else 1
        return transforms.normalize(
            transforms.augment(sample, size, dice, keep_dx=self.keep_dx, together=together)
        )

    def _take(self, rows: Tensor) -> Sample:
        return self.frames.sample(rows, picture=self.picture).to(self.device)


class Streamed:
    """Clips read by worker processes while the network is busy with those before.

    Every worker decodes on one thread and lives from the first epoch to the last. Workers are
    spawned: a forked one would inherit FFmpeg's and torch's threads and may hang. The batches do
    not depend on how many there are.

    Args:
        segments: what to read; its ``train`` says which of :meth:`batches` and :meth:`all` to use.
        device: where batches are handed out.
        workers: processes; by default one a core. With 0 this process reads by itself.
    """

    def __init__(
        self,
        segments: Segments,
        *,
        device: torch.device | str = "cpu",
        workers: int | None = None,
    ):
        self.segments, self.device = segments, device
        self.labels = torch.tensor([clip.label for clip in segments.clips])
        self.names = tuple(clip.name for clip in segments.clips)
        workers = min(os.cpu_count() or 1 if workers is None else workers, len(segments))
        spawned = {
            "multiprocessing_context": "spawn",
            "persistent_workers": True,
            "prefetch_factor": _AHEAD,
        }
        self._numbers: list[int] = []  # what the loader asks for when it is next iterated
        self._loader = DataLoader(
            _Reader(segments),
            # Clip by clip: workers share the work evenly, and the shared memory that they need does
            # not grow with the batch.
            batch_size=None,
            sampler=self._numbers,
            num_workers=workers,
            generator=torch.Generator(),  # else it would draw from torch's own, as dropout does
            **spawned if workers else {},
        )

    def batches(self, epoch: int, clips: int, *, rank: int = 0, team: int = 1) -> Iterator[Batch]:
        """Deal out every clip once, at most ``clips`` at a time (:func:`deal`)."""
        seed = self.segments.seed
        dealt = deal(len(self.labels), epoch, clips, seed=seed, rank=rank, team=team)
        for sample, chosen in self._stream(epoch, dealt):
            yield Batch(sample, self.labels[chosen].to(self.device), chosen)

    def all(self) -> Iterator[Batch]:
        """Every clip's frames, in order; label and clip are given for each frame."""
        count = self.segments.segments
        together = max(1, EVALUATION_FRAMES // count)
        for sample, chosen in self._stream(0, torch.arange(len(self.labels)).split(together)):
            label = self.labels[chosen].repeat_interleave(count).to(self.device)
            yield Batch(sample, label, chosen.repeat_interleave(count))

    def _stream(self, epoch: int, dealt: Sequence[Tensor]) -> Iterator[tuple[Sample, Tensor]]:
        self._numbers[:] = (epoch * len(self.labels) + torch.cat(list(dealt))).tolist()
        items = iter(self._loader)
        for chosen in dealt:
            samples = list(islice(items, len(chosen)))
            for item in samples:
                if isinstance(item, DMCError):
                    raise type(item)(*item.args)  # anew: ``item`` would hold on to this frame
            yield _join([sample.to(self.device) for sample in samples]), chosen


Batches = InMemory | Streamed


def deal(
    count: int, epoch: int, clips: int, *, seed: int = 0, rank: int = 0, team: int = 1
) -> list[Tensor]:
    """Which clips make up an epoch's batches: every one of ``count`` once, in an order by chance.

    There are as few batches of at most ``clips`` as can be, and they are as equal as can be: a last
    one of one clip would give batch normalisation little to go by. Of each, process ``rank`` of a
    ``team`` has every team-th clip.
    """
    order = torch.randperm(count, generator=_dice(seed, epoch))
    return [batch[rank::team] for batch in order.tensor_split(-(-count // clips))]


class _Reader(Dataset):
    """Segments, but a failure is handed over as an item.

    Raised in a worker it would come out with the worker's traceback for a message.
    """

    def __init__(self, segments: Segments):
        self.segments = segments

    def __getitem__(self, number: int) -> Sample | DMCError:
        try:
            return self.segments[number]
        except DMCError as problem:
            return problem


def _dice(*key: int | str) -> torch.Generator:
    """A generator that follows from ``key`` and from nothing else."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def _join(samples: Sequence[Sample]) -> Sample:
    fields = zip(*(vars(sample).values() for sample in samples), strict=True)
    return Sample(*(None if one[0] is None else torch.cat(one) for one in fields))
