"""One loop for every stream and stage: seeded, resumable, its result kept by what it follows from.

:func:`fit` trains one :class:`TrainConfig` in this process; :mod:`dmclib.jobs` runs many, each in a
process of its own.
"""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from dmclib import checkpoints, data, files, losses, models, transforms
from dmclib.config import TrainConfig
from dmclib.data import Frames


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
) -> Scores:
    """Train ``config``, or go on where its last checkpoint is, and score the test frames.

    A finished training is not repeated: its scores are read. On a CPU an interrupted training that
    goes on ends with the same weights, to the bit, as one left alone with as many threads.

    Args:
        config: what to train.
        device: ``cpu``, ``cuda``, or ``auto``, which is a GPU where there is one.
        on_epoch: called after each epoch with its row of the log.

    Raises:
        CheckpointError: if the stage to start from has not been trained, or a file is damaged.
        FloatingPointError: if the loss is no longer a number; names epoch and step.
    """
    checkpoint = config.folder / "checkpoint.safetensors"
    if config.done:
        checkpoint.unlink(missing_ok=True)
        return load_scores(config)
    device = torch.device(_choose(device))
    train = data.load_frames(config.data, "train")
    validation = data.load_frames(config.data, "validation")
    torch.manual_seed(config.seed)
    networks = Networks(config, classes=int(train.label.max()) + 1)
    if config.start_from is not None:
        _take_over(networks, config.start_from)
    networks.to(device, memory_format=torch.channels_last)
    loop = _Loop(config, networks, train, device)
    config.folder.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        loop.restore(checkpoint)
    while loop.epoch < config.epochs:
        row = loop.run_epoch()
        row["validation_accuracy"] = _accuracy(networks, validation, config, device)
        loop.log.append(row)
        loop.save(checkpoint)
        on_epoch(row)
    _write_log(config, loop.log)
    checkpoints.save(networks, config.folder / "weights.safetensors")
    test = data.load_frames(config.data, "test")
    scores = _score(networks, test, config, device)
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

    def __init__(
        self, config: TrainConfig, networks: Networks, train: Frames, device: torch.device
    ):
        self.config, self.networks, self.train, self.device = config, networks, train, device
        self.epoch, self.log = 0, []
        self.dice = torch.Generator().manual_seed(config.seed)  # order, frames, crops, flips
        # Rows of each clip, (clips, frames_per_clip): every clip contributes equally many.
        self.rows = torch.stack([(train.clip == c).nonzero()[:, 0] for c in train.clip.unique()])
        self.steps = math.ceil(len(self.rows) / config.clips_per_batch)
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
        """One true pass: every clip once. Returns the epoch's means."""
        config, networks = self.config, self.networks
        networks.train()
        totals, clips = defaultdict(float), len(self.rows)
        for step, batch in enumerate(
            torch.randperm(clips, generator=self.dice).split(config.clips_per_batch)
        ):
            rows = self._pick(batch)
            labels = self.train.label[rows[:, 0]].to(self.device)
            sample = _take(self.train, rows.flatten(), config, self.device)
            sample = transforms.augment(sample, (config.size, config.size), self.dice)
            terms = self._step(transforms.normalize(sample), labels)
            if not math.isfinite(terms["loss"]):
                raise FloatingPointError(
                    f"the loss is {terms['loss']} at epoch {self.epoch}, step {step}, "
                    f"clips {batch.tolist()}; a smaller learning rate usually helps."
                )
            for name, value in terms.items():
                totals[name] += value * len(batch) / clips
        self.epoch += 1
        return {"epoch": self.epoch, **totals}

    def _pick(self, batch: Tensor) -> Tensor:
        """One random frame from each of ``segments`` parts of each clip: rows (clips, segments)."""
        parts = torch.tensor_split(torch.arange(self.rows.shape[1]), self.config.segments)
        columns = [
            part[torch.randint(len(part), (len(batch),), generator=self.dice)] for part in parts
        ]
        return self.rows[batch[:, None], torch.stack(columns, dim=1)]

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
        with safe_open(path, "pt") as handle:
            note = handle.metadata()
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


def _take(frames: Frames, rows: Tensor, config: TrainConfig, device) -> transforms.Sample:
    sample = frames.sample(rows, picture="rgb" if config.stream == "rgb" else "residual")
    return transforms.Sample(*(t.to(device) for t in vars(sample).values()))


@torch.inference_mode()
def _ask(networks: Networks, frames: Frames, config: TrainConfig, device, batch: int = 64):
    """Logits and classified field of every frame's centre crop, batch by batch, with its flow."""
    networks.eval()
    for rows in torch.arange(len(frames.label)).split(batch):
        sample = _take(frames, rows, config, device)
        sample = transforms.center_crop(sample, (config.size, config.size))
        sample = transforms.normalize(sample)
        seen = networks.field(sample)
        yield networks.logits(seen), seen, sample.flow


def _accuracy(networks: Networks, frames: Frames, config: TrainConfig, device) -> float:
    logits = torch.cat([logits for logits, _, _ in _ask(networks, frames, config, device)])
    return (logits.argmax(1).cpu() == frames.label).float().mean().item()


def _score(networks: Networks, frames: Frames, config: TrainConfig, device) -> Scores:
    logits, errors = [], []
    for scores, seen, target in _ask(networks, frames, config, device):
        logits.append(scores.float().cpu())
        if seen.shape == target.shape:
            gap = transforms.denormalize_motion(seen) - transforms.denormalize_motion(target)
            errors.append(gap.norm(dim=1).mean(dim=(1, 2)).cpu())
        else:  # a picture has no end-point error
            errors.append(torch.full((len(scores),), math.nan))
    return Scores(torch.cat(logits), frames.label, frames.clip, torch.cat(errors))


def _write_log(config: TrainConfig, log: list[dict]) -> None:
    with (
        files.whole(config.folder / "log.csv") as partial,
        open(partial, "w", newline="") as handle,
    ):
        writer = csv.DictWriter(handle, fieldnames=list(log[0]))
        writer.writeheader()
        writer.writerows(log)


def _choose(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
