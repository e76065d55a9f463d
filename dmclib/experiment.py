"""The comparison of section 4.3: which trainings it needs, and the tables that they give.

A notebook's :class:`Setting` says which clips, which schedule and which of the released code's
habits; :func:`trainings` and :func:`further` give the named trainings of its seed. All of them see
the same clips and crops, so they differ only in what their names say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmclib import codec, evaluation, machine, models, paths, training, weights
from dmclib.data import DataConfig, Dataset
from dmclib.errors import CheckpointError
from dmclib.losses import LossWeights
from dmclib.training import HABITS, TrainConfig, schedules
from dmclib.training.config import check_word

SINGLE_FRAME = "one decoded frame"
MOTION = "motion vectors"
RESIDUAL = "residual"
FLOW = "optical flow"
CLS = "DMC: cls"
MSE = "DMC: cls + MSE"
LONGER = "DMC: cls + MSE, longer"
ADV = "DMC: cls + MSE + adv"
METADATA = "file metadata"

# The trainings of :func:`further`, and the training of :func:`trainings` that each one changes.
NO_RESIDUAL = "generator: without residual"
NO_SHORTCUT = "generator: without shortcut"
WEIGHTED = "generator: weighted reconstruction"
SEQUENCE = "generator: two in sequence"
PWC_SIZE = "generator: PWC-Net's size"
ACCUMULATED = "input: accumulated"
SUBPIXEL = "input: sub-pixel"
KEEP_DX = "released: flip keeps dx"
BLOCK_TARGET = "released: block-averaged target"
IN_TURNS = "released: D step moves classifier"
AGAINST = dict.fromkeys(
    [NO_RESIDUAL, NO_SHORTCUT, WEIGHTED, SEQUENCE, PWC_SIZE, ACCUMULATED, SUBPIXEL, KEEP_DX], MSE
) | {BLOCK_TARGET: MSE, IN_TURNS: ADV}

Run = TrainConfig | Sequence[TrainConfig]  # a training, or one per split with pooled test clips

CLIP_FRAMES = 64  # that I3D sees of a clip in the released runs, or as many as are stored


@dataclass(frozen=True)
class Setting:
    """What the trainings of one seed follow from, as a notebook's parameters cell explains it."""

    seed: int  # of the trainings, not of the clips
    data_folder: str  # "" for none, as prepared_folder
    corpus: str
    prepared_folder: str
    split_number: int
    train_clips: int
    validation_clips: int
    test_clips: int
    frames_per_clip: int
    size: int
    network: str
    schedule: str
    flow_epochs: int
    stage_epochs: int
    habits: Sequence[str]
    imagenet: str
    precision: str

    @classmethod
    def of(cls, parameters: Mapping) -> "Setting":
        """The setting in a notebook's parameters, which may hold others too."""
        return cls(**{field.name: parameters[field.name] for field in fields(cls)})

    def parameters(self) -> dict:
        """The parameters by name, for ``results.start_run``."""
        return dict(vars(self))

    @property
    def clips(self) -> DataConfig:
        """The clips that the trainings see."""
        return DataConfig(
            folder=self.data_folder or None,
            corpus=self.corpus,
            prepared=self.prepared_folder or None,
            split_number=self.split_number,
            clips_per_class=(self.train_clips, self.validation_clips, self.test_clips),
            frames_per_clip=self.frames_per_clip,
        )


def trainings(setting: Setting) -> dict[str, TrainConfig]:
    """The trainings of one seed, by name: baselines, the flow classifier, the DMC variants.

    The stages are those of the paper and the released code: first the flow classifier; from it
    ``cls`` and ``cls + MSE``; from the latter the adversarial stage. ``cls + MSE, longer`` is the
    control of that stage: as many epochs without the adversarial term.

    Raises:
        DMCError: the setting has an unknown word for habit, schedule, network or precision.
    """
    for word in setting.habits:
        check_word("habits", word, HABITS)
    schedule, clips, precision = _schedule(setting), setting.clips, setting.precision
    if precision == "auto":
        precision = "bf16" if machine.has_bf16() else "float32"
    shared = {"seed": setting.seed, "size": setting.size, "precision": precision}

    def config(stream: str, stage: str, *habits: str, **changes) -> TrainConfig:
        values = {**shared, "network": setting.network, **schedule[stage], **changes}
        values["data"] = replace(clips, reading=values.pop("reading", "plain"))
        is_i3d = values["network"] == "i3d"
        if is_i3d:
            values["segments"] = min(CLIP_FRAMES, clips.frames_per_clip)
        # I3D's published weights are those of its flow stream and fit only two planes.
        if "start_from" not in values and (not is_i3d or stream in ("motion", "flow")):
            values["initial"] = _published(values["network"], setting)
        followed = tuple(word for word in habits if word in setting.habits)
        return TrainConfig(stream=stream, habits=followed, **values)

    flow = config("flow", "flow", "keep-dx")
    mse = config("cue", "mse", "keep-dx", "block-target", start_from=flow)
    no_adversary = replace(schedule["adv"]["weights"], adversarial=0.0)
    return {
        SINGLE_FRAME: config("rgb", "rgb"),
        MOTION: config("motion", "motion", "keep-dx"),
        RESIDUAL: config("residual", "residual"),
        CLS: config("cue", "mse", "keep-dx", weights=LossWeights(), start_from=flow),
        MSE: mse,
        LONGER: config("cue", "adv", "keep-dx", weights=no_adversary, start_from=mse),
        ADV: config("cue", "adv", "keep-dx", "classifier-with-discriminator", start_from=mse),
        FLOW: flow,
    }


