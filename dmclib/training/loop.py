"""One training in progress: the steps of equations 2 to 4, their schedules, and its checkpoint.

Everything that the next epoch depends on is in the checkpoint: weights, the optimizers' moments and
how many epochs are done. Random numbers have no state between epochs: what the loader draws and
what dropout draws follow from the seed, the epoch and the process's rank.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from dmclib import losses, weights
from dmclib.data import loader
from dmclib.errors import CheckpointError, DatasetError
from dmclib.training.config import TrainConfig
from dmclib.training.distributed import Team, share_norms
from dmclib.transforms import Sample

SAY_SECONDS = 1.0  # between two words about a step

Terms = dict[str, Tensor]  # what a step's loss was made of, each a scalar on the device


class Loop:
    """A config's networks with their optimizers, ready for the next epoch.

    Args:
        config: what is trained.
        networks: on the team's device; the children that the config has no use for are None.
        train: where batches come from.
        team: the processes that share each batch.
        on_step: told where the training is, at most once a second: ``epochs`` done, with a
            fraction, and the step's ``loss`` and ``accuracy``.
    """

    def __init__(
        self,
        config: TrainConfig,
        networks: nn.Module,
        train: loader.Batches,
        team: Team,
        on_step: Callable[[dict], None] = lambda progress: None,
    ):
        self.config, self.networks, self.train, self.team = config, networks, train, team
        self.on_step, self.epoch, self.log = on_step, 0, []
        self.clips = len(train.labels)
        self.steps = -(-self.clips // config.clips_per_batch)
        smallest = self.clips // self.steps
        if smallest < team.size:
            raise DatasetError(
                f"{team.size} processes cannot share batches of {smallest} clips: start fewer, or "
                "raise clips_per_batch."
            )
        if team.size > 1:
            share_norms(networks)
        self.logits = torch.compile(networks.logits) if config.compile else networks.logits
        parts = {"classifier": _classifier_groups(networks.classifier, config)}
        for name in ("generator", "discriminator"):
            if getattr(networks, name) is not None:
                rate = getattr(config, f"{name}_lr")
                parts[name] = _groups(getattr(networks, name), rate, config)
        self.optimizers = {
            name: torch.optim.Adam(groups, eps=config.eps) for name, groups in parts.items()
        }
        self.schedules = [self._schedule(optimizer) for optimizer in self.optimizers.values()]
        for optimizer in self.optimizers.values():
            optimizer.step()  # of no gradient: schedules warn where one rests in the first step

    def _schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Rates as a function of the step alone, so that a restored training finds its own."""
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
        """Look at every clip once; give the epoch's row of the log, means over clips.

        ``clips_per_second`` and ``data_wait``, the share of the time in which the networks waited
        for their next batch (in the first epoch also for workers to start), differ between runs.

        Raises:
            FloatingPointError: if the loss is no longer a number; names epoch, step and clips.
        """
        self.networks.train()
        # A classifier that waits still counts the moments of its batch normalisation.
        self.networks.classifier.requires_grad_(self.epoch >= self.config.frozen_epochs)
        torch.manual_seed(hash((self.config.seed, self.epoch, self.team.rank)) % 2**63)
        sums, counts = defaultdict(float), defaultdict(int)
        batches = self.train.batches(
            self.epoch, self.config.clips_per_batch, rank=self.team.rank, team=self.team.size
        )
        waited, start, said, launched = 0.0, time.perf_counter(), 0.0, None
        for step in range(self.steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            # A step's terms are read while the next one runs: a GPU need not wait for us.
            coming = (step, self.step(step, batch), batch.clip)
            for done in (launched, coming if step == self.steps - 1 else None):
                if done is None:
                    continue
                terms, clips = self._read(*done)
                for name, value in terms.items():
                    sums[name] += value * clips
                    counts[name] += clips
                if time.perf_counter() - said > SAY_SECONDS:
                    said = time.perf_counter()
                    place = {"epochs": self.epoch + (done[0] + 1) / self.steps}
                    self.on_step(place | {k: terms[k] for k in ("loss", "accuracy") if k in terms})
            launched = coming
        taken = time.perf_counter() - start
        speed = {"clips_per_second": self.clips / taken, "data_wait": waited / taken}
        self.epoch += 1
        return {"epoch": self.epoch, **{k: v / counts[k] for k, v in sums.items()}, **speed}

    def _read(self, step: int, terms: Terms, clips: Tensor) -> tuple[dict[str, float], int]:
        """A step's terms as numbers, means over the team's clips, and how many these are."""
        joined = torch.stack([*terms.values(), torch.ones_like(terms["loss"])]).double() * len(
            clips
        )
        self.team.sum([joined])
        *values, count = joined.tolist()
        found = {name: value / count for name, value in zip(terms, values, strict=True)}
        if not math.isfinite(found["loss"]):
            names = ", ".join(self.train.names[clip] for clip in clips.tolist())
            raise FloatingPointError(
                f"the loss is {found['loss']} at epoch {self.epoch}, step {step}, clips {names}; a "
                "smaller learning rate usually helps."
            )
        return found, round(count)

    # --- a step ---------------------------------------------------------------------------------

    def step(self, number: int, batch: loader.Batch) -> Terms:
        """Equation 2 with all but the discriminator fixed, then equation 4 with it fixed.

        With the habit of the released code, an even step is the one and an odd step the other.
        """
        parts = self._parts(batch)
        terms: Terms = {}
        turns = "classifier-with-discriminator" in self.config.habits
        adversarial = self.networks.discriminator is not None
        if adversarial and not (turns and number % 2):
            terms |= self._sum(self._discriminate(share, *part) for share, *part in parts)
            self._move("discriminator")
        if not (adversarial and turns):
            terms |= self._sum(self._learn(share, *part) for share, *part in parts)
            self._move("classifier", "generator")
        else:
            even = number % 2 == 0
            terms |= self._sum(self._learn(share, *part, alone=even) for share, *part in parts)
            self._move("classifier" if even else "generator")
        for schedule in self.schedules:
            schedule.step()
        return terms

    def _parts(self, batch: loader.Batch) -> list[tuple[float, Sample, Tensor]]:
        """The batch in parts to be computed one after the other, each with its share of the clips.

        Shares are of the whole team's batch, so that sums over parts and team are means over clips.
        """
        count = whole = len(batch.label)
        if self.team.size > 1:
            total = torch.tensor([float(count)], device=self.team.device)
            self.team.sum([total])
            whole = total.item()
        frames = len(batch.sample.motion) // count
        parts = []
        for places in torch.arange(count).tensor_split(min(self.config.micro_batches, count)):
            first, last = places[0].item(), places[-1].item() + 1
            sample = Sample(
                *(
                    None if x is None else x[first * frames : last * frames]
                    for x in vars(batch.sample).values()
                )
            )
            parts.append(((last - first) / whole, sample, batch.label[first:last]))
        return parts

    def _discriminate(self, share: float, sample: Sample, labels: Tensor) -> tuple[float, Terms]:
        """Equation 2, and its gradients for the discriminator alone."""
        with cast(self.config, self.team.device):
            with torch.no_grad():
                cue = self.networks.field(sample)
            fake, real = (self.networks.discriminator(field) for field in (cue, sample.flow))
            loss = losses.discriminator_loss(fake.float(), real.float())
        (share * self.config.weights.discriminator * loss).backward()
        answers = torch.cat([fake.argmax(1) == losses.FAKE, real.argmax(1) == losses.REAL])
        terms = {"discriminator": loss, "discriminator_accuracy": answers.float().mean()}
        return share, terms

    def _learn(
        self, share: float, sample: Sample, labels: Tensor, *, alone: bool = False
    ) -> tuple[float, Terms]:
        """Equation 4, or its class loss ``alone``, and its gradients."""
        networks, factors = self.networks, self.config.weights
        terms: Terms = {}
        with cast(self.config, self.team.device):
            seen, attention = networks.look(sample)
            logits = self.logits(seen).float()
            consensus = logits.view(len(labels), -1, logits.shape[1]).mean(dim=1)
            terms["classification"] = losses.classification(consensus, labels)
            loss = factors.classification * terms["classification"]
            if factors.reconstruction and not alone:
                target = sample.flow
                if "block-target" in self.config.habits:
                    target = losses.block_means(target)
                terms["reconstruction"] = losses.reconstruction(seen, target, attention)
                loss = loss + factors.reconstruction * terms["reconstruction"]
            if factors.adversarial and not alone:
                networks.discriminator.requires_grad_(False)
                answer = networks.discriminator(seen).float()
                networks.discriminator.requires_grad_(True)
                terms["adversarial"] = losses.generator_loss(answer)
                loss = loss + factors.adversarial * terms["adversarial"]
        (share * loss).backward()
        accuracy = (consensus.argmax(1) == labels).float().mean()
        return share, {"loss": loss, **terms, "accuracy": accuracy}

    @staticmethod
    def _sum(parts) -> Terms:
        """Terms of a batch's parts, each weighted with its share of this process's clips."""
        parts = [(share, terms) for share, terms in parts]
        whole = sum(share for share, _ in parts)
        return {
            name: sum(share / whole * terms[name].detach() for share, terms in parts)
            for name in parts[0][1]
        }

    def _move(self, *names: str) -> None:
        """Take a step with the gradients of these networks, and forget all others."""
        for name in names:
            if name not in self.optimizers:
                continue
            optimizer = self.optimizers[name]
            moved = [p for group in optimizer.param_groups for p in group["params"]]
            self.team.sum(p.grad for p in moved if p.grad is not None)
            optimizer.step()
        self.networks.zero_grad(set_to_none=True)

    # --- the checkpoint -------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Everything that the next epoch depends on, in one file without pickle."""
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
            CheckpointError: the file is damaged, or of another config; names what differs.
        """
        tensors = weights.read(path, remedy="start the training again")
        note = weights.read_note(path)
        if note.keys() != {"epoch", "log", "config"}:
            raise CheckpointError(f"{path} is no checkpoint of a training; delete it.")
        differing = _differing(
            json.loads(note["config"]), json.loads(json.dumps(asdict(self.config)))
        )
        if differing:
            raise CheckpointError(
                f"{path} is of another training, which differs in {', '.join(differing)}; delete "
                "it, or train what it is of."
            )
        self.epoch, self.log = int(note["epoch"]), json.loads(note["log"])
        parts = defaultdict(dict)
        for name, tensor in tensors.items():
            kind, rest = name.split(".", 1)
            parts[kind][rest] = tensor
        weights.fill(self.networks, parts["networks"], path)
        for part, optimizer in self.optimizers.items():
            state = defaultdict(dict)
            for name, tensor in parts["optimizer"].items():
                which, index, key = name.split(".")
                if which == part:
                    state[int(index)][key] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": dict(state)})
        done = self.epoch * self.steps
        for schedule in self.schedules:
            place = {"last_epoch": done - 1, "_step_count": done}
            schedule.load_state_dict(schedule.state_dict() | place)
            schedule.step()  # sets the learning rate of the step to come


def cast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The precision in which a config's networks compute."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def _differing(one: dict, other: dict, place: str = "") -> list[str]:
    """The keys whose values differ, with the keys above them."""
    found = []
    for key in sorted(one.keys() | other.keys()):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differing(a, b, f"{place}{key}.")
        elif a != b:
            found.append(place + key)
    return found


def _classifier_groups(classifier: nn.Module, config: TrainConfig) -> list[dict]:
    """The classifier's weights: first layer, body and last layer, each with its share of ``lr``.

    Shares of 1 leave one layer like another. CoViAR's others start from ImageNet weights, which the
    last layer does not have (its train.py).
    """
    if config.first_layer_lr == config.body_lr == 1:
        return _groups(classifier, config.lr, config)
    children = list(classifier.named_children())
    last = children[-1][0]
    shares = {name: config.body_lr for name, _ in children} | {last: 1.0}
    shares |= {name: config.first_layer_lr for name, _ in children[:2]}  # convolution and its norm
    return [
        group
        for name, child in children
        for group in _groups(child, config.lr * shares[name], config)
    ]


def _groups(network: nn.Module, lr: float, config: TrainConfig) -> list[dict]:
    """Weights with decay, biases and normalisation without."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "lr": lr, "weight_decay": config.weight_decay},
        {"params": others, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
