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

from dmclib import files, paths
from dmclib.data import DataConfig
from dmclib.errors import DMCError
from dmclib.losses import LossWeights
from dmclib.models import GeneratorConfig

# The rooms whose code a training's result follows from.
MADE_BY = ("codec", "flow", "data", "training", "models", "losses", "transforms", "i3d")
Stream = Literal["motion", "residual", "flow", "rgb", "cue"]
Network = Literal["resnet18", "resnet152", "i3d", "s3d"]
PRECISIONS = ("float32", "bf16")
CLIP_NETWORKS = ("i3d", "s3d")  # take whole clips, and give one answer a clip

# Where the released runs differ from the paper's text or from what one would expect
# (RELEASED_CODE.md, section 7), by the word that a profile names and a results file carries. None
# is followed unless named.
HABITS = {
    "keep-dx": "the flip does not negate dx of vectors and flow",
    "block-target": "L_mse asks for flow averaged over blocks of 16 x 16 pixels",
    "classifier-with-discriminator": (
        "even steps move the discriminator and, with L_cls, the classifier; odd ones the generator "
        "alone"
    ),
}


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
    # TSN: frames of a clip whose logits are averaged before the loss. A classifier of clips takes
    # so many that follow each other.
    segments: int = 3
    clips_per_batch: int = 8
    micro_batches: int = 1  # parts of a batch that are computed one after the other (memory)
    network: Network = "resnet18"  # the classifier
    # File of the classifier's weights to begin with, ImageNet's or I3D's of Kinetics; None: chance.
    initial: str | None = None
    lr: float = 1e-3  # classifier
    first_layer_lr: float = 1.0  # share of ``lr`` for the classifier's first convolution and norm
    body_lr: float = 1.0  # share of ``lr`` between that and the last layer
    generator_lr: float = 1e-3
    discriminator_lr: float = 1e-3
    discriminator_depth: int = 3  # convolutions a stage; 1 in the released I3D runs
    weight_decay: float = 1e-4  # none on biases and normalisation (released code)
    eps: float = 1e-8  # Adam's; the released runs use 1e-3
    steps: tuple[int, ...] = ()  # epochs at which rates fall to ``falls_to``; none: one cycle
    falls_to: float = 0.1
    frozen_epochs: int = 0  # so long the classifier waits, and the generator learns alone
    habits: tuple[str, ...] = ()  # words of HABITS
    precision: Literal["float32", "bf16"] = "float32"  # bf16: autocast; weights stay float32
    compile: bool = False  # torch.compile for the classifier; pays on a GPU and over hours

    def __post_init__(self):
        if self.epochs < 1 or self.size < 32 or self.data.frames_per_clip < self.segments:
            raise DMCError(
                f"cannot train for {self.epochs} epochs on crops of {self.size} px and "
                f"{self.data.frames_per_clip} frames a clip: at least 1 epoch, 32 px and "
                f"{self.segments} frames, one a segment, are needed."
            )
        if self.frozen_epochs and self.stream != "cue":
            raise DMCError(f"the {self.stream} stream has no generator to train before the rest.")
        if not 1 <= self.micro_batches <= self.clips_per_batch:
            raise DMCError(
                f"cannot compute a batch of {self.clips_per_batch} clips in {self.micro_batches} "
                "parts: at least one part, and a clip in each, are needed."
            )
        for field_name, known in (("habits", tuple(HABITS)), ("precision", PRECISIONS)):
            given = getattr(self, field_name)
            for word in (given,) if isinstance(given, str) else given:
                if word not in known:
                    raise DMCError(f"{field_name} has no {word!r}; there are {', '.join(known)}.")

    @property
    def sees_clips(self) -> bool:
        """Whether the classifier takes whole clips, and gives one answer a clip."""
        return self.network in CLIP_NETWORKS

    @cached_property
    def key(self) -> str:
        """Sixteen letters that name this training, the package's code for it included."""
        text = json.dumps(asdict(self), sort_keys=True)
        code = files.code_digest(*MADE_BY)
        return hashlib.sha256((text + code + self.data.content()).encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        """Where its log, checkpoints and scores are kept."""
        return paths.CACHE / "training" / self.key

    def write(self) -> Path:
        """Put the config beside what it makes; ``dmclib.reproduce.jobs`` trains from that file."""
        path = self.folder / "config.json"
        files.write_text(path, json.dumps(asdict(self), indent=1))
        return path

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
            for name in ("steps", "habits"):
                values[name] = tuple(values[name])
            counts = tuple(values["data"]["clips_per_class"])
            values["data"] = DataConfig(**values["data"] | {"clips_per_class": counts})
            values["weights"] = LossWeights(**values["weights"])
            widths = tuple(values["generator"]["widths"])
            values["generator"] = GeneratorConfig(**values["generator"] | {"widths": widths})
            return cls(**values)

        return build(json.loads(text))
