"""Everything that a training follows from, and the place that it is kept at.

A config holds the training that it starts from, so the paper's three stages are a chain: a flow
classifier; from it the generator and classifier with L_cls + L_mse; from that the adversarial
stage. Its key names its folder, so a training is never done twice and never taken for another.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from dmclib import data, files, paths
from dmclib.data import DataConfig
from dmclib.errors import DMCError
from dmclib.losses import LossWeights
from dmclib.models import GeneratorConfig

# The modules that a training's result follows from, beside those that its clips follow from.
MADE_BY = (
    *("corpora", "data", "flowstore", "lists", "loader", "losses", "manifest", "models"),
    *("training", "transforms"),
)
Stream = Literal["motion", "residual", "flow", "rgb", "cue"]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training follows from."""

    stream: Stream  # what the classifier looks at; "cue" puts the generator before it
    data: DataConfig
    epochs: int
    seed: int = 0
    start_from: "TrainConfig | None" = None  # the stage before; its weights are taken over
    weights: LossWeights = field(default_factory=LossWeights)  # equation 4
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    size: int = 112  # side of the crop, px
    segments: int = 3  # TSN: frames of a clip whose logits are averaged before the loss
    clips_per_batch: int = 8
    lr: float = 1e-3  # classifier
    generator_lr: float = 1e-3
    discriminator_lr: float = 1e-3
    weight_decay: float = 1e-4  # none on biases and normalisation (released code)

    def __post_init__(self):
        if self.epochs < 1 or self.size < 32 or self.data.frames_per_clip < self.segments:
            raise DMCError(
                f"cannot train for {self.epochs} epochs on crops of {self.size} px and "
                f"{self.data.frames_per_clip} frames a clip: at least 1 epoch, 32 px and "
                f"{self.segments} frames, one a segment, are needed."
            )

    @cached_property
    def key(self) -> str:
        """Sixteen letters that name this training, the package's code for it included."""
        text = json.dumps(asdict(self), sort_keys=True)
        code = files.code_digest(*data.MADE_BY, *MADE_BY)
        return hashlib.sha256((text + code + self.data.content()).encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        """Where its log, checkpoints and scores are kept."""
        return paths.CACHE / "training" / self.key

    @property
    def done(self) -> bool:
        """Whether it has been trained and scored."""
        return (self.folder / "scores.safetensors").exists()

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The config that ``json.dumps(asdict(config))`` wrote."""

        def build(values: dict) -> TrainConfig:
            values = dict(values)
            if values["start_from"] is not None:
                values["start_from"] = build(values["start_from"])
            counts = tuple(values["data"]["clips_per_class"])
            values["data"] = DataConfig(**values["data"] | {"clips_per_class": counts})
            values["weights"] = LossWeights(**values["weights"])
            widths = tuple(values["generator"]["widths"])
            values["generator"] = GeneratorConfig(**values["generator"] | {"widths": widths})
            return cls(**values)

        return build(json.loads(text))
