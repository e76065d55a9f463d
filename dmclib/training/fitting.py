"""A whole training: what it starts from, its epochs (:mod:`loop`), and what it leaves."""

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dmclib import data, files, i3d, machine, models, transforms, weights
from dmclib.data import loader
from dmclib.errors import CheckpointError, DatasetError
from dmclib.models import DMCNet
from dmclib.training import distributed
from dmclib.training.config import TrainConfig
from dmclib.training.distributed import ProcessGroup
from dmclib.training.loop import Loop, cast

CLASSIFIERS = {
    "resnet18": models.motion_resnet18,
    "resnet152": models.motion_resnet152,
    "i3d": i3d.InceptionI3D,
}


@dataclass(frozen=True)
class Scores:
    """A trained network's answer for every test frame, or for every test clip if it takes clips."""

    logits: Tensor  # float32 (n, classes)
    label: Tensor  # int64 (n,)
    clip: Tensor  # int64 (n,)
    epe_px: Tensor  # float32 (n,): end-point error, against flow, of what the classifier saw

    @property
    def right(self) -> Tensor:
        """Which answers are right, bool (n,)."""
        return self.logits.argmax(1) == self.label


def build_networks(config: TrainConfig, classes: int) -> DMCNet:
    """The networks that a config trains, with new weights (torch's random generator)."""
    channels = 3 if config.stream in ("residual", "rgb") else 2
    classifier = CLASSIFIERS[config.network](classes, channels=channels)
    generator = models.DenseGenerator(config.generator) if config.stream == "cue" else None
    discriminator = None
    if config.weights.adversarial:
        pooled = -(-config.size // 16)
        discriminator = models.Discriminator(config.discriminator_depth, pooled=pooled)
    clip_frames = config.segments if config.sees_clips else None
    if clip_frames is None:  # faster, but clips have a dimension too many for this format
        classifier.to(memory_format=torch.channels_last)
    parts = (classifier, generator, discriminator)
    return DMCNet(*parts, stream=config.stream, clip_frames=clip_frames)


def load_networks(config: TrainConfig) -> DMCNet:
    """The trained networks of a finished training, on the CPU and in evaluation mode."""
    networks = build_networks(config, classes=load_scores(config).logits.shape[1])
    weights.load(networks, config.folder / "weights.safetensors")
    return networks.eval()


def load_scores(config: TrainConfig) -> Scores:
    """The test scores of a finished training."""
    path = config.folder / "scores.safetensors"
    return Scores(**weights.read(path, remedy="train it with jobs.run"))


def load_log(config: TrainConfig) -> list[dict[str, float]]:
    """The log of a finished training, one row per epoch."""
    with open(config.folder / "log.csv", newline="") as handle:
        rows = csv.DictReader(handle)
        return [{name: float(value) for name, value in row.items()} for row in rows]


Report = Callable[[dict], None]


def fit(
    config: TrainConfig,
    *,
    device: str = "auto",
    on_epoch: Report = lambda row: None,
    on_step: Report = lambda progress: None,
    workers: int | None = None,
) -> Scores:
    """Train ``config``, or go on from its last checkpoint, and score the test frames.

    A finished training is not repeated: its scores are read. On a CPU, with as many threads, an
    interrupted training ends with the same weights, to the bit, as any other. Started by
    ``torchrun``, the processes share each batch; the first one keeps log, checkpoint and scores.

    Args:
        config: what to train.
        device: as for :func:`machine.choose_device`; several processes on GPUs have one each.
        on_epoch: called after each epoch with its row of the log.
        on_step: called with the progress (:class:`loop.Loop`).
        workers: processes that read prepared clips (:class:`loader.Batches`).

    Raises:
        DMCError: before anything is computed: no such device, an untrained stage to start from, a
            file that is damaged or of another network, a batch larger than the split.
        FloatingPointError: the loss is no longer a number; names epoch, step and clips.
    """
    checkpoint = config.folder / "checkpoint.safetensors"
    if config.done:
        checkpoint.unlink(missing_ok=True)
        return load_scores(config)
    with distributed.join(machine.choose_device(device)) as group:
        networks = _train(config, group, on_epoch, on_step, workers)
        if group.rank == 0:
            scores = _score(networks, batches(config, "test", group.device, workers), config)
            weights.write(vars(scores), config.folder / "scores.safetensors")
            checkpoint.unlink(missing_ok=True)
        group.wait()
    return load_scores(config)


def _train(
    config: TrainConfig, group: ProcessGroup, on_epoch: Report, on_step: Report, workers: int | None
) -> DMCNet:
    """Train all epochs that are still to do, and write log and weights."""
    checkpoint = config.folder / "checkpoint.safetensors"
    dataset = config.data.open()
    count = len(dataset.clips("train"))
    if config.clips_per_batch > count:
        raise DatasetError(
            f"a batch of {config.clips_per_batch} clips is more than the {count} that "
            f"{dataset.name} has to train on: lower clips_per_batch."
        )
    torch.manual_seed(config.seed)
    networks = build_networks(config, classes=len(dataset.classes))
    if config.initial is not None:
        take = i3d.take_kinetics if config.network == "i3d" else weights.take_imagenet
        take(networks.classifier, Path(config.initial))
    if config.start_from is not None:
        take_over(networks, config, dataset.classes)
    networks.to(group.device)
    if not config.sees_clips:
        networks.to(memory_format=torch.channels_last)
    loop = Loop(config, networks, batches(config, "train", group.device, workers), group, on_step)
    if checkpoint.exists():
        loop.restore(checkpoint)
    if group.rank != 0:
        while loop.epoch < config.epochs:
            loop.run_epoch()
        return networks
    config.write()
    validation = batches(config, "validation", group.device, workers)
    cost, saved = 0.0, -math.inf
    # Rows that a killed process wrote after its last checkpoint are left out of the curves.
    with SummaryWriter(config.folder / "tensorboard", purge_step=loop.epoch + 1) as curves:
        while loop.epoch < config.epochs:
            row = loop.run_epoch()
            scores = _score(networks, validation, config)
            row["validation_accuracy"] = scores.right.float().mean().item()
            row["validation_epe_px"] = scores.epe_px.mean().item()
            loop.log.append(row)
            # Checkpoints, three times as large as the weights, get at most a tenth of the time; an
            # epoch that is lost is repeated to the bit.
            if (start := time.monotonic()) - saved >= 10 * cost:
                loop.save(checkpoint)
                saved = time.monotonic()
                cost = saved - start
            for name, value in row.items():
                curves.add_scalar(name, value, loop.epoch)
            on_epoch(row)
    rows = [",".join(loop.log[0]), *(",".join(map(str, row.values())) for row in loop.log)]
    files.write_text(config.folder / "log.csv", "\n".join(rows) + "\n")
    weights.save(networks, config.folder / "weights.safetensors")
    return networks


def batches(
    config: TrainConfig, split: str, device: torch.device, workers: int | None
) -> loader.Batches:
    """Where the batches of a split come from."""
    # Validation, after every epoch, sees as few frames as training does, as in CoViAR.
    whole = config.data.prepared is not None and split == "test" and not config.sees_clips
    sampling = loader.Sampling(
        segments=config.data.frames_per_clip if whole else config.segments,
        size=config.size,
        seed=config.seed,
        consecutive=config.sees_clips,
        picture="rgb" if config.stream == "rgb" else "residual",
        keep_dx="keep-dx" in config.habits,
        reading=config.data.reading,
    )
    train = split == "train"
    if config.data.prepared is None:
        frames = data.load_frames(config.data, split)
        items = loader.StoredFrames(frames, sampling, train=train, device=device)
        return loader.Batches(items, device=device, workers=0)
    clips = config.data.open().clips(split)
    taught = config.weights.reconstruction or config.weights.adversarial
    if (config.stream == "flow" or taught) and any(clip.flow is None for clip in clips):
        raise DatasetError(
            f"{config.data.prepared} was prepared without optical flow, from which this "
            f"{config.stream} training learns. Prepare it with --flow."
        )
    segments = loader.Segments(clips, sampling, train=train)
    return loader.Batches(segments, device=device, workers=workers)


def take_over(networks: DMCNet, config: TrainConfig, classes: Sequence[str]) -> None:
    """Load the networks that the stage before trained; others keep their new weights.

    So does the classifier's last layer, if that stage told other classes than ``classes`` apart.
    """
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
        if name == "classifier" and parent.data.open().classes != classes:
            *_, (last, _) = child.named_children()
            own |= {k: v for k, v in child.state_dict().items() if k.startswith(f"{last}.")}
        if own:
            weights.fill(child, own, parent.folder)


@torch.inference_mode()
def _score(networks: DMCNet, split: loader.Batches, config: TrainConfig) -> Scores:
    """Score the centre crops of a split."""
    networks.eval()
    parts = []
    for sample, label, clip in split.all():
        with cast(config, sample.motion.device):
            field = networks.field(sample)
            logits = networks.logits(field).float()
        if sample.flow is not None and field.shape == sample.flow.shape:
            difference = transforms.denormalize_motion(field.float() - sample.flow)
            errors = difference.norm(dim=1).mean(dim=(1, 2))
        else:  # a picture has no end-point error
            errors = torch.full((len(field),), math.nan)
        frames = len(label) // len(logits)
        errors = errors.view(-1, frames).mean(dim=1)
        parts.append((logits, label[::frames], clip[::frames], errors))
    return Scores(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))
