"""One loop for every stream and stage: seeded, resumable, its result kept by what it follows from.

:func:`fit` trains one :class:`TrainConfig` in this process; :mod:`dmclib.jobs` runs many, each in a
process of its own.
"""

import csv
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dmclib import checkpoints, data, files, loader, losses, models, timing, transforms
from dmclib.config import TrainConfig
from dmclib.errors import DatasetError


@dataclass(frozen=True)
class Scores:
    """What a trained network says of every test frame."""

    logits: Tensor  # float32 (n, classes)
    label: Tensor  # int64 (n,)
    clip: Tensor  # int64 (n,)
    epe_px: Tensor  # float32 (n,): end-point error against flow of the field that it classified


class Networks(nn.Module):
    """The networks that a config trains, under one roof: one state to save, one device to move."""

    def __init__(self, config: TrainConfig, classes: int):
        super().__init__()
        self.pictures = config.stream in ("residual", "rgb")
        self.classifier = models.motion_resnet18(classes, channels=3 if self.pictures else 2)
        self.generator = models.DenseGenerator(config.generator) if config.stream == "cue" else None
        self.discriminator = None
        if config.weights.adversarial:
            self.discriminator = models.Discriminator(pooled=-(-config.size // 16))
        self.stream = config.stream

    def field(self, sample: transforms.Sample) -> Tensor:
        """What the classifier is to look at, from a normalised sample."""
        if self.stream == "cue":
            return self.generator(sample.motion, sample.residual)
        return sample.residual if self.pictures else getattr(sample, self.stream)

    def logits(self, seen: Tensor) -> Tensor:
        """Class scores (N, classes) of what :meth:`field` gave."""
        return self.classifier(seen.contiguous(memory_format=torch.channels_last))


def fit(
    config: TrainConfig,
    *,
    device: str = "auto",
    on_epoch: Callable[[dict], None] = lambda row: None,
    workers: int | None = None,
) -> Scores:
    """Train ``config``, or go on where its last checkpoint is, and score the test frames.

    A finished training is not repeated: its scores are read. On a CPU an interrupted training that
    goes on ends with the same weights, to the bit, as one left alone with as many threads.

    Args:
        config: what to train.
        device: ``cpu``, ``cuda``, or ``auto``, which is a GPU where there is one.
        on_epoch: called after each epoch with its row of the log.
        workers: processes that read prepared clips, as for :class:`loader.Streamed`; the result
            does not depend on it.

    Raises:
        CheckpointError: if the stage to start from has not been trained, or a file is damaged.
        FloatingPointError: if the loss is no longer a number; names epoch and step.
    """
    checkpoint = config.folder / "checkpoint.safetensors"
    if config.done:
        checkpoint.unlink(missing_ok=True)
        return load_scores(config)
    device = torch.device(timing.choose_device(device))
    networks = _train(config, device, on_epoch, workers)
    test = _batches(config, "test", device, workers)
    scores = _score(networks, test)
    checkpoints.write(vars(scores), config.folder / "scores.safetensors")
    checkpoint.unlink()
    return scores


def load_scores(config: TrainConfig) -> Scores:
    """The test scores of a finished training."""
    return Scores(
        **checkpoints.read(config.folder / "scores.safetensors", remedy="train it with jobs.run")
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
    checkpoints.load(networks, config.folder / "weights.safetensors")
    return networks.eval()


def _train(
    config: TrainConfig, device: torch.device, on_epoch: Callable[[dict], None], workers: int | None
) -> Networks:
    """Train all epochs that are still to do, and leave log and weights behind."""
    checkpoint = config.folder / "checkpoint.safetensors"
    train = _batches(config, "train", device, workers)
    validation = _batches(config, "validation", device, workers)
    torch.manual_seed(config.seed)
    networks = Networks(config, classes=train.classes)
    if config.start_from is not None:
        _take_over(networks, config.start_from)
    networks.to(device, memory_format=torch.channels_last)
    loop = _Loop(config, networks, train, device)
    config.folder.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        loop.restore(checkpoint)
    while loop.epoch < config.epochs:
        row = loop.run_epoch()
        row["validation_accuracy"] = _accuracy(networks, validation)
        loop.log.append(row)
        loop.save(checkpoint)
        on_epoch(row)
    _write_log(config, loop.log)
    checkpoints.save(networks, config.folder / "weights.safetensors")
    return networks


def _batches(
    config: TrainConfig, split: str, device: torch.device, workers: int | None
) -> loader.Batches:
    """Where the batches of a split come from."""
    how = {"size": config.size, "picture": "rgb" if config.stream == "rgb" else "residual"}
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
    count = config.data.frames_per_clip if split == "test" else config.segments
    segments = loader.Segments(
        clips, segments=count, train=split == "train", seed=config.seed, **how
    )
    return loader.Streamed(segments, device=device, workers=workers)


def _take_over(networks: Networks, parent: TrainConfig) -> None:
    """Start from the stage before: each network that it trained, the rest stays as it was made."""
    remedy = f"train its {parent.stream} stage first"
    state = checkpoints.read(parent.folder / "weights.safetensors", remedy=remedy)
    for name, child in networks.named_children():
        own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        if own:
            checkpoints.fill(child, own, parent.folder)


class _Loop:
    """One training in progress: what :meth:`save` writes is all that it goes on from."""

    def __init__(self, config: TrainConfig, networks: Networks, train: loader.Batches, device):
        self.config, self.networks, self.train, self.device = config, networks, train, device
        self.epoch, self.log = 0, []
        self.dice = torch.Generator().manual_seed(config.seed)  # order, frames, crops, flips
        self.steps = math.ceil(train.clips / config.clips_per_batch)
        groups = _groups(networks.classifier, config.lr, config.weight_decay)
        if networks.generator is not None:
            groups += _groups(networks.generator, config.generator_lr, config.weight_decay)
        self.optimizers = [torch.optim.Adam(groups)]
        if networks.discriminator is not None:
            groups = _groups(networks.discriminator, config.discriminator_lr, config.weight_decay)
            self.optimizers.append(torch.optim.Adam(groups))
        self.schedules = [
            torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                total_steps=config.epochs * self.steps,
                pct_start=0.2,
            )
            for optimizer in self.optimizers
        ]

    def run_epoch(self) -> dict[str, float]:
        """Look at every clip once; give the epoch's row of the log, means over clips.

        ``clips_per_second`` and ``data_wait``, the share of the time in which the networks waited
        for their next batch (in the first epoch also for workers to start), differ between runs.
        """
        self.networks.train()
        totals, waited, start = defaultdict(float), 0.0, time.perf_counter()
        batches = self.train.batches(self.epoch, self.config.clips_per_batch, self.dice)
        for step in range(self.steps):
            asked = time.perf_counter()
            sample, labels, clips = next(batches)
            waited += time.perf_counter() - asked
            terms = self._step(sample, labels)
            if not math.isfinite(terms["loss"]):
                raise FloatingPointError(
                    f"the loss is {terms['loss']} at epoch {self.epoch}, step {step}, "
                    f"clips {clips.tolist()}; a smaller learning rate usually helps."
                )
            for name, value in terms.items():
                totals[name] += value * len(clips) / self.train.clips
        taken = time.perf_counter() - start
        speed = {"clips_per_second": self.train.clips / taken, "data_wait": waited / taken}
        self.epoch += 1
        return {"epoch": self.epoch, **totals, **speed}

    def _step(self, sample: transforms.Sample, labels: Tensor) -> dict[str, float]:
        """Equation 2 with all but the discriminator fixed, then equation 4 with it fixed."""
        networks, weights = self.networks, self.config.weights
        seen = networks.field(sample)
        terms = {}
        if networks.discriminator is not None:
            fake = networks.discriminator(seen.detach())
            real = networks.discriminator(sample.flow)
            terms["discriminator"] = losses.discriminator_loss(fake, real)
            answers = torch.cat([fake.argmax(1) == losses.FAKE, real.argmax(1) == losses.REAL])
            terms["discriminator_accuracy"] = answers.float().mean()
            self._update(1, terms["discriminator"])
        logits = networks.logits(seen)
        consensus = logits.view(len(labels), -1, logits.shape[1]).mean(dim=1)
        terms["classification"] = losses.classification(consensus, labels)
        loss = weights.classification * terms["classification"]
        if weights.reconstruction:
            terms["reconstruction"] = losses.reconstruction(seen, sample.flow)
            loss = loss + weights.reconstruction * terms["reconstruction"]
        if weights.adversarial:
            networks.discriminator.requires_grad_(False)
            terms["adversarial"] = losses.generator_loss(networks.discriminator(seen))
            networks.discriminator.requires_grad_(True)
            loss = loss + weights.adversarial * terms["adversarial"]
        self._update(0, loss)
        terms["accuracy"] = (consensus.argmax(1) == labels).float().mean()
        return {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}

    def _update(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[which].step()
        self.schedules[which].step()

    def save(self, path: Path) -> None:
        """Everything that the next epoch depends on, in one file without pickle."""
        tensors = {f"networks.{name}": t for name, t in self.networks.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                for name, value in state.items():
                    tensors[f"optimizer.{number}.{index}.{name}"] = value
        tensors |= {"random.dice": self.dice.get_state(), "random.torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        note = {"epoch": str(self.epoch), "log": json.dumps(self.log)}
        checkpoints.write(tensors, path, note)

    def restore(self, path: Path) -> None:
        """Go on from what :meth:`save` wrote."""
        tensors = checkpoints.read(path, remedy="start the training again")
        note = checkpoints.read_note(path)
        self.epoch, self.log = int(note["epoch"]), json.loads(note["log"])
        parts = defaultdict(dict)
        for name, tensor in tensors.items():
            kind, rest = name.split(".", 1)
            parts[kind][rest] = tensor
        checkpoints.fill(self.networks, parts["networks"], path)
        for number, optimizer in enumerate(self.optimizers):
            state = defaultdict(dict)
            for name, tensor in parts["optimizer"].items():
                which, index, key = name.split(".")
                if int(which) == number:
                    state[int(index)][key] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": dict(state)})
        done = self.epoch * self.steps
        for schedule in self.schedules:
            place = {"last_epoch": done - 1, "_step_count": done}
            schedule.load_state_dict(schedule.state_dict() | place)
            schedule.step()  # sets the learning rate of the step to come
        self.dice.set_state(parts["random"]["dice"])
        torch.set_rng_state(parts["random"]["torch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(parts["random"]["cuda"])


def _groups(network: nn.Module, lr: float, decay: float) -> list[dict]:
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "lr": lr, "weight_decay": decay},
        {"params": others, "lr": lr, "weight_decay": 0.0},
    ]


@torch.inference_mode()
def _ask(networks: Networks, batches: loader.Batches):
    """Batch by batch: logits and classified field of every frame's centre crop, and the batch."""
    networks.eval()
    for batch in batches.all():
        seen = networks.field(batch.sample)
        yield networks.logits(seen), seen, batch


def _accuracy(networks: Networks, batches: loader.Batches) -> float:
    right = [logits.argmax(1) == batch.label for logits, _, batch in _ask(networks, batches)]
    return torch.cat(right).cpu().float().mean().item()


def _score(networks: Networks, batches: loader.Batches) -> Scores:
    logits, labels, clips, errors = [], [], [], []
    for scores, seen, (sample, label, clip) in _ask(networks, batches):
        logits.append(scores.float().cpu())
        labels.append(label.cpu())
        clips.append(clip)
        if sample.flow is not None and seen.shape == sample.flow.shape:
            gap = transforms.denormalize_motion(seen) - transforms.denormalize_motion(sample.flow)
            errors.append(gap.norm(dim=1).mean(dim=(1, 2)).cpu())
        else:  # a picture has no end-point error
            errors.append(torch.full((len(scores),), math.nan))
    return Scores(*(torch.cat(parts) for parts in (logits, labels, clips, errors)))


def _write_log(config: TrainConfig, log: list[dict]) -> None:
    with (
        files.whole(config.folder / "log.csv") as partial,
        open(partial, "w", newline="") as handle,
    ):
        writer = csv.DictWriter(handle, fieldnames=list(log[0]))
        writer.writeheader()
        writer.writerows(log)
