"""Where a training's batches come from: frames in memory, or clips read when they are needed.

An item is what a network sees of one clip. Randomness has no state: the order of an epoch follows
from seed and epoch; a clip's frames, crops and mirrorings from seed, epoch and its name. So an
interrupted epoch can be repeated, and several processes can share its batches.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dmclib import codec, transforms
from dmclib.data.datasets import GOP, Clip
from dmclib.data.frames import (
    Frames,
    Reading,
    count_frames,
    off_key_frame,
    reading_options,
    segment_centers,
)
from dmclib.errors import DatasetError, DMCError, VideoError
from dmclib.flow import store
from dmclib.transforms import Sample

EVALUATION_FRAMES = 64  # that a network takes at a time
_AHEAD = 4  # clips that a worker may have ready; each is some megabytes of shared memory
_SCALES = (1, 0.875, 0.75)
_KEY_FRAME_SCALES = (*_SCALES, 0.66)  # the released code also crops I-frames more closely
Device = torch.device | str


class Batch(NamedTuple):
    """Some clips' frames, ready for a network."""

    sample: Sample  # normalised; the frames of a clip follow each other
    label: Tensor  # int64, one per clip, on the sample's device
    clip: Tensor  # int64, the clips' numbers in the split, on the CPU


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip a network sees, and how they are cropped.

    Training takes one random frame of each of ``segments`` equal parts of the clip (Temporal
    Segment Networks), with a random crop and mirroring each. Evaluation takes centre crops.
    """

    segments: int = 3  # frames per clip
    size: int = 224  # side of the crop, px
    seed: int = 0  # of frames, crops and mirrorings
    # For a classifier of clips: frames that follow each other, with one crop and mirroring.
    consecutive: bool = False
    picture: Literal["residual", "rgb"] = "residual"  # "rgb": a picture, less 128, in its place
    keep_dx: bool = False  # mirror as the released code does (transforms.flip)
    reading: Reading = "plain"  # of vectors and residual (DataConfig); stored frames have theirs

    def __post_init__(self):
        reading_options(self.reading)

    def draw(self, count: int, dice: torch.Generator, *, stored: bool) -> list[int]:
        """Numbers of random frames, out of ``count``; a consecutive run may exceed a short clip.

        Stored frames draw in a way of their own, from which older results follow.
        """
        if self.consecutive:
            starts = max(count - self.segments, 0) + 1
            if stored:
                start = int(torch.randint(starts, (1,), generator=dice))
            else:
                start = int(torch.rand(1, generator=dice).item() * starts)
            return list(range(start, start + self.segments))
        if stored:
            parts = torch.arange(count).tensor_split(self.segments)
            return [int(p[torch.randint(len(p), (1,), generator=dice)]) for p in parts]
        offsets = torch.rand(self.segments, generator=dice).tolist()
        return [int((part + offset) * count / self.segments) for part, offset in enumerate(offsets)]

    def middle(self, count: int) -> list[int]:
        """Numbers of the consecutive frames in the middle, out of ``count``."""
        start = max(count - self.segments, 0) // 2
        return list(range(start, start + self.segments))

    def cut(
        self, sample: Sample, dice: torch.Generator | None = None, scales: Sequence[float] = _SCALES
    ) -> Sample:
        """Crop frames and normalise them: at random with ``dice``, else the centre."""
        size = (self.size, self.size)
        if dice is None:
            return transforms.normalize(transforms.center_crop(sample, size))
        together = self.segments if self.consecutive else 1
        options = {"keep_dx": self.keep_dx, "together": together}
        return transforms.normalize(transforms.augment(sample, size, dice, scales, **options))


class Segments(Dataset):
    """Items straight from compressed clips, each decoded when it is asked for.

    In training, item ``epoch * len(self) + clip`` holds random frames of a clip, randomly cropped.
    Otherwise item ``clip`` holds the middle frames of its parts (:func:`segment_centers`; 25 in the
    paper), or the consecutive frames in its middle. A run longer than the clip repeats the last
    frame; for an I-frame the P-frame before is taken. With ``picture="rgb"`` the pictures are the
    I-frames (CoViAR's I-stream), which have neither motion (zero) nor flow (None).

    Args:
        clips: MPEG-4 Part 2 clips of GOP 12, of any size, and their flow where they have it.
        sampling: which frames, and how they are cropped.
        train: random frames and crops, or the test's.
    """

    def __init__(
        self, clips: Sequence[Clip], sampling: Sampling | None = None, *, train: bool = True
    ):
        self.clips, self.sampling, self.train = list(clips), sampling or Sampling(), train
        if self.sampling.reading == "dis":
            raise DatasetError(
                "DIS flow needs the frame before, which is not read from prepared clips: name a "
                "folder of videos in place of the prepared folder, or another reading."
            )
        self.labels = torch.tensor([clip.label for clip in self.clips])
        self.names = tuple(clip.name for clip in self.clips)
        self.frames_per_item = self.sampling.segments

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> Sample:
        """The normalised frames of a clip, (segments, ..., size, size), on the CPU.

        Raises:
            VideoError: a clip or its flow is missing, damaged or not as they are prepared.
            DatasetError: a clip of one frame.
        """
        epoch, index = divmod(number, len(self.clips))
        clip = self.clips[index]
        dice = seeded(self.sampling.seed, epoch, clip.name) if self.train else None
        scales = _KEY_FRAME_SCALES if self.sampling.picture == "rgb" else _SCALES
        return self.sampling.cut(self.read(clip, self.numbers(clip, dice)), dice, scales)

    def numbers(self, clip: Clip, dice: torch.Generator | None = None) -> list[int]:
        """Numbers of a clip's frames, random with ``dice``, else the test's; errors as an item."""
        count, sampling = count_frames(clip), self.sampling
        if dice is None and not sampling.consecutive:
            return segment_centers(count, sampling.segments)
        drawn = dice and sampling.draw(count, dice, stored=False)
        return [off_key_frame(min(n, count - 1)) for n in drawn or sampling.middle(count)]

    def read(self, clip: Clip, numbers: list[int]) -> Sample:
        """These frames of a clip, whole, in pixels and grey levels; errors as for an item."""
        pictures = self.sampling.picture == "rgb"
        if pictures:
            numbers = [number - number % GOP for number in numbers]
        frames = codec.read_at(clip.path, numbers, **reading_options(self.sampling.reading))
        for frame in frames:
            if frame.is_key != pictures:
                raise VideoError(
                    f"{clip.path}: key frames are not {GOP} frames apart (see frame "
                    f"{frame.index}). Prepare the clip again."
                )
            if frame.rgb.shape != frames[0].rgb.shape:
                raise VideoError(
                    f"{clip.path}: the picture size changes between frames {frames[0].index} and "
                    f"{frame.index}. Transcode the clip first."
                )
        motion = torch.from_numpy(np.stack([frame.motion for frame in frames]))
        if pictures:
            rgb = np.stack([frame.rgb for frame in frames]).transpose(0, 3, 1, 2)
            return Sample(motion, torch.from_numpy(rgb).float() - 128)
        residual = np.stack([frame.residual for frame in frames]).clip(-128, 127)  # as in 8 bits
        flow = None
        if clip.flow is not None:
            flow = torch.from_numpy(store.read(clip.flow, numbers))
            if flow.shape != motion.shape:
                raise VideoError(
                    f"{clip.flow}: is {flow.shape[3]}x{flow.shape[2]} and its clip "
                    f"{motion.shape[3]}x{motion.shape[2]} pixels; prepare the clip again."
                )
        return Sample(motion, torch.from_numpy(residual).float(), flow)


class StoredFrames(Dataset):
    """Items from the frames of a split that fits into memory, numbered as those of `Segments`.

    Outside training, an item holds all stored frames of a clip, or its middle consecutive ones.

    Args:
        frames: stored frames, equally many per clip.
        sampling: which of them, and how they are cropped; "rgb" is the P-frame's own picture.
        train: random frames and crops, or the test's.
        device: where they are cropped and returned.
    """

    def __init__(
        self, frames: Frames, sampling: Sampling, *, train: bool = True, device: Device = "cpu"
    ):
        self.frames, self.sampling, self.train, self.device = frames, sampling, train, device
        # Rows of each clip, (clips, frames per clip).
        self._rows = torch.stack([(frames.clip == c).nonzero()[:, 0] for c in frames.clip.unique()])
        self.labels, self.names = frames.label[self._rows[:, 0]], frames.names
        all_frames = not train and not sampling.consecutive
        self.frames_per_item = self._rows.shape[1] if all_frames else sampling.segments

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> Sample:
        """The normalised frames of a clip on the device."""
        epoch, clip = divmod(number, len(self))
        rows, dice = self._rows[clip], None
        if self.train:
            dice = seeded(self.sampling.seed, epoch, self.names[clip])
            rows = rows[self.sampling.draw(len(rows), dice, stored=True)]
        elif self.sampling.consecutive:
            rows = rows[self.sampling.middle(len(rows))]
        return self.sampling.cut(self.read(rows), dice)

    def read(self, rows: Tensor) -> Sample:
        """These stored frames, whole, on the device."""
        return self.frames.sample(rows, picture=self.sampling.picture).to(self.device)


Items = Segments | StoredFrames


class Batches:
    """Batches of items, read by worker processes while the network is busy with earlier ones.

    Workers decode on one thread each, and are spawned: a forked one would inherit FFmpeg's and
    torch's threads and may hang. The batches do not depend on their number.

    Args:
        items: their ``train`` says which of :meth:`batches` and :meth:`all` to use.
        device: where batches are returned.
        workers: processes; by default one per core. With 0 this process reads by itself, as it
            must for stored frames.
    """

    def __init__(self, items: Items, *, device: Device = "cpu", workers: int | None = None):
        self.items, self.device = items, device
        workers = min(os.cpu_count() or 1 if workers is None else workers, len(items))
        spawned = {"multiprocessing_context": "spawn", "persistent_workers": True}
        spawned["prefetch_factor"] = _AHEAD
        self._numbers: list[int] = []  # of the items that the loader reads when next iterated
        self._loader = DataLoader(
            _Reader(items),
            # Clip by clip: workers share the work evenly, and their shared memory does not grow
            # with the batch.
            batch_size=None,
            sampler=self._numbers,
            num_workers=workers,
            generator=torch.Generator(),  # else it would draw from torch's own, as dropout does
            **spawned if workers else {},
        )

    def batches(
        self, epoch: int, clips: int, *, rank: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """Yield every clip once, at most ``clips`` at a time (:func:`epoch_batches`)."""
        seed = self.items.sampling.seed
        batches = epoch_batches(len(self.items), epoch, clips, seed, rank, processes)
        for sample, chosen in self._joined(epoch, batches):
            yield Batch(sample, self.items.labels[chosen].to(self.device), chosen)

    def all(self) -> Iterator[Batch]:
        """Yield every clip's frames, in order; label and clip are per frame."""
        count = self.items.frames_per_item
        batches = torch.arange(len(self.items)).split(max(1, EVALUATION_FRAMES // count))
        for sample, chosen in self._joined(0, batches):
            clip = chosen.repeat_interleave(count)
            yield Batch(sample, self.items.labels[clip].to(self.device), clip)

    def _joined(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[tuple[Sample, Tensor]]:
        self._numbers[:] = (epoch * len(self.items) + torch.cat(list(batches))).tolist()
        items = iter(self._loader)
        for chosen in batches:
            samples = list(islice(items, len(chosen)))
            for item in samples:
                if isinstance(item, DMCError):
                    raise type(item)(*item.args)  # a new one: ``item`` would keep this frame alive
            yield transforms.join([sample.to(self.device) for sample in samples]), chosen


def epoch_batches(
    count: int, epoch: int, clips: int, seed: int = 0, rank: int = 0, processes: int = 1
) -> list[Tensor]:
    """Which of ``count`` clips make up an epoch's batches: each once, in random order.

    Sizes, at most ``clips``, are nearly equal: batch normalisation cannot use a last batch of one
    clip. Of ``processes`` processes, ``rank`` takes every ``processes``-th clip of each batch.
    """
    order = torch.randperm(count, generator=seeded(seed, epoch))
    return [batch[rank::processes] for batch in order.tensor_split(-(-count // clips))]


class _Reader(Dataset):
    """Items, except that an error is returned: raised in a worker, it would come as a traceback."""

    def __init__(self, items: Items):
        self.items = items

    def __getitem__(self, number: int) -> Sample | DMCError:
        try:
            return self.items[number]
        except DMCError as problem:
            return problem


def seeded(*key: int | str) -> torch.Generator:
    """A random generator that follows from ``key`` alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