def further(setting: Setting) -> dict[str, TrainConfig]:
    """The further trainings of one seed, from section 4.3, the supplement and the released code.

    Each changes one thing of one of :func:`trainings` (:data:`AGAINST`); errors as there.
    """
    plain = trainings(setting)
    mse, adv = plain[MSE], plain[ADV]

    def generator(**changes) -> TrainConfig:
        return replace(mse, generator=replace(mse.generator, **changes))

    def reading(word: str) -> TrainConfig:
        return replace(mse, data=replace(mse.data, reading=word))

    def habit(config: TrainConfig, word: str) -> TrainConfig:
        followed = tuple(other for other in config.habits if other != word)
        return replace(config, habits=(*followed, word))

    return {
        NO_RESIDUAL: generator(residual_channels=0),
        NO_SHORTCUT: generator(predicts="flow"),
        WEIGHTED: generator(attention=True),
        SEQUENCE: generator(networks=2),
        PWC_SIZE: generator(widths=(128, 128, 96, 64, 32)),
        ACCUMULATED: reading("accumulated"),
        SUBPIXEL: reading("subpixel"),
        # Vectors and flow are mirrored alike, so their flow classifier must be, too.
        KEEP_DX: replace(habit(mse, "keep-dx"), start_from=habit(plain[FLOW], "keep-dx")),
        BLOCK_TARGET: habit(mse, "block-target"),
        IN_TURNS: habit(adv, "classifier-with-discriminator"),
    }


def _schedule(setting: Setting) -> dict[str, dict]:
    if setting.schedule == "short":
        return schedules.short(setting.flow_epochs, setting.stage_epochs)
    check_word("schedule", setting.schedule, ["short", *schedules.RELEASED])
    return schedules.RELEASED[setting.schedule]


def _published(network: str, setting: Setting) -> str | None:
    """The file of the network's published weights, if the setting wants one and it is there."""
    if setting.imagenet == "none":
        return None
    file = weights.find_published(network, setting.imagenet)
    return None if file is None else str(file)


def starting_weights(setting: Setting) -> str:
    """One sentence per network: which weights the classifiers of these trainings start from."""
    files = {c.network: c.initial for c in trainings(setting).values() if c.start_from is None}
    sentences = []
    for network, file in files.items():
        if file is not None:
            sentences.append(f"{network} starts from published weights, {Path(file).name}.")
        elif setting.imagenet == "none":
            sentences.append(f"{network} starts from random weights, as this profile asks.")
        else:
            sentences.append(
                f"{network} starts from RANDOM weights: no {weights.PUBLISHED[network]} was found "
                f"(imagenet = {setting.imagenet!r}), and nothing is downloaded automatically."
            )
    return "\n".join(sentences)


def data_title(clips: DataConfig) -> str:
    """The data set in a few words, for titles and results."""
    name = clips.open().name
    if clips.prepared is not None or clips.corpus != "folder":
        return f"{name} split {clips.split_number}"
    return name if clips.folder is None else f"{name} {Path(clips.folder).resolve().parent.name}"


# --- a generator that is kept with the results --------------------------------------------------


def generator_file(profile: str) -> Path:
    """The file of :func:`save_generator`."""
    return paths.RESULTS / profile / "06_generator.safetensors"


def save_generator(config: TrainConfig, profile: str) -> Path:
    """Keep a training's generator, without its classifier, in ``results/<profile>``: some 20 kB.

    Raises:
        CheckpointError: ``config`` has not been trained.
    """
    path = generator_file(profile)
    note = {"data": config.data.open().name, "height": str(config.data.scaled_to or 0)}
    weights.write(training.load_networks(config).generator.state_dict(), path, note)
    return path


def load_generator(profile: str) -> tuple[models.DenseGenerator, int | None, str]:
    """What :func:`save_generator` kept: the generator in evaluation mode, height and data set.

    To that height, px, frames were scaled in its training; None: they were not.

    Raises:
        CheckpointError: the file is missing, damaged or without that height.
    """
    path, remedy = generator_file(profile), f"dmc reproduce {profile} --only 06"
    if not path.exists():
        raise CheckpointError(f"no generator of profile {profile} is trained: {remedy} makes one.")
    generator, note = models.DenseGenerator().eval(), weights.read_note(path)
    weights.load(generator, path)
    height = note.get("height", "")
    if not height.isdecimal():
        raise CheckpointError(
            f"{path} does not say the height of the frames that it was trained on: write it again "
            f"with {remedy}."
        )
    return generator, int(height) or None, note.get("data", "unnamed videos")


# --- tables -------------------------------------------------------------------------------------


