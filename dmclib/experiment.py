"""The comparison of section 4.3: which trainings it takes, and the table that they give.

A notebook's parameters say which clips, which schedule, which of the released code's habits;
:func:`trainings` and :func:`further` make the named trainings of one seed from them. Every one of
them sees the same clips and crops, so that only what its name says is different.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmclib import codec, evaluation, machine, training, weights
from dmclib.data import DataConfig, Dataset
from dmclib.errors import DMCError
from dmclib.losses import LossWeights
from dmclib.training import CLIP_NETWORKS, HABITS, TrainConfig, schedules

SINGLE_FRAME = "one decoded frame"
MOTION = "motion vectors"
RESIDUAL = "residual"
FLOW = "optical flow"
CLS = "DMC: cls"
MSE = "DMC: cls + MSE"
LONGER = "DMC: cls + MSE, longer"
ADV = "DMC: cls + MSE + adv"
METADATA = "file metadata"

# What :func:`further` changes, each in one training (the flow classifier's too where it must), and
# the training of :func:`trainings` that it is to be held against.
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

Run = TrainConfig | Sequence[TrainConfig]  # a training, or one a split whose test clips are pooled

CLIP_FRAMES = 64  # that I3D sees of a clip, or all it has (RELEASED_CODE.md, section 3)

# The parameters of a notebook that its trainings follow from, beside ``seed``.
CLIPS = (
    *("data_folder", "corpus", "prepared_folder", "split_number"),
    *("train_clips", "validation_clips", "test_clips", "frames_per_clip"),
)
LEARNING = (
    *("size", "network", "schedule", "flow_epochs", "stage_epochs", "habits"),
    *("imagenet", "precision"),
)


def asked(parameters: Mapping) -> dict:
    """Those of a notebook's variables that its clips and trainings follow from, for its results."""
    return {name: parameters[name] for name in (*CLIPS, *LEARNING)}


def clips(parameters: Mapping) -> DataConfig:
    """The clips that a notebook's parameters ask for."""
    counts = [parameters[f"{split}_clips"] for split in ("train", "validation", "test")]
    return DataConfig(
        folder=parameters["data_folder"] or None,
        corpus=parameters["corpus"],
        prepared=parameters["prepared_folder"] or None,
        split_number=parameters["split_number"],
        clips_per_class=tuple(counts),
        frames_per_clip=parameters["frames_per_clip"],
    )


def trainings(parameters: Mapping) -> dict[str, TrainConfig]:
    """The trainings of one seed, by name: baselines, the flow classifier, the DMC variants.

    The stages are the paper's and the released code's: the flow classifier first; from it ``cls``
    and ``cls + MSE``; from the latter the adversarial stage. Beside that, ``cls + MSE, longer``
    goes on for as many epochs without the term, so that term and time can be told apart.

    Args:
        parameters: of a notebook, by name (:data:`CLIPS`, :data:`LEARNING`), and ``seed``.

    Raises:
        DMCError: a parameter has a value that there is not.
    """
    how = _schedule(parameters)
    habits = parameters["habits"]
    if wrong := [word for word in habits if word not in HABITS]:
        raise DMCError(f"habits has no {wrong[0]!r}; there are {', '.join(HABITS)}.")
    shared = {
        "data": clips(parameters),
        "seed": parameters["seed"],
        "size": parameters["size"],
        "precision": _precision(parameters["precision"]),
    }

    def made(stream: str, kind: str, *words: str, **more) -> TrainConfig:
        fields = {**shared, "network": parameters["network"], **how[kind], **more}
        reading = fields.pop("reading", "plain")
        fields["data"] = replace(fields["data"], reading=reading)
        if fields["network"] in CLIP_NETWORKS:
            fields["segments"] = min(CLIP_FRAMES, shared["data"].frames_per_clip)
        # I3D's published file is of its flow stream, and fits two planes alone.
        fits = fields["network"] != "i3d" or stream in ("motion", "flow")
        if "start_from" not in fields and fits:
            fields["initial"] = _initial(fields["network"], parameters["imagenet"])
        followed = tuple(word for word in words if word in habits)
        return TrainConfig(stream=stream, habits=followed, **fields)

    flip = "keep-dx"
    flow = made("flow", "flow", flip)
    first = {"start_from": flow}
    mse = made("cue", "mse", flip, "block-target", **first)
    without = replace(how["adv"]["weights"], adversarial=0.0)
    return {
        SINGLE_FRAME: made("rgb", "rgb"),
        MOTION: made("motion", "motion", flip),
        RESIDUAL: made("residual", "residual"),
        CLS: made("cue", "mse", flip, weights=LossWeights(), **first),
        MSE: mse,
        LONGER: made("cue", "adv", flip, weights=without, start_from=mse),
        ADV: made("cue", "adv", flip, "classifier-with-discriminator", start_from=mse),
        FLOW: flow,
    }


