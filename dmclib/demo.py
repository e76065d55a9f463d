"""Show any video beside the motion in its compressed form: a clip and a still.

Panels: the picture, motion vectors, residual, the cue and, on request, TV-L1 flow. All motion has
one colour scale, which both files print. Only the current frame is in memory.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
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
)
from dmclib.codec import CompressedFrame, pictures
from dmclib.codec.write import write_frames, writing
from dmclib.errors import DMCError, OutputError, VideoError
from dmclib.reproduce import profiles
from dmclib.training import TrainConfig
from dmclib.transforms import Sample

LONGEST = 600  # frames that are shown of a long video
# The first that this FFmpeg has is used; H.264 plays nearly everywhere.
_ENCODERS = {"libx264": {"crf": "18", "preset": "veryfast"}, "mpeg4": {"qmin": "2", "qmax": "5"}}
# Smaller, for a page that holds the video itself.
_SMALL = {"libx264": {"crf": "27", "preset": "slow"}, "mpeg4": {"qmin": "4", "qmax": "8"}}
_STRIP = 44  # px of titles above the panels
_PANEL = 256  # px, a panel's height
_GAP = 4  # px, white, to its right
_SCALES = (1, 2, 4, 8, 16)  # px per frame that may have full colour
_TOP = 3  # classes that are named


@dataclass(frozen=True)
class Weights:
    """A trained generator, and its classifier if that is at hand."""

    generator: models.DenseGenerator
    height: int | None  # px to which frames were scaled in training; None: they were not scaled
    says: str  # its origin, in a sentence
    networks: models.DMCNet | None = None
    config: TrainConfig | None = None  # of the classifier


@dataclass(frozen=True)
class Shown:
    """The result of :func:`show`."""

    clip: Path  # .mp4
    still: Path  # .png
    frames: int
    full_colour_px: float
    says: tuple[str, ...]  # sentences to print


def find_weights(profile: str = "laptop") -> Weights:
    """Find the weights of the DMC variant with all three losses.

    If the cache holds that training of the profile's notebook 06, they come with its classifier;
    else the generator is the one that the notebook kept in ``results/<profile>``.

    Raises:
        CheckpointError: there is neither, or the file is damaged.
        ProfileError: there is no such profile.
    """
    config = _config(profile)
    if config is not None and config.done:
        networks = training.load_networks(config)
        says = f"The cue is by the networks that profile {profile} trained in notebook 06."
        return Weights(networks.generator, config.data.scaled_to, says, networks, config)
    generator, height, dataset = experiment.load_generator(profile)
    says = f"The cue is by the generator in results/{profile}, trained on {dataset}."
    return Weights(generator, height, says)


def show(
    source: str | Path,
    out: str | Path | None = None,
    *,
    weights: Weights | None = None,
    with_flow: bool = False,
) -> Shown:
    """Write a video's panels side by side, as a clip and a still of a frame with much motion.

    A video that is not MPEG-4 Part 2 of GOP 12 is re-encoded to a temporary clip of 340x256, as the
    paper's are, and shown in its own shape. An I-frame has neither vectors nor residual: those of
    the frame before stay, as in CoViAR. The generator sees frames scaled to the height of its
    training; the cue is scaled back. Displacements are pixels of the clip.

    Args:
        source: any video that FFmpeg reads; of a long one, the first :data:`LONGEST` frames. It is
            never written to.
        out: folder for ``<name>-dmc.mp4`` (H.264 if this FFmpeg has it) and ``<name>-dmc.png``; by
            default ``<name>-dmc`` in the working folder.
        weights: of the cue (:func:`find_weights`); without them there is no such panel.
        with_flow: add a panel of TV-L1, which takes about a second per frame.

    Raises:
        VideoError: the source cannot be read.
        OutputError: a file cannot be written, or would replace the source.
        DMCError: flow is asked for and OpenCV's contrib build is not installed.
    """
    source, name = Path(source), f"{Path(source).stem}-dmc"
    first = next(codec.decode_rgb(source))
    out = Path(name if out is None else out)
    target, still = (out / f"{name}{suffix}" for suffix in (".mp4", ".png"))
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
        scale, best = _scale_and_still(clip, frames)
        panels = islice(panels_of(clip, weights, with_flow), frames)
        panels = tqdm(panels, source.name, frames, unit="frame", leave=False)
        rows = _rows(panels, scale, first.shape[1] / first.shape[0])
        written = _write(target, rows, Fraction(info.fps), still, best)
        if weights is not None:
            says += [weights.says, *_classes(clip, weights)]
    return Shown(target, still, written, scale, tuple(says))


def playable(source: str | Path, target: str | Path) -> Path:
    """Copy a video's pictures to ``target``, small, as a page may hold and a browser play them.

    H.264 if this FFmpeg has it. Of a long one, the first :data:`LONGEST` frames; sides must be
    even. Returns ``target``.

    Raises:
        VideoError: the source cannot be read, or its size cannot be encoded.
        OutputError: the file cannot be written, or would replace the source.
    """
    source, target = Path(source), Path(target)
    if target.exists() and os.path.samefile(target, source):
        raise OutputError(f"{target} is the video itself: give another name for the copy.")
    shown = islice(codec.decode_rgb(source), LONGEST)
    frames = (av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in shown)
    _encode(target, frames, Fraction(codec.probe(source).fps), _SMALL)
    return target


def _config(profile: str) -> TrainConfig | None:
    """The training that notebook 06 of a profile shows; None if its videos must be named first."""
    try:
        (step,) = profiles.plan(profile, only=["06"])
    except DMCError:
        if not (paths.PROFILES / f"{profile}.yaml").exists():
            raise
        return None
    given = profiles.defaults(step.notebook) | step.parameters
    setting = experiment.Setting.of(given | {"seed": given["seeds"][0]})
    return experiment.trainings(setting)[experiment.ADV]


def has_our_form(path: Path) -> bool:
    """Whether a file is MPEG-4 Part 2 of GOP 12, as the paper's are, and shown as it is stored.

    Its first picture alone is decoded, so B-frames and another size in its midst are not seen.

    Raises:
        VideoError: it cannot be read.
    """
    if codec.probe(path).codec != "mpeg4":
        return False
    keys = [packet.is_key for packet in codec.packets(path)]
    if keys != [n % data.GOP == 0 for n in range(len(keys))]:
        return False
    shown = next(codec.decode_rgb(path))
    try:
        (first,) = codec.read_at(path, [0])
    except VideoError:  # no index; if it is damaged, transcode says so
        return False
    return np.array_equal(first.rgb, shown)


def _is_ours(path: Path) -> bool:
    """Whether a file has our form in all of its frames that are shown, and one size."""
    if not has_our_form(path):
        return False
    frames = min(codec.probe(path).frames, LONGEST)
    try:
        first, *_ = codec.read_at(path, range(min(frames, data.GOP)))
        for number in range(data.GOP, frames, data.GOP):
            (frame,) = codec.read_at(path, [number])  # one by one: of a film they are large
            if frame.rgb.shape != first.rgb.shape:
                return False
    except VideoError:  # B-frames, or damage, of which transcode says more
        return False
    return True


def _scale_and_still(clip: Path, frames: int) -> tuple[float, int]:
    """Choose the colour scale, px, and the number of the frame for the still.

    The scale is the smallest of :data:`_SCALES` that few pixels exceed. The still is the frame with
    most motion among the half with smaller residuals, so that it is no cut to another scene.
    """
    if frames < 2:
        return _SCALES[0], 0
    sampled = codec.read_at(clip, data.segment_centers(frames, min(recognition.FRAMES, frames)))
    lengths = [np.hypot(*frame.motion)[::4, ::4] for frame in sampled]
    residuals = np.array([np.abs(frame.residual).mean() for frame in sampled])
    motions = np.mean(lengths, axis=(1, 2))
    best = np.where(residuals <= np.median(residuals), motions, -1).argmax()
    long = np.quantile(lengths, 0.95)
    return next((s for s in _SCALES if s >= long), _SCALES[-1]), sampled[best].index


Panels = dict[str, np.ndarray]  # title -> picture, motion or residual


def animate(
    frames: Iterable[Panels], target: Path, *, full_colour_px: float, fps: int = 10
) -> Path:
    """Write panels as a picture that moves (WebP), which README and web pages play by themselves.

    Args:
        frames: for each the panels by title, the first of them ``picture``; motion in pixels.
        target: ``.webp``.
        full_colour_px: displacement that has full colour.
        fps: frames per second.

    Raises:
        OutputError: it cannot be written.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = first["picture"].shape[:2]
    rows = _rows(chain([first], frames), full_colour_px, width / height)
    coded = (av.VideoFrame.from_ndarray(np.ascontiguousarray(row), format="rgb24") for row in rows)
    options = {"quality": "40", "compression_level": "6"}
    form = {"rate": Fraction(fps), "muxer": {"loop": "0"}}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_frames(coded, target, "libwebp_anim", options, **form)
    return target


