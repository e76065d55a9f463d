"""Everything that a training follows from, and the folder that keeps its results.

A config holds the training that it starts from, so the stages are a chain: a flow classifier; in
front of it a generator that learns by L_mse alone; from both the generator and classifier with
L_cls + L_mse; from that the adversarial stage. The config's key names its folder, so that no
training is repeated or confused with another.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from dmclib import files, paths
from dmclib.data import DataConfig
from dmclib.errors import DMCError
from dmclib.losses import LossWeights
from dmclib.models import GeneratorConfig, Stream

# The rooms of dmclib whose code a training's result follows from.
MADE_BY = ("codec", "flow", "data", "training", "models", "losses", "transforms", "i3d")

# Where the released runs differ from the paper's text or from common practice, by the word that
# profiles and results files use. A habit is followed only where a config names it.
HABITS = {
    "keep-dx": "the flip does not negate dx of vectors and flow",
    "block-target": "the target of L_mse is flow averaged over blocks of 16 x 16 pixels",
    "classifier-with-discriminator": (
        "even steps move the discriminator and, by L_cls, the classifier; odd steps move only the "
        "generator"
    ),
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training follows from."""

    stream: Stream  # what the classifier sees; "cue" puts the generator before it
    data: DataConfig
    epochs: int
    seed: int = 0
    start_from: "TrainConfig | None" = None  # the stage before, whose weights begin this one
    weights: LossWeights = field(default_factory=LossWeights)  # equation 4
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    size: int = 112  # side of the crop, px
    # TSN: frames of a clip whose logits are averaged before the loss. For I3D: consecutive frames
    # of a clip.
    segments: int = 3
    clips_per_batch: int = 8
    micro_batches: int = 1  # parts of a batch, computed one after the other to save memory
    network: Literal["resnet18", "resnet152", "i3d"] = "resnet18"  # the classifier
    # File of published weights for the classifier, ImageNet's or Kinetics'; None: random weights.
    initial: str | None = None
    lr: float = 1e-3  # classifier
    first_layer_lr: float = 1.0  # share of ``lr`` for the classifier's first convolution and norm
    body_lr: float = 1.0  # share of ``lr`` for the layers between these and the last one
    generator_lr: float = 1e-3
    discriminator_lr: float = 1e-3
    discriminator_depth: int = 3  # convolutions per stage; 1 in the released I3D runs
    weight_decay: float = 1e-4  # none on biases and normalisation (released code)
    eps: float = 1e-8  # Adam's; the released runs use 1e-3
    steps: tuple[int, ...] = ()  # after these epochs rates are multiplied by ``falls_to``;
    falls_to: float = 0.1  # without steps, rates go through one cycle (torch's OneCycleLR)
    frozen_epochs: int = 0  # epochs at the beginning in which the classifier does not learn
    habits: tuple[str, ...] = ()  # words of HABITS
    precision: Literal["float32", "bf16"] = "float32"  # bf16: autocast; weights stay float32
    compile: bool = False  # torch.compile for the classifier; pays off on a GPU over hours

    def __post_init__(self):
        if self.epochs < 1 or self.size < 32 or self.data.frames_per_clip < self.segments:
            raise DMCError(
                f"cannot train for {self.epochs} epochs on crops of {self.size} px and "
                f"{self.data.frames_per_clip} frames per clip: at least 1 epoch, 32 px and "
                f"{self.segments} frames, one per segment, are needed."
            )
        if self.frozen_epochs and self.stream != "cue":
            raise DMCError(f"the {self.stream} stream has no generator to train before the rest.")
        if not self.weights.classification and self.stream != "cue":
            raise DMCError(f"the {self.stream} stream learns by the class loss alone.")
        if not 1 <= self.micro_batches <= self.clips_per_batch:
            raise DMCError(
                f"cannot compute a batch of {self.clips_per_batch} clips in {self.micro_batches} "
                "parts: at least one part, with at least one clip in each, is needed."
            )
        check_word("precision", self.precision, ("float32", "bf16"))
        for word in self.habits:
            check_word("habits", word, HABITS)

    @property
    def sees_clips(self) -> bool:
        """Whether the classifier takes whole clips and gives one answer per clip."""
        return self.network == "i3d"

    @cached_property
    def key(self) -> str:
        """Sixteen letters that name this training; other code gives another key."""
        text = json.dumps(asdict(self), sort_keys=True)
        code = files.code_digest(*MADE_BY)
        return hashlib.sha256((text + code + self.data.content()).encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        """The folder of its log, checkpoints, weights and scores."""
        return paths.CACHE / "training" / self.key

    def write(self) -> Path:
        """Write the config to its folder, from where ``dmclib.reproduce.jobs`` trains it."""
        path = self.folder / "config.json"
        files.write_text(path, json.dumps(asdict(self), indent=1))
        return path

    @property
    def done(self) -> bool:
        """Whether this training is finished and scored."""
        return (self.folder / "scores.safetensors").exists()

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Read the config that ``json.dumps(asdict(config))`` wrote."""

        def with_tuples(values: dict) -> dict:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

        def build(values: dict) -> TrainConfig:
            parts = {"data": DataConfig, "weights": LossWeights, "generator": GeneratorConfig}
            built = {name: kind(**values[name]) for name, kind in parts.items()}
            built["start_from"] = values["start_from"] and build(values["start_from"])
            return cls(**values | built)

        return build(json.loads(text, object_hook=with_tuples))


def check_word(name: str, word: str, known: Iterable[str]) -> None:
    """Refuse a word that a setting does not have.

    Raises:
        DMCError: names the setting and the words that there are.
    """
    if word not in known:
        raise DMCError(f"{name} has no {word!r}; there are {', '.join(known)}.")
