"""Any video, side by side with what its compressed form knows of motion: a clip and a still.

Panels: the picture, motion vectors, residual, the cue and, if asked, TV-L1. All motion is on one
colour scale, which both files print. Nothing but the frame at hand is in memory.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor
from tqdm.auto import tqdm

from dmclib import (
    codec,
    data,
    experiment,
    fast,
    figures,
    files,
    flow,
    models,
    paths,
    recognition,
    training,
    transforms,
    weights,
)
from dmclib.codec import CompressedFrame, container
from dmclib.errors import CheckpointError, DMCError, OutputError, VideoError
from dmclib.reproduce import profiles
from dmclib.training import TrainConfig
from dmclib.transforms import Sample

LONGEST = 600  # frames that are shown; the rest of a long video is left out
GENERATOR = "06_generator.safetensors"  # in results/<profile>; notebook 06 writes it
# The first that this FFmpeg has; H.264 plays nearly everywhere.
_ENCODERS = {"libx264": {"crf": "18", "preset": "veryfast"}, "mpeg4": {"qmin": "2", "qmax": "5"}}
_STRIP = 44  # px of titles above the panels
_PANEL = 256  # px, a panel's height
_GAP = 4  # px, white, to its right
_SCALES = (1, 2, 4, 8, 16)  # px a frame that may have full colour
_TOP = 3  # classes that are named


@dataclass(frozen=True)
class Weights:
    """A trained generator, and the classifier it was trained with where that is at hand."""

    generator: models.DenseGenerator
    height: int | None  # px that frames were scaled to in its training; None: as they were
    says: str  # where it comes from, in a sentence
    networks: training.Networks | None = None
    config: TrainConfig | None = None  # the classifier's


@dataclass(frozen=True)
class Shown:
    """What :func:`show` made."""

    clip: Path  # .mp4
    still: Path  # .png
    frames: int
    full_colour_px: float
    says: tuple[str, ...]  # what there is to know about it, a sentence each


def find_weights(profile: str = "laptop") -> Weights:
    """Find the weights of the DMC variant with all three losses.

    Those of a training of this profile's notebook 06 that is in the cache come with its classifier;
    else there is the generator alone that the notebook kept in ``results/<profile>``.

    Raises:
        CheckpointError: there is neither, or the file is damaged.
        ProfileError: there is no such profile.
    """
    config = _config(profile)
    if config is not None and config.done:
        networks = training.load_networks(config)
        says = f"The cue is by the networks that profile {profile} trained in notebook 06."
        return Weights(networks.generator, config.data.scaled_to, says, networks, config)
    path = paths.RESULTS / profile / GENERATOR
    if not path.exists():
        raise CheckpointError(
            f"no generator of profile {profile} is trained: dmc reproduce {profile} --only 06 "
            "makes one."
        )
    generator, note = models.DenseGenerator(), weights.read_note(path)
    weights.load(generator, path)
    height, taught = note.get("height", ""), note.get("data", "unnamed videos")
    if not height.isdecimal():
        raise CheckpointError(
            f"{path} does not say the height of the frames that it was trained on: write it again "
            f"with dmc reproduce {profile} --only 06."
        )
    says = f"The cue is by the generator in results/{profile}, trained on {taught}."
    return Weights(generator.eval(), int(height) or None, says)


def save_generator(config: TrainConfig, profile: str) -> Path:
    """Keep a training's generator, without its classifier, where :func:`find_weights` looks.

    Returns:
        ``results/<profile>/06_generator.safetensors``, some 20 kB.

    Raises:
        CheckpointError: ``config`` has not been trained.
    """
    path = paths.RESULTS / profile / GENERATOR
    note = {
        "data": config.data.open().name,
        "height": str(config.data.scaled_to or 0),
    }
    weights.write(training.load_networks(config).generator.state_dict(), path, note)
    return path


def show(
    source: str | Path,
    out: str | Path | None = None,
    *,
    weights: Weights | None = None,
    with_flow: bool = False,
) -> Shown:
    """Write a video's panels side by side, as a clip and, of a frame with much motion, a still.

    A video that is not MPEG-4 Part 2 of GOP 12 already is re-encoded to a temporary clip of
    340x256, as the paper's are, and shown in its own shape. An I-frame has neither vectors nor
    residual: those of the frame before stay (so does CoViAR). The generator sees vectors and
    residual scaled to the height it was trained on; its cue is scaled back to the clip's size, its
    values with it. Displacements are pixels of the clip, which is 340x256 for most.

    Args:
        source: any video that FFmpeg reads; of a long one, the first :data:`LONGEST` frames.
        out: folder for both files, ``<name>-dmc.mp4`` (H.264 where this FFmpeg can) and
            ``<name>-dmc.png``; by default ``<name>-dmc`` in the working folder. The source itself
            is never written to.
        weights: of the cue (:func:`find_weights`); without any, its panel is left out.
        with_flow: adds a panel of TV-L1, about a second a frame.

    Raises:
        VideoError: the source cannot be read.
        OutputError: a file cannot be written, or would replace the source.
        DMCError: flow is asked for and OpenCV's contrib build is not installed.
    """
    source = Path(source)
    first = next(codec.decode_rgb(source))
    out = Path(f"{source.stem}-dmc" if out is None else out)
    target, still = (out / f"{source.stem}-dmc{suffix}" for suffix in (".mp4", ".png"))
    for path in (target, still):
        if path.exists() and os.path.samefile(path, source):
            raise OutputError(f"{path} is the video itself: give another folder with --out.")
    with tempfile.TemporaryDirectory() as folder:
        clip, says = source, []
        if not _is_ours(source):
            clip = Path(folder) / "clip.mp4"
            codec.transcode(source, clip, gop=data.GOP, frames=LONGEST)
        info = codec.probe(clip)
        frames = min(info.frames, LONGEST)
        if codec.probe(source).frames > LONGEST:
            says.append(f"The video is long: its first {LONGEST} frames are shown.")
        scale, best = _look_ahead(clip, frames)
        panels = islice(_panels(clip, weights, with_flow), frames)
        panels = tqdm(panels, source.name, frames, unit="frame", leave=False)
        rows = _rows(panels, scale, first.shape[1] / first.shape[0])
        written = _write(target, rows, Fraction(info.fps), still, best)
        if weights is not None:
            says += [weights.says, *_classes(clip, weights)]
    return Shown(target, still, written, scale, tuple(says))


# --- what is shown ------------------------------------------------------------------------------


def _config(profile: str) -> TrainConfig | None:
    """The training that notebook 06 of a profile shows; None where its videos must be named."""
    try:
        (step,) = profiles.plan(profile, only=["06"])
    except DMCError:
        if profile == "smoke" or not (paths.PROFILES / f"{profile}.yaml").exists():
            raise
        return None
    given = profiles.defaults(step.notebook) | step.parameters
    return experiment.trainings(given | {"seed": given["seeds"][0]})[experiment.ADV]


def _is_ours(path: Path) -> bool:
    """Whether vectors can be read from this file, as the paper's clips have them."""
    if codec.probe(path).codec != "mpeg4":
        return False
    keys = [packet.is_key for packet in codec.packets(path)]
    if keys != [n % data.GOP == 0 for n in range(len(keys))]:
        return False
    try:
        codec.read_at(path, range(min(len(keys), data.GOP)))
    except VideoError:  # of B-frames, or without an index; if it is damaged, transcode says so
        return False
    return True


