"""One training in progress: the steps of equations 2 to 4, learning rates, and the checkpoint.

The checkpoint holds everything that the next epoch depends on: weights, the optimizers' moments and
the number of finished epochs. Random numbers carry no state from epoch to epoch: batches and
dropout follow from the seed, the epoch and the process's rank.
"""

import json
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from dmclib import losses, weights
from dmclib.data import loader
from dmclib.errors import CheckpointError, DatasetError
from dmclib.models import DMCNet
from dmclib.training.config import TrainConfig
from dmclib.training.distributed import ProcessGroup, share_norms
from dmclib.transforms import Sample

REPORT_SECONDS = 1.0  # between two calls of on_step

Part = tuple[float, Sample, Tensor]  # of a batch: its share of the clips, its frames and labels
Terms = dict[str, Tensor]  # the terms of a step's loss and its accuracy, scalars on the device


class Loop:
    """A config's networks, on the group's device, with their optimizers.

    ``on_step`` is called at most once a second with the progress: ``epochs`` done, with a fraction,
    and the step's ``loss`` and ``accuracy``.

    Raises:
        DatasetError: a batch has fewer clips than there are processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        networks: DMCNet,
        train: loader.Batches,
        group: ProcessGroup,
        on_step: Callable[[dict], None] = lambda progress: None,
    ):
        self.config, self.networks, self.train, self.group = config, networks, train, group
        self.on_step, self.epoch, self.log = on_step, 0, []
        self.clips = len(train.items)
        self.steps = -(-self.clips // config.clips_per_batch)
        smallest = self.clips // self.steps
        if smallest < group.size:
            raise DatasetError(
                f"{group.size} processes cannot share batches of {smallest} clips: start fewer, or "
                "raise clips_per_batch."
            )
        if group.size > 1:
            share_norms(networks)
        self.logits = torch.compile(networks.logits) if config.compile else networks.logits
        groups = {"classifier": _classifier_groups(networks.classifier, config)}
        for name in ("generator", "discriminator"):
            if (network := getattr(networks, name)) is not None:
                groups[name] = _groups(network, getattr(config, f"{name}_lr"), config)
        # Fused: a step of ResNet-18's weights takes half the time on a processor.
        self.optimizers = {
            k: torch.optim.Adam(own, eps=config.eps, fused=True) for k, own in groups.items()
        }
        self.schedules = [self._schedule(optimizer) for optimizer in self.optimizers.values()]
        for optimizer in self.optimizers.values():
            optimizer.step()  # without gradients: a schedule warns if no step came before its own

    def _schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Rates that follow from the step's number alone, as a restored training needs."""
        if self.config.steps:
            falls = [epoch * self.steps for epoch in self.config.steps]
            return torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: self.config.falls_to ** sum(step >= fall for fall in falls)
            )
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=self.config.epochs * self.steps,
            pct_start=0.2,
        )

    # --- an epoch -------------------------------------------------------------------------------

    def run_epoch(self) -> dict[str, float]:
        """Train on every clip once; return the epoch's row of the log, means over clips.

        ``data_wait`` is the share of time spent waiting for batches; it and ``clips_per_second``
        differ between runs.

        Raises:
            FloatingPointError: the loss is no longer a number; names epoch, step and clips.
        """
        self.networks.train()
        # The batch normalisation of a frozen classifier still updates its moments.
        self.networks.classifier.requires_grad_(self.epoch >= self.config.frozen_epochs)
        torch.manual_seed(hash((self.config.seed, self.epoch, self.group.rank)) % 2**63)
        sums, counts = defaultdict(float), defaultdict(int)
        share = {"rank": self.group.rank, "processes": self.group.size}
        batches = self.train.batches(self.epoch, self.config.clips_per_batch, **share)
        waited, start, reported, running = 0.0, time.perf_counter(), 0.0, deque()
        for step in range(self.steps):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            running.append((step, self.step(step, batch), batch.clip))
            # Terms are read one step late, so that a GPU need not wait for the processor.
            while len(running) > (step < self.steps - 1):
                number = running[0][0]
                terms, clips = self._read(*running.popleft())
                for name, value in terms.items():
                    sums[name] += value * clips
                    counts[name] += clips
                if time.perf_counter() - reported > REPORT_SECONDS:
                    reported = time.perf_counter()
                    means = {k: terms[k] for k in ("loss", "accuracy") if k in terms}
                    self.on_step({"epochs": self.epoch + (number + 1) / self.steps} | means)
        seconds = time.perf_counter() - start
        speed = {"clips_per_second": self.clips / seconds, "data_wait": waited / seconds}
        self.epoch += 1
        return {"epoch": self.epoch, **{k: v / counts[k] for k, v in sums.items()}, **speed}

    def _read(self, step: int, terms: Terms, clips: Tensor) -> tuple[dict[str, float], int]:
        """A step's terms as numbers, means over the group's clips, and the number of these."""
        weighted = torch.stack([*terms.values(), torch.ones_like(terms["loss"])]).double()
        weighted *= len(clips)
        self.group.sum([weighted])
        *values, count = weighted.tolist()
        means = {name: value / count for name, value in zip(terms, values, strict=True)}
        if not math.isfinite(means["loss"]):
            names = ", ".join(self.train.items.names[clip] for clip in clips.tolist())
            raise FloatingPointError(
                f"the loss is {means['loss']} at epoch {self.epoch}, step {step}, clips {names}; a "
                "smaller learning rate usually helps."
            )
        return means, round(count)

    # --- a step ---------------------------------------------------------------------------------

    def step(self, number: int, batch: loader.Batch) -> Terms:
        """Step ``number`` of an epoch: :meth:`discriminator_step`, then :meth:`generator_step`."""
        parts = self.parts(batch)
        discriminates, learning = self.turn(number)
        terms = self.discriminator_step(parts) if discriminates else {}
        terms |= self.generator_step(parts, learning)
        for schedule in self.schedules:
            schedule.step()
        return terms

    def turn(self, number: int) -> tuple[bool, tuple[str, ...]]:
        """Whether the discriminator learns in this step, and which networks learn after it.

        The released code (habit "classifier-with-discriminator") alternates: even steps move the
        discriminator and the classifier, odd steps the generator.
        """
        adversarial = self.networks.discriminator is not None
        if not adversarial or "classifier-with-discriminator" not in self.config.habits:
            return adversarial, ("classifier", "generator")
        return (False, ("generator",)) if number % 2 else (True, ("classifier",))

    def discriminator_step(self, parts: Sequence[Part]) -> Terms:
        """Equation 2: the discriminator learns, all other networks stay as they are."""
        part_terms = []
        for share, sample, _ in parts:
            with cast(self.config, self.group.device):
                with torch.no_grad():
                    cue = self.networks.field(sample)
                fake, real = (self.networks.discriminator(field) for field in (cue, sample.flow))
                loss = losses.discriminator_loss(fake.float(), real.float())
            (share * self.config.weights.discriminator * loss).backward()
            right = torch.cat([fake.argmax(1) == losses.FAKE, real.argmax(1) == losses.REAL])
            accuracy = right.float().mean()
            part_terms.append({"discriminator": loss, "discriminator_accuracy": accuracy})
        self.update("discriminator")
        return _mean(parts, part_terms)

    def generator_step(
        self, parts: Sequence[Part], learning: Sequence[str] = ("classifier", "generator")
    ) -> Terms:
        """Equation 4 with the discriminator fixed; equation 3 is its adversarial term.

        If the generator is not ``learning``, the loss is L_cls alone. Without L_cls the classifier
        is not asked, so the generator learns in a third of the time.
        """
        networks, factors, part_terms = self.networks, self.config.weights, []
        whole = "generator" in learning
        for share, sample, labels in parts:
            terms: Terms = {}
            with cast(self.config, self.group.device):
                field, attention = networks.field_and_attention(sample)
                loss = field.new_zeros((), dtype=torch.float32)
                if factors.classification:
                    logits = self.logits(field).float()
                    consensus = logits.view(len(labels), -1, logits.shape[1]).mean(dim=1)
                    terms["classification"] = losses.classification(consensus, labels)
                    loss = factors.classification * terms["classification"]
                if factors.reconstruction and whole:
                    blocks = "block-target" in self.config.habits
                    target = losses.block_means(sample.flow) if blocks else sample.flow
                    terms["reconstruction"] = losses.reconstruction(field, target, attention)
                    loss = loss + factors.reconstruction * terms["reconstruction"]
                if factors.adversarial and whole:
                    networks.discriminator.requires_grad_(False)
                    answer = networks.discriminator(field).float()
                    networks.discriminator.requires_grad_(True)
                    terms["adversarial"] = losses.generator_loss(answer)
                    loss = loss + factors.adversarial * terms["adversarial"]
            (share * loss).backward()
            if factors.classification:
                terms["accuracy"] = (consensus.argmax(1) == labels).float().mean()
            part_terms.append({"loss": loss, **terms})
        self.update(*learning)
        return _mean(parts, part_terms)

    def parts(self, batch: loader.Batch) -> list[Part]:
        """Split the batch into parts that are computed one after the other.

        Shares are of the whole group's batch: gradients summed over parts and processes are means
        over its clips.
        """
        count = whole = len(batch.label)
        if self.group.size > 1:
            total = torch.tensor([float(count)], device=self.group.device)
            self.group.sum([total])
            whole = total.item()
        frames = len(batch.sample.motion) // count
        parts = []
        for clips in torch.arange(count).tensor_split(min(self.config.micro_batches, count)):
            first, last = clips[0].item(), clips[-1].item() + 1
            sample = batch.sample[first * frames : last * frames]
            parts.append(((last - first) / whole, sample, batch.label[first:last]))
        return parts

    def update(self, *names: str) -> None:
        """Take a step with the gradients of these networks, and forget all gradients."""
        for optimizer in (self.optimizers[name] for name in names if name in self.optimizers):
            moved = [p for group in optimizer.param_groups for p in group["params"]]
            self.group.sum(p.grad for p in moved if p.grad is not None)
            optimizer.step()
        self.networks.zero_grad(set_to_none=True)

    # --- the checkpoint -------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything that the next epoch depends on, without pickle."""
        tensors = {f"networks.{name}": t for name, t in self.networks.state_dict().items()}
        for part, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                for name, value in state.items():
                    tensors[f"optimizer.{part}.{index}.{name}"] = value
        note = {
            "epoch": str(self.epoch),
            "log": json.dumps(self.log),
            "config": json.dumps(asdict(self.config)),
        }
        weights.write(tensors, path, note)

    def restore(self, path: Path) -> None:
        """Go on from what :meth:`save` wrote.

        Raises:
            CheckpointError: the file is damaged, or of another config, and what differs.
        """
        tensors = weights.read(path, remedy="start the training again")
        note = weights.read_note(path)
        if note.keys() != {"epoch", "log", "config"}:
            raise CheckpointError(f"{path} is no checkpoint of a training; delete it.")
        theirs, own = json.loads(note["config"]), json.loads(json.dumps(asdict(self.config)))
        if differing := sorted(name for name in own if theirs.get(name) != own[name]):
            raise CheckpointError(
                f"{path} is of another training, which differs in {', '.join(differing)}; delete "
                "it, or go on with that training."
            )
        self.epoch, self.log = int(note["epoch"]), json.loads(note["log"])
        parts = defaultdict(dict)
        for name, tensor in tensors.items():
            kind, rest = name.split(".", 1)
            parts[kind][rest] = tensor
        weights.fill(self.networks, parts["networks"], path)
        for part, optimizer in self.optimizers.items():
            moved = [p for group in optimizer.param_groups for p in group["params"]]
            state = defaultdict(dict)
            for name, tensor in parts["optimizer"].items():
                which, index, key = name.split(".")
                if which == part:
                    # A fused step walks through memory: moments must lie there as their weights do.
                    like = moved[int(index)] if tensor.ndim else tensor
                    state[int(index)][key] = torch.empty_like(like, device="cpu").copy_(tensor)
            optimizer.load_state_dict(optimizer.state_dict() | {"state": dict(state)})
        done = self.epoch * self.steps
        for schedule in self.schedules:
            steps = {"last_epoch": done - 1, "_step_count": done}
            schedule.load_state_dict(schedule.state_dict() | steps)
            schedule.step()  # sets the learning rate of the next step