def panels_of(clip: Path, weights: Weights | None, with_flow: bool = False) -> Iterator[Panels]:
    """Yield every frame's panels, at the clip's size; arguments as for :func:`show`."""
    cue_of = weights and fast.form(weights.generator)
    before: CompressedFrame | None = None
    panels: Panels = {}
    for frame in codec.read_frames(clip):
        if before is None or not frame.is_key:
            panels = {"motion vectors": frame.motion, "residual": frame.residual}
            if weights is not None:
                panels["DMC cue"] = cue(cue_of, weights.height, frame)
        row = {"picture": frame.rgb, **panels}
        if with_flow:
            row["TV-L1 flow"] = np.zeros_like(frame.motion)
            if before is not None:
                row["TV-L1 flow"] = flow.estimate(before.rgb, frame.rgb, method="tvl1")
        before = frame
        yield row


@torch.inference_mode()
def cue(generator, height: int | None, frame: CompressedFrame) -> np.ndarray:
    """Compute a generator's cue of a frame: float32 ``(2, H, W)``, px; zero for an I-frame.

    ``height``: to which frames were scaled in its training, px; None if they were not.
    """
    if frame.is_key:
        return frame.motion
    motion, residual = torch.from_numpy(frame.motion), torch.from_numpy(frame.residual)
    sample = Sample(motion[None], residual[None].float().clamp(-128, 127))
    sample = transforms.normalize(transforms.to_height(sample, height))
    cue = transforms.denormalize_motion(generator(sample.motion, sample.residual))
    return transforms.resize(Sample(cue, cue), frame.motion.shape[1:]).motion[0].numpy()


