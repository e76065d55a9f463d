"""Epochs and learning rates of the released runs: CoViAR's streams and DMC-Net's two stages.

From CoViAR's and the authors' code and run scripts, by data set, then by stream; ``cls``, ``mse``
and ``adv`` are the stages of the cue. The flow classifier's schedule is stated nowhere: it gets
that of the vectors' stream, which is the same network on the same kind of input. Each entry holds
fields of :class:`dmclib.training.TrainConfig`, and the ``reading`` of its data.
"""

from dataclasses import replace

from dmclib.losses import LossWeights

# CoViAR starts from ImageNet weights; layers that are new learn faster (its train.py).
_ALL = {"eps": 1e-3}
_FLOW = _ALL | {"clips_per_batch": 80, "first_layer_lr": 0.1, "body_lr": 0.01}
_MOTION = _FLOW | {"reading": "accumulated"}  # CoViAR's streams; DMC-Net's runs read "plain"
_PICTURE = {**_ALL, "network": "resnet152", "clips_per_batch": 40, "lr": 3e-4}
_PICTURE |= {"first_layer_lr": 0.01, "body_lr": 0.01}
# The classifier already knows flow and learns a hundred times more slowly than the generator.
_STAGE = _ALL | {"epochs": 50, "steps": (20, 35, 45), "lr": 1e-4, "generator_lr": 1e-2}
_FIRST = _STAGE | {"clips_per_batch": 45, "frozen_epochs": 1}
_STAGES = {
    "cls": _FIRST,
    "mse": _FIRST | {"weights": LossWeights(reconstruction=10.0)},
    "adv": _STAGE
    | {
        "clips_per_batch": 30,
        "discriminator_lr": 1e-2,
        "weights": LossWeights(reconstruction=10.0, adversarial=1.0, discriminator=0.01),
    },
}
_HMDB51 = {"epochs": 360, "steps": (120, 200, 280), "lr": 5e-3}
_UCF101 = {"epochs": 510, "steps": (150, 270, 390)}

# The I3D runs: batches of 96 clips, three at a time; rates fall to a fifth after as many clips as
# 10, 17 ... epochs of HMDB-51 have; the classifier is frozen for six epochs.
_I3D = {
    "epochs": 50,
    "steps": (10, 17, 24, 31, 38, 45),
    "falls_to": 0.2,
    "clips_per_batch": 96,
    "micro_batches": 32,
    "lr": 4e-4,
    "body_lr": 0.5,
    "first_layer_lr": 0.5,
}
_I3D_STAGE = _I3D | {"generator_lr": 4e-4, "frozen_epochs": 6}

RELEASED: dict[str, dict[str, dict]] = {
    "i3d": {
        **dict.fromkeys(("rgb", "motion", "residual", "flow"), _I3D),
        "cls": _I3D_STAGE,
        "mse": _I3D_STAGE | {"weights": LossWeights(reconstruction=10.0)},
        "adv": _I3D_STAGE
        | {
            "discriminator_lr": 2e-3,
            "discriminator_depth": 1,
            "weights": LossWeights(reconstruction=10.0, adversarial=1.0),
        },
    },
    "hmdb51": {
        "rgb": _PICTURE | {"epochs": 220, "steps": (55, 110, 165)},
        "motion": _MOTION | _HMDB51,
        "residual": _MOTION | {"epochs": 300, "steps": (120, 180, 240), "lr": 1e-3},
        "flow": _FLOW | _HMDB51,
        **_STAGES,
    },
    "ucf101": {
        "rgb": _PICTURE | _UCF101,
        "motion": _MOTION | _UCF101 | {"lr": 1e-2},
        "residual": _MOTION | _UCF101 | {"lr": 5e-3},
        "flow": _FLOW | _UCF101 | {"lr": 1e-2},
        **_STAGES,
    },
}


def short(
    flow_epochs: int, alone_epochs: int, stage_epochs: int, *, alpha: float, adversarial: float
) -> dict[str, dict]:
    """Our own, for small data sets and random weights: one cycle of rates, batches of 20 frames.

    Each frame of a batch is of another clip and has a loss of its own; three frames of a clip whose
    logits are averaged before the loss, as TSN and the paper have it, learn more slowly for the
    same work. A baseline has as many epochs as flow classifier and ``cls + MSE`` together, so that
    it does not lose for lack of training. The generator learns from L_mse alone first (``alone``),
    which costs no classifier's time; without such epochs it learns alone in the first epoch of its
    stage, if there are more. ``alpha`` and ``adversarial`` are the factors of equation 4.
    """
    frames = {"segments": 1, "clips_per_batch": 20}
    baseline = frames | {"epochs": flow_epochs + stage_epochs}
    # The classifier already knows flow; a generator that is new has more to learn.
    stage = frames | {"epochs": stage_epochs, "lr": 3e-4, "generator_lr": 2e-3}
    new = stage | {"generator_lr": 5e-3, "frozen_epochs": int(stage_epochs > 1)}
    taught = LossWeights(reconstruction=alpha)
    schedule = {
        "rgb": baseline,
        "motion": baseline,
        "residual": baseline,
        "flow": frames | {"epochs": flow_epochs},
        "cls": new,
        "mse": (stage if alone_epochs else new) | {"weights": taught},
        # The discriminator of the I3D runs, and its rate: with three convolutions a stage, each
        # with a dropout, it was at half right still after 90 steps, and that is all there are.
        "adv": stage
        | {
            "discriminator_depth": 1,
            "discriminator_lr": 2e-3,
            "weights": replace(taught, adversarial=adversarial),
        },
    }
    if alone_epochs:
        # With a factor of 1, L_mse is so small that the decay of weights outweighs it at the end.
        mse_alone = LossWeights(classification=0.0, reconstruction=100.0)
        alone = {"epochs": alone_epochs, "generator_lr": 5e-3, "weights": mse_alone}
        schedule["alone"] = frames | alone
    return schedule
