"""Every stream and stage, trained alike: seeded, resumable, kept by what it follows from.

:func:`fit` trains one :class:`TrainConfig` in this process or in the team that ``torchrun``
started; :mod:`dmclib.reproduce.jobs` runs many, each in a process of its own. What happens in a
step is in :mod:`dmclib.training.loop`.
"""

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from dmclib import data, files, i3d, machine, models, transforms, weights
from dmclib.data import loader
from dmclib.errors import CheckpointError, DatasetError
from dmclib.training import distributed
from dmclib.training.config import TrainConfig
from dmclib.training.distributed import Team
from dmclib.training.loop import Loop, cast

CLASSIFIERS = {
    "resnet18": models.motion_resnet18,
    "resnet152": models.motion_resnet152,
    "i3d": i3d.InceptionI3D,
    "s3d": i3d.motion_s3d,
}


@dataclass(frozen=True)
class Scores:
    """What a trained network says of every test frame; of every test clip, if it takes clips."""

    logits: Tensor  # float32 (n, classes)
    label: Tensor  # int64 (n,)
    clip: Tensor  # int64 (n,)
    epe_px: Tensor  # float32 (n,): end-point error against flow of what it classified


class Networks(nn.Module):
    """The networks that a config trains, under one roof: one state to save, one device to move."""

    def __init__(self, config: TrainConfig, classes: int):
        super().__init__()
        self.pictures = config.stream in ("residual", "rgb")
        channels = 3 if self.pictures else 2
        self.classifier = CLASSIFIERS[config.network](classes, channels=channels)
        self.generator = models.DenseGenerator(config.generator) if config.stream == "cue" else None
        self.discriminator = None
        if config.weights.adversarial:
            self.discriminator = models.Discriminator(
                config.discriminator_depth, pooled=-(-config.size // 16)
            )
        self.stream = config.stream
        self.clip_frames = config.segments if config.sees_clips else None

    def look(self, sample: transforms.Sample) -> tuple[Tensor, Tensor | None]:
        """What the classifier is to look at, and a generator's attention where it has one."""
        if self.stream == "cue":
            return self.generator.with_attention(sample.motion, sample.residual)
        return sample.residual if self.pictures else getattr(sample, self.stream), None

    def field(self, sample: transforms.Sample) -> Tensor:
        """What the classifier is to look at, from a normalised sample."""
        return self.look(sample)[0]

    def logits(self, seen: Tensor) -> Tensor:
        """Class scores of what :meth:`field` gave: of each frame, or of each clip of frames."""
        if self.clip_frames is None:
            return self.classifier(seen.contiguous(memory_format=torch.channels_last))
        clips = seen.unflatten(0, (-1, self.clip_frames))  # (N, T, 2, H, W)
        return self.classifier(clips.transpose(1, 2).contiguous())


def fit(
    config: TrainConfig,
    *,
    device: str = "auto",
    on_epoch: Callable[[dict], None] = lambda row: None,
    on_step: Callable[[dict], None] = lambda progress: None,
    workers: int | None = None,
) -> Scores:
    """Train ``config``, or go on where its last checkpoint is, and score the test frames.

    A finished training is not repeated: its scores are read. On a CPU an interrupted training that
    goes on ends with the same weights, to the bit, as one left alone with as many threads. Started
    by ``torchrun``, the processes share each batch; the first one keeps log, checkpoint and scores.

    Args:
        config: what to train.
        device: as :func:`machine.choose_device` takes it; in a team on GPUs each process has one.
        on_epoch: called after each epoch with its row of the log.
        on_step: told where the training is (:class:`loop.Loop`).
        workers: processes that read prepared clips, as for :class:`loader.Streamed`; the result
            does not depend on it.

    Raises:
        DMCError: before anything is computed: there is no such device, the stage to start from
            has not been trained, a file is damaged or of another network, or the clips' labels or
            number do not fit.
        FloatingPointError: if the loss is no longer a number; names epoch, step and clips.
    """
    checkpoint = config.folder / "checkpoint.safetensors"
    if config.done:
        checkpoint.unlink(missing_ok=True)
        return load_scores(config)
    with distributed.join(machine.choose_device(device)) as team:
        networks = _train(config, team, on_epoch, on_step, workers)
        if team.rank == 0:
            scores = _score(networks, _batches(config, "test", team.device, workers), config)
            weights.write(vars(scores), config.folder / "scores.safetensors")
            checkpoint.unlink(missing_ok=True)
        team.wait()
    return load_scores(config)


def load_scores(config: TrainConfig) -> Scores:
    """The test scores of a finished training."""
    return Scores(
        **weights.read(config.folder / "scores.safetensors", remedy="train it with jobs.run")
    )


def load_log(config: TrainConfig) -> list[dict[str, float]]:
    """The log of a finished training, a row an epoch."""
    with open(config.folder / "log.csv", newline="") as handle:
        return [
            {name: float(value) for name, value in row.items()} for row in csv.DictReader(handle)
        ]


def load_networks(config: TrainConfig) -> Networks:
    """The trained networks of ``config`` on the CPU, ready to be asked (``eval``)."""
    networks = Networks(config, classes=load_scores(config).logits.shape[1])
    weights.load(networks, config.folder / "weights.safetensors")
    return networks.eval()


def _train(
    config: TrainConfig,
    team: Team,
    on_epoch: Callable[[dict], None],
    on_step: Callable[[dict], None],
    workers: int | None,
) -> Networks:
    """Train all epochs that are still to do, and leave log and weights behind."""
    checkpoint = config.folder / "checkpoint.safetensors"
    dataset = config.data.open()
    for split in data.SPLITS:
        _check_labels([clip.label for clip in dataset.clips(split)], dataset, split)
    clips = len(dataset.clips("train"))
    if config.clips_per_batch > clips:
        raise DatasetError(
            f"a batch of {config.clips_per_batch} clips is more than the {clips} that "
            f"{dataset.name} has to train on: lower clips_per_batch."
        )
    torch.manual_seed(config.seed)
    networks = Networks(config, classes=len(dataset.classes))
    if config.initial is not None:
        take = i3d.take_kinetics if config.network == "i3d" else weights.take_imagenet
        take(networks.classifier, Path(config.initial))
    if config.start_from is not None:
        _take_over(networks, config)
    networks.to(team.device)
    if not config.sees_clips:  # of five dimensions, which that format does not have
        networks.to(memory_format=torch.channels_last)
    train = _batches(config, "train", team.device, workers)
    loop = Loop(config, networks, train, team, on_step)
    if checkpoint.exists():
        loop.restore(checkpoint)
    if team.rank == 0:
        config.write()
        validation = _batches(config, "validation", team.device, workers)
        cost, saved = 0.0, -math.inf
        # Rows that a killed process wrote after its last checkpoint are left out of the curves.
        with SummaryWriter(config.folder / "tensorboard", purge_step=loop.epoch + 1) as curves:
            while loop.epoch < config.epochs:
                row = loop.run_epoch()
                row["validation_accuracy"] = _accuracy(networks, validation, config)
                loop.log.append(row)
                # A tenth of the time at most goes to checkpoints, which hold three times the
                # weights; an epoch that is lost is repeated to the bit.
                if (start := time.monotonic()) - saved >= 10 * cost:
                    loop.save(checkpoint)
                    saved = time.monotonic()
                    cost = saved - start
                for name, value in row.items():
                    curves.add_scalar(name, value, loop.epoch)
                on_epoch(row)
        _write_log(config, loop.log)
        weights.save(networks, config.folder / "weights.safetensors")
    else:
        while loop.epoch < config.epochs:
            loop.run_epoch()
    return networks


def _check_labels(labels: Sequence[int], dataset: data.Dataset, split: str) -> None:
    """Refuse labels that no class has, and a class without a clip to train on."""
    classes = len(dataset.classes)
    wrong = sorted({label for label in labels if not 0 <= label < classes})
    if wrong:
        raise DatasetError(
            f"{dataset.name}: {split} clips have the label {wrong[0]}, and the {classes} classes "
            f"are 0 to {classes - 1}."
        )
    empty = sorted(set(range(classes)) - set(labels))
    if empty and split == "train":
        names = ", ".join(dataset.classes[label] for label in empty)
        raise DatasetError(f"{dataset.name} has no clip to train on of {names}.")


def _batches(
    config: TrainConfig, split: str, device: torch.device, workers: int | None
) -> loader.Batches:
    """Where the batches of a split come from."""
    how = {
        "size": config.size,
        "seed": config.seed,
        "keep_dx": "keep-dx" in config.habits,
        "consecutive": config.sees_clips,
        "picture": "rgb" if config.stream == "rgb" else "residual",
    }
    if config.data.prepared is None:
        frames = data.load_frames(config.data, split)
        return loader.InMemory(frames, segments=config.segments, device=device, **how)
    clips = config.data.open().clips(split)
    taught = config.weights.reconstruction or config.weights.adversarial
    if (config.stream == "flow" or taught) and any(clip.flow is None for clip in clips):
        raise DatasetError(
            f"{config.data.prepared} was prepared without optical flow, and the {config.stream} "
            "training asked for learns from it. Prepare it with --flow."
        )
    # Validation, after every epoch, looks at as few frames as training does (so does CoViAR's).
    whole = split == "test" and not config.sees_clips
    count = config.data.frames_per_clip if whole else config.segments
    how["reading"] = config.data.reading
    segments = loader.Segments(clips, segments=count, train=split == "train", **how)
    return loader.Streamed(segments, device=device, workers=workers)


def _take_over(networks: Networks, config: TrainConfig) -> None:
    """Start from the stage before: each network that it trained, the rest stays as it was made."""
    parent = config.start_from
    file = parent.folder / "weights.safetensors"
    if not file.exists():
        raise CheckpointError(
            f"the {config.stream} stage starts from a {parent.stream} stage that has not been "
            f"trained ({file} is not there). Train it first: "
            f"python -m dmclib.reproduce.jobs {parent.write()}"
        )
    state = weights.read(file, remedy="train that stage again")
    for name, child in networks.named_children():
        own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        if own:
            weights.fill(child, own, parent.folder)


@torch.inference_mode()
def _ask(networks: Networks, batches: loader.Batches, config: TrainConfig):
    """Batch by batch: logits of every frame's centre crop, label, clip, and the field's error.

    Of a network that takes clips, one of each a clip.
    """
    networks.eval()
    for sample, label, clip in batches.all():
        with cast(config, sample.motion.device):
            seen = networks.field(sample)
            logits = networks.logits(seen).float()
        if sample.flow is not None and seen.shape == sample.flow.shape:
            gap = transforms.denormalize_motion(seen.float() - sample.flow)
            errors = gap.norm(dim=1).mean(dim=(1, 2))
        else:  # a picture has no end-point error
            errors = torch.full((len(seen),), math.nan)
        frames = len(label) // len(logits)
        yield logits, label[::frames], clip[::frames], errors.view(-1, frames).mean(dim=1)


def _accuracy(networks: Networks, batches: loader.Batches, config: TrainConfig) -> float:
    answers = _ask(networks, batches, config)
    right = [logits.argmax(1) == label for logits, label, *_ in answers]
    return torch.cat(right).cpu().float().mean().item()


def _score(networks: Networks, batches: loader.Batches, config: TrainConfig) -> Scores:
    parts = zip(*_ask(networks, batches, config), strict=True)
    return Scores(*(torch.cat(part).cpu() for part in parts))


def _write_log(config: TrainConfig, log: list[dict]) -> None:
    with (
        files.whole(config.folder / "log.csv") as partial,
        open(partial, "w", newline="") as handle,
    ):
        writer = csv.DictWriter(handle, fieldnames=list(log[0]))
        writer.writeheader()
        writer.writerows(log)