def _look_ahead(clip: Path, frames: int) -> tuple[float, int]:
    """The colour scale, px, and the number of the frame for the still, from some of the frames.

    The scale is the first of a few round lengths that few pixels exceed. The still moves most among
    the half with the smaller residuals, so that it is no cut to another scene.
    """
    if frames < 2:
        return _SCALES[0], 0
    sampled = codec.read_at(clip, data.segment_centers(frames, min(recognition.FRAMES, frames)))
    lengths = [np.hypot(*frame.motion)[::4, ::4] for frame in sampled]
    long = np.quantile(lengths, 0.95)
    missed = np.array([np.abs(frame.residual).mean() for frame in sampled])
    moves = np.mean(lengths, axis=(1, 2))
    best = np.where(missed <= np.median(missed), moves, -1).argmax()
    scale = next((scale for scale in _SCALES if scale >= long), _SCALES[-1])
    return scale, sampled[best].index


Panels = dict[str, np.ndarray]  # title -> picture, motion or residual


def _panels(clip: Path, weights: Weights | None, with_flow: bool) -> Iterator[Panels]:
    """Every frame's panels, at the clip's size."""
    cue_of = weights and fast.generator(weights.generator)
    before: CompressedFrame | None = None
    panels: Panels = {}
    for frame in codec.read_frames(clip):
        if before is None or not frame.is_key:
            panels = {"motion vectors": frame.motion, "residual": frame.residual}
            if weights is not None:
                panels["DMC cue"] = _cue(cue_of, weights.height, frame)
        shown = {"picture": frame.rgb, **panels}
        if with_flow:
            moved = np.zeros_like(frame.motion)
            if before is not None:
                moved = flow.estimate(before.rgb, frame.rgb, method="tvl1")
            shown["TV-L1 flow"] = moved
        before = frame
        yield shown


