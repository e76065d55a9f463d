"""What is right and what is wrong with this installation: one sentence per check."""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dmclib import paths
from dmclib.files import write_text

TORCHVISION_OF = {"2.10": "0.25", "2.11": "0.26", "2.12": "0.27", "2.13": "0.28", "2.14": "0.29"}
INSTALL = "run `make reproduce` or `make test` in a fresh clone, or install requirements.lock"
CACHE_GB = 5  # more than the laptop profile's clips, flow and checkpoints take


class Finding(NamedTuple):
    """One sentence about the installation; ``fail`` means that something will not work."""

    state: Literal["ok", "warn", "fail"]
    sentence: str


def examine() -> Iterator[Finding]:
    """Check each part in turn; a part that cannot be loaded is a finding too."""
    for check in (
        _python,
        _torch,
        _ffmpeg,
        _vectors,
        _tvl1,
        _fast,
        _gpu,
        _cache,
        _scores,
        _weights,
        _lock,
    ):
        yield _safely(check)


def _safely(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a broken library may raise anything
        part = check.__doc__.rstrip(".")
        return Finding("fail", f"{part}: {type(error).__name__}: {error}. To repair, {INSTALL}.")


def _python() -> Finding:
    """Python."""
    return Finding("ok", f"Python {sys.version.split()[0]} at {sys.executable}.")


def _torch() -> Finding:
    """The torch and torchvision pair."""
    import torch
    import torchvision

    pair = f"torch {torch.__version__} with torchvision {torchvision.__version__}"
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # raises where they do not match
    wanted = TORCHVISION_OF.get(".".join(torch.__version__.split(".")[:2]))
    if wanted is None:
        return Finding("warn", f"{pair}: they load together, but this pair is not one we know.")
    if not torchvision.__version__.startswith(f"{wanted}."):
        return Finding("fail", f"{pair}: torchvision {wanted} belongs to it; {INSTALL}.")
    return Finding("ok", f"{pair}: a matched pair.")


def _ffmpeg() -> Finding:
    """PyAV and its FFmpeg libraries."""
    import av

    names = ("libavcodec", "libavformat", "libavutil")
    versions = (f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in names)
    return Finding("ok", f"PyAV {av.__version__} brings FFmpeg's {', '.join(versions)}.")


def _vectors() -> Finding:
    """Motion vectors of a clip encoded just now."""
    from dmclib import codec

    noise = np.random.default_rng(0).integers(0, 256, size=(64, 96, 3), dtype=np.uint8)
    texture = noise.repeat(2, axis=0).repeat(2, axis=1)  # 128 x 192: grain that survives encoding
    shift = 4  # px to the right from frame to frame
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "moving.mp4"
        codec.encode([np.roll(texture, shift * t, axis=1) for t in range(6)], clip)
        motion = np.stack([f.motion for f in codec.read_frames(clip) if not f.is_key])
    dx, dy = np.median(motion[:, 0]), np.median(motion[:, 1])
    if (dx, dy) != (shift, 0):
        problem = "this PyAV does not export the vectors this package needs"
        found = f"a texture moved {shift} px right reads as ({dx:g}, {dy:g}) px"
        return Finding("fail", f"{found}: {problem}; {INSTALL}.")
    return Finding("ok", f"motion vectors are exported: {shift} px right reads as dx = {dx:+g}.")


def _tvl1() -> Finding:
    """OpenCV with TV-L1 flow."""
    builds = [name for name in _installed() if re.fullmatch(r"opencv-(contrib-)?python.*", name)]
    if not builds:
        remedy = "pip install opencv-contrib-python-headless"
        return Finding("fail", f"OpenCV is not installed: no clips are drawn, no flow; {remedy}.")
    if len(builds) > 1:
        remedy = "uninstall them all, then install opencv-contrib-python-headless alone"
        return Finding("fail", f"{' and '.join(builds)} overwrite each other: {remedy}.")
    import cv2

    cv2.optflow.DualTVL1OpticalFlow_create()
    return Finding("ok", f"TV-L1 flow is there: {builds[0]} {cv2.__version__}.")


def _fast() -> Finding:
    """The compiled generator."""
    from dmclib.errors import DMCError
    from dmclib.fast import cpu

    try:
        cpu.library()
    except DMCError as problem:
        return Finding("warn", f"generator: {problem}")
    return Finding("ok", "generator: compiled for this processor.")


def _gpu() -> Finding:
    """The GPU."""
    import torch

    if torch.cuda.is_available():
        return Finding("ok", f"GPU: {torch.cuda.get_device_name()}.")
    return Finding("ok", "GPU: none; the CPU is used.")


def _cache() -> Finding:
    """The cache folder."""
    try:
        write_text(paths.CACHE / "doctor.txt", "")
        (paths.CACHE / "doctor.txt").unlink()
    except OSError as error:
        problem = f"cannot be written to ({error}): set DMC_CACHE elsewhere"
        return Finding("fail", f"cache {paths.CACHE} {problem}.")
    free = shutil.disk_usage(paths.CACHE).free / 1e9
    if free < CACHE_GB:
        room = f"only {free:.1f} GB free of the {CACHE_GB} needed"
        remedy = "set DMC_CACHE to a larger disk"
        return Finding("warn", f"cache {paths.CACHE} is writable, but has {room}: {remedy}.")
    return Finding("ok", f"cache {paths.CACHE} is writable, {free:.0f} GB free.")


def _scores() -> Finding:
    """The authors' released scores."""
    command = "`dmc reproduce laptop --only 10` fuses them"
    if folder := paths.released_scores():
        return Finding("ok", f"released scores: in {folder}; {command}.")
    remedy = "clone facebookresearch/dmc-net, set DMC_RELEASED_SCORES to its exp_my"
    return Finding("ok", f"released scores: none, nothing needs them; {remedy}, and {command}.")


def _weights() -> Finding:
    """The authors' released weights."""
    from dmclib.released import protocol

    folder, tests = paths.released_weights(), "`dmc reproduce {} --released-weights {}` tests them"
    words = [word for word in protocol.RELEASES if folder and any(protocol.find(folder / word))]
    if words:
        commands = "; ".join(tests.format(word, folder / word) for word in words)
        return Finding("ok", f"released weights: in {folder}; {commands}.")
    remedy = "put the authors' checkpoints into FOLDER/hmdb51/split1 and so on, set "
    remedy += "DMC_RELEASED_WEIGHTS to FOLDER"
    command = tests.format("hmdb51", "FOLDER/hmdb51")
    return Finding("ok", f"released weights: none, nothing needs them; {remedy}, and {command}.")


def _lock() -> Finding:
    """Installed versions against requirements.lock."""
    lock = paths.ROOT / "requirements.lock"
    if not lock.is_file():
        return Finding("warn", f"{lock} is not there, so versions cannot be compared with it.")
    pinned = re.findall(r"^([a-z0-9-]+)==([^ ]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    installed = _installed()
    # A pinned package may belong to another platform or to an extra. A name may be pinned more
    # than once, each for its own Python or platform.
    allowed = {name: [v for n, v in pinned if n == name] for name, _ in pinned}
    differ = [
        f"{name} {installed[name]} (locked: {' or '.join(versions)})"
        for name, versions in allowed.items()
        if name in installed and installed[name] not in versions
    ]
    if differ:
        return Finding("warn", f"not as in requirements.lock: {', '.join(differ)}.")
    count = len(allowed.keys() & installed.keys())
    return Finding("ok", f"{count} installed packages are as requirements.lock pins them.")


def _installed() -> dict[str, str]:
    """Name as the lock spells it -> version, of every installed distribution."""
    everything = metadata.distributions()
    return {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in everything}
