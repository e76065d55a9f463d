"""The trainings of section 4.3: the ladder of losses, and one change at a time.

A notebook's :class:`Setting` says which clips, which schedule and which of the released code's
habits; :func:`trainings` and :func:`further` give the named trainings of its seed. All of them see
the same clips and crops, so they differ only in what their names say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from dmclib import machine, weights
from dmclib.data import DataConfig
from dmclib.errors import DMCError
from dmclib.training import HABITS, TrainConfig, schedules
from dmclib.training.config import check_word

SINGLE_FRAME = "one decoded frame"
MOTION = "motion vectors"
RESIDUAL = "residual"
FLOW = "optical flow"
CLS = "DMC: cls"
ALONE = "DMC: MSE alone"
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
HALF_PIXELS = "motion vectors, sub-pixel"
DIS = "optical flow by DIS"
NOISE_MOTION = "scenes: noise, motion vectors"
NOISE_MSE = "scenes: noise, DMC: cls + MSE"
ALPHAS = {f"alpha: {alpha}": float(alpha) for alpha in (1, 10, 100, 1000)}
KEEP_DX = "released: flip keeps dx"
BLOCK_TARGET = "released: block-averaged target"
IN_TURNS = "released: D step moves classifier"
ACTORS_FLOW = "from drawn actors: optical flow"
ACTORS_MSE = "from drawn actors: DMC: cls + MSE"
AGAINST = {
    **dict.fromkeys([NO_RESIDUAL, NO_SHORTCUT, WEIGHTED, SEQUENCE, PWC_SIZE], MSE),
    **dict.fromkeys([ACCUMULATED, SUBPIXEL, *ALPHAS, NOISE_MSE, KEEP_DX, BLOCK_TARGET], MSE),
    **dict.fromkeys([HALF_PIXELS, NOISE_MOTION, DIS], MOTION),
    IN_TURNS: ADV,
    ACTORS_FLOW: FLOW,
    ACTORS_MSE: MSE,
}

# What the networks of ACTORS_FLOW and ACTORS_MSE have seen before: the laptop profile's clips, by
# its schedule.
ACTORS = {
    **{"data_folder": "", "corpus": "folder", "prepared_folder": "", "split_number": 1},
    **{"train_clips": 18, "validation_clips": 4, "test_clips": 30, "frames_per_clip": 6},
    **{"size": 64, "schedule": "short", "alpha": 100.0, "adversarial": 1.0},
    **{"flow_epochs": 18, "alone_epochs": 120, "stage_epochs": 10},
}

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
    alone_epochs: int
    stage_epochs: int
    alpha: float
    adversarial: float
    habits: Sequence[str]
    imagenet: str
    precision: str

    def __post_init__(self):
        for name in ("data_folder", "prepared_folder"):
            if getattr(self, name) is None:  # a profile's blank, by papermill without dmc reproduce
                raise DMCError(f"{name} has no value, and this profile needs one: name the folder.")

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

    First the flow classifier. From it ``cls``, and a generator that learns from L_mse alone in
    front of the classifier, which stays as it is. From both ``cls + MSE``; from that the
    adversarial stage. ``cls + MSE, longer`` is the control of that stage: as many epochs without
    the adversarial term. The released schedules have no stage ``alone``: their ``cls + MSE`` begins
    with a new generator.

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
            if setting.schedule == "short":
                values["clips_per_batch"] = 8  # of twelve frames and more, not of one
        # I3D's published weights are those of its flow stream and fit only two planes.
        if "start_from" not in values and (not is_i3d or stream in ("motion", "flow")):
            values["initial"] = _published(values["network"], setting)
        followed = tuple(word for word in habits if word in setting.habits)
        return TrainConfig(stream=stream, habits=followed, **values)

    flow = config("flow", "flow", "keep-dx")
    named = {
        SINGLE_FRAME: config("rgb", "rgb"),
        MOTION: config("motion", "motion", "keep-dx"),
        RESIDUAL: config("residual", "residual"),
        CLS: config("cue", "cls", "keep-dx", start_from=flow),
    }
    taught = ("keep-dx", "block-target")  # followed by what learns from L_mse
    if "alone" in schedule:
        named[ALONE] = config("cue", "alone", *taught, start_from=flow)
    mse = config("cue", "mse", *taught, start_from=named.get(ALONE, flow))
    no_adversary = replace(schedule["adv"]["weights"], adversarial=0.0)
    return named | {
        MSE: mse,
        LONGER: config("cue", "adv", "keep-dx", weights=no_adversary, start_from=mse),
        ADV: config("cue", "adv", "keep-dx", "classifier-with-discriminator", start_from=mse),
        FLOW: flow,
    }


def further(setting: Setting) -> dict[str, TrainConfig]:
    """The further trainings of one seed, from section 4.3, the supplement and the released code.

    Each changes one thing of one of :func:`trainings` (:data:`AGAINST`); errors as there. Those
    from drawn actors begin with what the same training became there (:data:`ACTORS`).
    """
    plain, actors = trainings(setting), trainings(replace(setting, **ACTORS))
    motion, mse, adv = plain[MOTION], plain[MSE], plain[ADV]

    def generator(**changes) -> TrainConfig:
        return _changed(mse, generator=replace(mse.generator, **changes))

    def reading(config: TrainConfig, word: str) -> TrainConfig:
        return _changed(config, data=replace(config.data, reading=word))

    def habit(config: TrainConfig, word: str) -> TrainConfig:
        followed = tuple(other for other in config.habits if other != word)
        return replace(config, habits=(*followed, word))

    def noise(config: TrainConfig) -> TrainConfig:
        """The config and every stage before it on clips without photographs."""
        before = config.start_from and noise(config.start_from)
        scenes = replace(config.data, scenes="noise")
        return replace(config, data=scenes, start_from=before)

    def flipped(config: TrainConfig) -> TrainConfig:
        """Vectors and flow are mirrored alike, so every stage before must be, too."""
        return replace(
            habit(config, "keep-dx"), start_from=config.start_from and flipped(config.start_from)
        )

    def weighed(alpha: float) -> TrainConfig:
        return replace(mse, weights=replace(mse.weights, reconstruction=alpha))

    blocks = habit(mse, "block-target")
    if mse.start_from.stream == "cue":
        blocks = replace(blocks, start_from=habit(mse.start_from, "block-target"))
    return {
        NO_RESIDUAL: generator(residual_channels=0),
        NO_SHORTCUT: generator(predicts="flow"),
        WEIGHTED: generator(attention=True),
        SEQUENCE: generator(networks=2),
        PWC_SIZE: generator(widths=(128, 128, 96, 64, 32)),
        ACCUMULATED: reading(mse, "accumulated"),
        SUBPIXEL: reading(mse, "subpixel"),
        HALF_PIXELS: reading(motion, "subpixel"),
        DIS: reading(motion, "dis"),
        **{name: weighed(alpha) for name, alpha in ALPHAS.items()},
        NOISE_MOTION: noise(motion),
        NOISE_MSE: noise(mse),
        KEEP_DX: flipped(mse),
        BLOCK_TARGET: blocks,
        IN_TURNS: habit(adv, "classifier-with-discriminator"),
        ACTORS_FLOW: replace(plain[FLOW], initial=None, start_from=actors[FLOW]),
        ACTORS_MSE: replace(mse, start_from=actors[MSE]),
    }


def _changed(config: TrainConfig, **changes) -> TrainConfig:
    """The config with changes, which its generator has had since it was new."""
    before = config.start_from
    if before is not None and before.stream == "cue":
        before = _changed(before, **changes)
    return replace(config, **changes, start_from=before)


def _schedule(setting: Setting) -> dict[str, dict]:
    if setting.schedule == "short":
        epochs = (setting.flow_epochs, setting.alone_epochs, setting.stage_epochs)
        return schedules.short(*epochs, alpha=setting.alpha, adversarial=setting.adversarial)
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