def pooled(runs: Run) -> training.Scores:
    """The test scores of a training, or of one training per split, one after the other.

    The numbers of clips continue from split to split; a video that two splits test counts twice.
    """
    before, parts = 0, []
    for config in [runs] if isinstance(runs, TrainConfig) else runs:
        scores = training.load_scores(config)
        parts.append({**vars(scores), "clip": scores.clip + before})
        before += int(scores.clip.max()) + 1
    return training.Scores(**{name: torch.cat([p[name] for p in parts]) for name in parts[0]})


def frames_right(runs: Run) -> tuple[np.ndarray, np.ndarray]:
    """Which test frames a training gets right, bool (n,), and each frame's clip, int (n,)."""
    scores = pooled(runs)
    return scores.right.numpy(), scores.clip.numpy()


def clips_right(runs: Run) -> np.ndarray:
    """Which test clips the mean of their frames' scores gets right, bool (clips,)."""
    scores = pooled(runs)
    clips, labels = scores.clip.numpy(), scores.label.numpy()
    first = np.unique(clips, return_index=True)[1]
    means = evaluation.video_scores(scores.logits.numpy(), clips)
    return means.argmax(1) == labels[first]


def table(runs: Mapping[str, Sequence[Run]]) -> list[dict]:
    """One row per variant: frame and clip accuracy over seeds, each with its interval.

    Args:
        runs: variant -> its finished trainings, one per seed, in the same order for every variant;
            if splits are pooled, per seed a sequence of trainings, one per split.

    Returns:
        Rows with ``variant``; ``accuracy``, ``low``, ``high``, ``n`` of single frames;
        ``clip_accuracy``, ``clip_low``, ``clip_high``, ``clips`` of whole clips; ``seeds``; and
        ``epe_px``, the mean end-point error, against flow, of what the classifier saw.
        Intervals are 95 % and from a bootstrap over clips and seeds.
    """
    rows = []
    for variant, configs in runs.items():
        right = [frames_right(config) for config in configs]
        frames, clip = np.stack([r for r, _ in right]), right[0][1]
        whole = np.stack([clips_right(config) for config in configs])
        errors = torch.stack([pooled(config).epe_px for config in configs]).mean().item()
        intervals = (
            evaluation.clustered_interval(frames, clip),
            evaluation.clustered_interval(whole, np.arange(whole.shape[1])),
        )
        row = _row(variant, *zip((frames, whole), intervals, strict=True))
        rows.append(row | {"seeds": len(configs), "epe_px": None if np.isnan(errors) else errors})
    return rows


def _row(variant: str, *accuracies: tuple[np.ndarray, tuple[float, float]]) -> dict:
    """A row of :func:`table`: right answers and their interval, of frames and then of clips."""
    row = {"variant": variant}
    for (right, interval), prefix, count in zip(
        accuracies, ("", "clip_"), ("n", "clips"), strict=True
    ):
        columns = (f"{prefix}accuracy", f"{prefix}low", f"{prefix}high", count)
        values = (float(right.mean()), *interval, right.shape[-1])
        row |= dict(zip(columns, values, strict=True))
    return row


def metadata(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    """Features of a split's files, without their pictures: (clips, 6), and the labels (clips,).

    Width, height, frames per second, frames, bytes and bytes per frame of the published file, or of
    the prepared clip. A classifier that does well on these knows how a data set was made, not what
    it shows.
    """
    rows, clips = [], dataset.clips(split)
    for clip in clips:
        if clip.source == clip.path:
            dataset.make(clip)
        info, size = codec.probe(clip.source), clip.source.stat().st_size
        rows.append([info.width, info.height, info.fps, info.frames, size, size / info.frames])
    return torch.tensor(rows, dtype=torch.float32), torch.tensor([clip.label for clip in clips])


def metadata_row(*splits: DataConfig) -> dict:
    """The row of a linear classifier that knows only the files' metadata; splits are pooled."""
    right = []
    for clips in splits:
        parts = [metadata(clips.open(), split) for split in ("train", "test")]
        right.append(evaluation.metadata_baseline(*(x.numpy() for part in parts for x in part)))
    right = np.concatenate(right)
    share = right, evaluation.wilson_interval(int(right.sum()), len(right))
    return _row(METADATA, share, share) | {"seeds": 1, "epe_px": None}


def differences(runs: Mapping[str, Sequence[Run]], pairs: Sequence[tuple[str, str]]) -> list[dict]:
    """The gain in frame accuracy of the first of each pair over the second, with intervals.

    ``says`` is "no difference seen" if the 95 % interval contains zero.
    """
    rows = []
    for better, worse in pairs:
        right = [[frames_right(config) for config in runs[name]] for name in (better, worse)]
        a, b = (np.stack([r for r, _ in side]) for side in right)
        gain, low, high = evaluation.paired_difference(a, b, right[0][0][1])
        says = "no difference seen" if low <= 0 <= high else f"{better if gain > 0 else worse} wins"
        rows.append(
            {"a": better, "b": worse, "a - b": gain, "low": low, "high": high, "says": says}
        )
    return rows