def _classes(clip: Path, weights: Weights) -> list[str]:
    """Sentences with the most likely classes, and what these mean."""
    if weights.networks is None:
        return ["Its classifier is not at hand, so no class is named."]
    dataset, crop = weights.config.data.open(), {"size": weights.config.size}
    try:
        scores = recognition.recognise(clip, weights.networks, **crop, height=weights.height)
    except DMCError as problem:
        return [f"No class is named: {problem}"]
    best = scores.softmax(dim=0).topk(min(_TOP, len(dataset.classes)))
    shares = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    named = ", ".join(f"{dataset.classes[k]} ({share:.0%})" for share, k in shares)
    return [
        f"Its classifier says {named}.",
        f"It was trained on {dataset.name} and knows only its {len(dataset.classes)} classes: for "
        "any other kind of video these names mean nothing.",
    ]


def _rows(frames: Iterable[Panels], scale: float, shape: float) -> Iterator[np.ndarray]:
    """Yield each frame's panels side by side under their titles: uint8 (H, W, 3), H and W even."""
    reformatter, strip = VideoReformatter(), None
    width = 2 * round(_PANEL * min(max(shape, 0.4), 2.5) / 2)
    for panels in frames:
        drawn = []
        for array in panels.values():
            panel = figures.to_rgb(array, full_colour_px=scale)
            panel = av.VideoFrame.from_ndarray(panel, format="rgb24")
            panel = pictures.to_rgb(reformatter.reformat(panel, width, _PANEL), reformatter)
            drawn.append(np.pad(panel, ((0, 0), (0, _GAP), (0, 0)), constant_values=255))
        if strip is None:
            rows, columns = panels["picture"].shape[:2]
            note = (
                f"motion: right red, down green, left cyan, up violet, full colour = {scale:g} px "
                f"per frame at {columns} x {rows}; residual: grey = 0, black to white = "
                f"±{figures.RESIDUAL_LEVELS}"
            )
            total = len(panels) * (width + _GAP)
            strip = figures.title_strip(list(panels), note, width=total, height=_STRIP)
        yield np.concatenate([strip, np.concatenate(drawn, axis=1)])


def _write(
    path: Path, pictures: Iterable[np.ndarray], fps: Fraction, still: Path, best: int
) -> int:
    """Write pictures as a video, number ``best`` as a still; return the number of pictures."""

    def frames() -> Iterator[av.VideoFrame]:
        for n, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if n == best:
                partial.write_bytes(_png(frame))
            yield frame

    with writing(still), files.whole(still) as partial:
        return _encode(path, frames(), fps, _ENCODERS)


def _encode(
    path: Path, frames: Iterator[av.VideoFrame], fps: Fraction, encoders: dict[str, dict[str, str]]
) -> int:
    name = next(name for name in encoders if name in av.codecs_available)
    muxer = {"movflags": "+faststart"}  # a browser begins to play before it has all
    form = {"rate": fps.limit_denominator(1001), "muxer": muxer, "threads": 0}
    return write_frames(frames, path, name, encoders[name], **form)


def _png(frame: av.VideoFrame) -> bytes:
    """An RGB frame as a PNG file; FFmpeg's writer of pictures takes a ``%d`` in a name for more."""
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb24"
    encoder.time_base = Fraction(1, 1)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