def cast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The precision in which a config's networks compute."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def _mean(parts: Sequence[Part], part_terms: Sequence[Terms]) -> Terms:
    """A batch's terms: those of its parts, weighted with their shares of this process's clips."""
    shares = [share for share, *_ in parts]
    return {
        name: sum(
            share / sum(shares) * terms[name].detach()
            for share, terms in zip(shares, part_terms, strict=True)
        )
        for name in part_terms[0]
    }


def _classifier_groups(classifier: nn.Module, config: TrainConfig) -> list[dict]:
    """Parameter groups of the classifier, with the learning rates of first layer, body and last.

    In CoViAR all but the last layer start from ImageNet weights and learn more slowly (train.py).
    """
    if config.first_layer_lr == config.body_lr == 1:
        return _groups(classifier, config.lr, config)
    first, norm, *body, last = classifier.children()
    shares = dict.fromkeys(body, config.body_lr)
    shares = {first: config.first_layer_lr, norm: config.first_layer_lr, **shares, last: 1.0}
    return [g for child, own in shares.items() for g in _groups(child, config.lr * own, config)]


def _groups(network: nn.Module, lr: float, config: TrainConfig) -> list[dict]:
    """Parameter groups of a network: decay for weights, none for biases and normalisation."""
    groups = []
    for is_weight, decay in ((True, config.weight_decay), (False, 0.0)):
        own = [p for p in network.parameters() if (p.ndim > 1) == is_weight]
        if own:
            groups.append({"params": own, "lr": lr, "weight_decay": decay})
    return groups