@torch.inference_mode()
def _cue(generator, height: int | None, frame: CompressedFrame) -> np.ndarray:
    """The cue (2, H, W) in pixels of the frame; none where nothing is known of motion."""
    if frame.is_key:
        return frame.motion
    motion, residual = torch.from_numpy(frame.motion), torch.from_numpy(frame.residual)
    sample = Sample(motion[None], residual[None].float().clamp(-128, 127))
    rows, columns = frame.motion.shape[1:]
    if height is not None:
        sample = transforms.resize(sample, (height, round(columns * height / rows)))
    seen = transforms.normalize(sample)
    cue: Tensor = transforms.denormalize_motion(generator(seen.motion, seen.residual))
    return transforms.resize(Sample(cue, sample.residual), (rows, columns)).motion[0].numpy()


def _classes(clip: Path, weights: Weights) -> list[str]:
    """What the classifier calls the clip, and what that is worth."""
    if weights.networks is None:
        return ["It has no classifier beside it, so no class is named."]
    dataset = weights.config.data.open()
    try:
        scores = recognition.recognise(
            clip, weights.networks, size=weights.config.size, height=weights.height
        )
    except DMCError as problem:
        return [f"No class is named: {problem}"]
    best = scores.softmax(dim=0).topk(min(_TOP, len(dataset.classes)))
    named = [
        f"{dataset.classes[k]} ({share:.0%})"
        for share, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return [
        f"Its classifier says {', '.join(named)}.",
        f"It was trained on {dataset.name} and knows nothing but its {len(dataset.classes)} "
        "classes: of any other kind of video these names mean nothing.",
    ]


# --- files --------------------------------------------------------------------------------------


def _rows(frames: Iterable[Panels], scale: float, shape: float) -> Iterator[np.ndarray]:
    """Each frame's panels side by side under their titles, uint8 (H, W, 3), even H and W."""
    reformatter, strip = VideoReformatter(), None
    width = 2 * round(_PANEL * min(max(shape, 0.4), 2.5) / 2)
    for panels in frames:
        drawn = []
        for array in panels.values():
            panel = av.VideoFrame.from_ndarray(_draw(array, scale), format="rgb24")
            panel = container.to_rgb(reformatter.reformat(panel, width, _PANEL), reformatter)
            drawn.append(np.pad(panel, ((0, 0), (0, _GAP), (0, 0)), constant_values=255))
        if strip is None:
            rows, columns = panels["picture"].shape[:2]
            note = (
                f"motion: right red, down green, left cyan, up violet, full colour = {scale:g} px "
                f"per frame at {columns} x {rows}; residual: grey = 0, black to white = "
                f"±{figures.RESIDUAL_LEVELS}"
            )
            whole = len(panels) * (width + _GAP)
            strip = figures.title_strip(list(panels), note, width=whole, height=_STRIP)
        yield np.concatenate([strip, np.concatenate(drawn, axis=1)])


def _draw(array: np.ndarray, scale: float) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if len(array) == 2:
        return flow.flow_to_rgb(array, full_colour_px=scale)
    return figures.residual_to_rgb(array)


def _write(
    path: Path, pictures: Iterator[np.ndarray], fps: Fraction, still: Path, best: int
) -> int:
    """Write pictures as a video that plays nearly everywhere, and number ``best`` as a still.

    Both files appear whole, or neither does. Returns how many pictures there were.
    """
    name = next(name for name in _ENCODERS if name in av.codecs_available)
    count, fps = 0, fps.limit_denominator(1001)
    try:
        with (
            files.whole(path) as partial,
            files.whole(still) as partial_still,
            av.open(str(partial), "w", options={"movflags": "+faststart"}) as out,
        ):
            stream = out.add_stream(name, rate=fps, options=_ENCODERS[name])
            stream.pix_fmt = "yuv420p"
            for count, picture in enumerate(pictures, 1):
                if count == 1:
                    stream.height, stream.width = picture.shape[:2]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                if count == best + 1:
                    frame.save(str(partial_still))
                frame.pts, frame.time_base = count - 1, 1 / fps
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}). Make room, or give another folder."
        ) from error
    return count
