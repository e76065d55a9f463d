"""The comparison of section 4.3: which trainings it takes, and the table that they give.

Every variant of one seed sees the same clips, crops and number of passes, so that only what the
classifier looks at, and what taught the generator, is different.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmclib import codec, evaluation, training
from dmclib.config import TrainConfig
from dmclib.data import DataConfig, Dataset
from dmclib.losses import LossWeights

SINGLE_FRAME = "one decoded frame"
MOTION = "motion vectors"
RESIDUAL = "residual"
FLOW = "optical flow"
CLS = "DMC: cls"
MSE = "DMC: cls + MSE"
LONGER = "DMC: cls + MSE, longer"
ADV = "DMC: cls + MSE + adv"
METADATA = "file metadata"

# The released runs give lambda 1 at 224 px and thousands of steps. Ours is a tenth, untuned, so
# that a discriminator with few steps behind it cannot outweigh the class loss.
ADVERSARIAL = 0.1


def variants(
    clips: DataConfig, *, seed: int, size: int, flow_epochs: int, stage_epochs: int
) -> dict[str, TrainConfig]:
    """The trainings of one seed, by name: baselines, the flow classifier, the three DMC variants.

    The stages are the paper's and the released code's: the flow classifier first; from it ``cls``
    and ``cls + MSE``; from the latter the adversarial stage. Beside that, ``cls + MSE, longer``
    goes on for as many epochs without the term, so that term and time can be told apart. A baseline
    is trained for as many epochs as ``cls`` and ``cls + MSE`` have in all, so that it does not lose
    for want of them; the flow classifier, which is the teacher, has its ``flow_epochs``.

    Args:
        clips: which clips and frames.
        seed: of weights, order, crops and flips.
        size: side of the crop, px.
        flow_epochs: passes of the flow classifier.
        stage_epochs: passes of each stage after it.
    """
    alone = {"data": clips, "seed": seed, "size": size, "epochs": flow_epochs + stage_epochs}
    flow = TrainConfig(stream="flow", **alone | {"epochs": flow_epochs})

    def stage(start_from: TrainConfig, weights: LossWeights) -> TrainConfig:
        # The generator is new and learns fast; the classifier already knows flow and follows.
        return TrainConfig(
            stream="cue",
            start_from=start_from,
            weights=weights,
            lr=3e-4,
            generator_lr=5e-3,
            **alone | {"epochs": stage_epochs},
        )

    mse = stage(flow, LossWeights(reconstruction=10.0))
    return {
        SINGLE_FRAME: TrainConfig(stream="rgb", **alone),
        MOTION: TrainConfig(stream="motion", **alone),
        RESIDUAL: TrainConfig(stream="residual", **alone),
        CLS: stage(flow, LossWeights()),
        MSE: mse,
        LONGER: stage(mse, LossWeights(reconstruction=10.0)),
        ADV: stage(mse, LossWeights(reconstruction=10.0, adversarial=ADVERSARIAL)),
        FLOW: flow,
    }


def about(clips: DataConfig) -> str:
    """The data set in a few words, for titles and results."""
    name = clips.open().name
    if clips.prepared is not None:
        return f"{name} split {clips.split_number}"
    return name if clips.folder is None else f"{name} {Path(clips.folder).resolve().parent.name}"


def frames_right(config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which test frames a training calls right, bool (n,), and each frame's clip, int (n,)."""
    scores = training.load_scores(config)
    return (scores.logits.argmax(1) == scores.label).numpy(), scores.clip.numpy()


def clips_right(config: TrainConfig) -> np.ndarray:
    """Which test clips are called right by the mean of their frames' scores, bool (clips,)."""
    scores = training.load_scores(config)
    clips, labels = scores.clip.numpy(), scores.label.numpy()
    first = np.unique(clips, return_index=True)[1]
    means = evaluation.video_scores(scores.logits.numpy(), clips)
    return means.argmax(1) == labels[first]


def table(runs: Mapping[str, Sequence[TrainConfig]]) -> list[dict]:
    """One row a variant: frame and clip accuracy over seeds, each with its interval.

    Args:
        runs: variant -> its finished trainings, one a seed, in the same order for every variant.

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
        errors = torch.stack([training.load_scores(c).epe_px for c in configs]).mean().item()
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


def metadata_row(clips: DataConfig) -> dict:
    """The row of a linear classifier that is told nothing but the files' metadata."""
    dataset = clips.open()
    train, labels = metadata(dataset, "train")
    test, test_labels = metadata(dataset, "test")
    right = evaluation.metadata_baseline(*(x.numpy() for x in (train, labels, test, test_labels)))
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


def differences(
    runs: Mapping[str, Sequence[TrainConfig]], pairs: Sequence[tuple[str, str]]
) -> list[dict]:
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