def further(parameters: Mapping) -> dict[str, TrainConfig]:
    """The further trainings of one seed that section 4.3 and the supplement raise, by name.

    Each is one of :func:`trainings` (:data:`AGAINST`) with one thing changed. Arguments as there.
    """
    plain = trainings(parameters)
    mse, adv = plain[MSE], plain[ADV]

    def generator(**changes) -> TrainConfig:
        return replace(mse, generator=replace(mse.generator, **changes))

    def reading(word: str) -> TrainConfig:
        return replace(mse, data=replace(mse.data, reading=word))

    def habit(config: TrainConfig, word: str) -> TrainConfig:
        return replace(config, habits=tuple({*config.habits, word}))

    return {
        NO_RESIDUAL: generator(residual_channels=0),
        NO_SHORTCUT: generator(predicts="flow"),
        WEIGHTED: generator(attention=True),
        SEQUENCE: generator(networks=2),
        PWC_SIZE: generator(widths=(128, 128, 96, 64, 32)),  # RELEASED_CODE.md, section 2
        ACCUMULATED: reading("accumulated"),
        SUBPIXEL: reading("subpixel"),
        # Vectors and flow are mirrored alike, so their teacher is, too.
        KEEP_DX: replace(habit(mse, "keep-dx"), start_from=habit(plain[FLOW], "keep-dx")),
        BLOCK_TARGET: habit(mse, "block-target"),
        IN_TURNS: habit(adv, "classifier-with-discriminator"),
    }


def beginnings(parameters: Mapping) -> str:
    """In a sentence a network: what the classifiers of these trainings start from."""
    networks = {}
    for config in trainings(parameters).values():
        if config.start_from is None:
            networks[config.network] = config.initial
    said = []
    for network, file in networks.items():
        if file is not None:
            said.append(f"{network} starts from published weights, {Path(file).name}.")
        elif parameters["imagenet"] == "none":
            said.append(f"{network} starts from random weights, as this profile asks.")
        else:
            said.append(
                f"{network} starts from RANDOM weights: no {weights.PUBLISHED[network]} was "
                f"found (imagenet = {parameters['imagenet']!r}), and nothing is downloaded unasked."
            )
    return "\n".join(said)


def _schedule(parameters: Mapping) -> dict[str, dict]:
    word = parameters["schedule"]
    if word == "short":
        return schedules.short(parameters["flow_epochs"], parameters["stage_epochs"])
    if word not in schedules.RELEASED:
        known = ", ".join(["short", *schedules.RELEASED])
        raise DMCError(f"schedule has no {word!r}; there are {known}.")
    return schedules.RELEASED[word]


def _precision(word: str) -> str:
    return ("bf16" if machine.has_bf16() else "float32") if word == "auto" else word


def _initial(network: str, where: str) -> str | None:
    file = None if where == "none" else weights.find_published(network, where)
    return None if file is None else str(file)


def about(clips: DataConfig) -> str:
    """The data set in a few words, for titles and results."""
    name = clips.open().name
    if clips.prepared is not None:
        return f"{name} split {clips.split_number}"
    if clips.corpus != "folder":
        return f"{name} split {clips.split_number}"
    return name if clips.folder is None else f"{name} {Path(clips.folder).resolve().parent.name}"


def pooled(runs: Run) -> training.Scores:
    """The test scores of a training, or of one training a split, one after the other.

    Clips are numbered on from split to split; a video that two splits test counts as two.
    """
    found = [training.load_scores(config) for config in _each(runs)]
    before = 0
    parts = []
    for scores in found:
        parts.append({**vars(scores), "clip": scores.clip + before})
        before += int(scores.clip.max()) + 1
    return training.Scores(**{name: torch.cat([p[name] for p in parts]) for name in parts[0]})


def frames_right(runs: Run) -> tuple[np.ndarray, np.ndarray]:
    """Which test frames a training calls right, bool (n,), and each frame's clip, int (n,)."""
    scores = pooled(runs)
    return (scores.logits.argmax(1) == scores.label).numpy(), scores.clip.numpy()


def clips_right(runs: Run) -> np.ndarray:
    """Which test clips are called right by the mean of their frames' scores, bool (clips,)."""
    scores = pooled(runs)
    clips, labels = scores.clip.numpy(), scores.label.numpy()
    first = np.unique(clips, return_index=True)[1]
    means = evaluation.video_scores(scores.logits.numpy(), clips)
    return means.argmax(1) == labels[first]


def _each(runs: Run) -> Sequence[TrainConfig]:
    return [runs] if isinstance(runs, TrainConfig) else runs


def table(runs: Mapping[str, Sequence[Run]]) -> list[dict]:
    """One row a variant: frame and clip accuracy over seeds, each with its interval.

    Args:
        runs: variant -> its finished trainings, one a seed, in the same order for every variant;
            where splits are pooled, a sequence of trainings a seed, one a split.

    Returns:
        Rows with ``variant``; ``accuracy``, ``low``, ``high``, ``n`` of single frames;
        ``clip_accuracy``, ``clip_low``, ``clip_high``, ``clips`` of whole clips; ``seeds``; and
        ``epe_px``, the mean end-point error against flow of what the classifier looked at.
        Intervals are 95 % and from a bootstrap over clips and seeds.
    """
    rows = []
    for variant, configs in runs.items():
        right = [frames_right(config) for config in configs]
        frames, clip = np.stack([r for r, _ in right]), right[0][1]
        whole = np.stack([clips_right(config) for config in configs])
        errors = torch.stack([pooled(config).epe_px for config in configs]).mean().item()
        low, high = evaluation.clustered_interval(frames, clip)
        clip_low, clip_high = evaluation.clustered_interval(whole, np.arange(whole.shape[1]))
        rows.append(
            {
                "variant": variant,
                "accuracy": float(frames.mean()),
                "low": low,
                "high": high,
                "n": frames.shape[1],
                "clip_accuracy": float(whole.mean()),
                "clip_low": clip_low,
                "clip_high": clip_high,
                "clips": whole.shape[1],
                "seeds": len(configs),
                "epe_px": None if np.isnan(errors) else errors,
            }
        )
    return rows


def metadata(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    """What a split's files say without being watched: features (clips, 6) and labels (clips,).

    Width, height, frames per second, frame count, bytes and bytes per frame of the published file,
    or of the prepared clip.
    A classifier that does well on these has found how a data set was made, not what is in it.
    """
    rows, clips = [], dataset.clips(split)
    for clip in clips:
        if clip.source == clip.path:
            dataset.make(clip)
        info, size = codec.probe(clip.source), clip.source.stat().st_size
        rows.append([info.width, info.height, info.fps, info.frames, size, size / info.frames])
    return torch.tensor(rows, dtype=torch.float32), torch.tensor([clip.label for clip in clips])


def metadata_row(*splits: DataConfig) -> dict:
    """The row of a linear classifier told nothing but the files' metadata; splits are pooled."""
    right = []
    for clips in splits:
        parts = [metadata(clips.open(), split) for split in ("train", "test")]
        right.append(evaluation.metadata_baseline(*(x.numpy() for part in parts for x in part)))
    right = np.concatenate(right)
    low, high = evaluation.wilson_interval(int(right.sum()), len(right))
    return {
        "variant": METADATA,
        "accuracy": float(right.mean()),
        "low": low,
        "high": high,
        "n": len(right),
        "clip_accuracy": float(right.mean()),
        "clip_low": low,
        "clip_high": high,
        "clips": len(right),
        "seeds": 1,
        "epe_px": None,
    }


def differences(runs: Mapping[str, Sequence[Run]], pairs: Sequence[tuple[str, str]]) -> list[dict]:
    """How much better, frame by frame, the first of each pair is than the second, with intervals.

    ``says`` is "no difference seen" where the 95 % interval holds zero.
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
