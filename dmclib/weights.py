"""Weights on disk: ours in safetensors, never pickle, whole or not at all; ImageNet's as published.

torchvision publishes its weights as pickles. :func:`take_imagenet` reads them without running what
is in them, and only if the file is the one that its name says.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dmclib import files
from dmclib.errors import CheckpointError


def save(network: nn.Module, path: Path) -> None:
    """Write a network's weights."""
    write(network.state_dict(), path)


def load(network: nn.Module, path: Path) -> None:
    """Read weights into ``network``; every name and shape must fit.

    Raises:
        CheckpointError: if the file is missing, damaged, or of another architecture.
    """
    fill(network, read(path, remedy="train it again"), path)


def write(tensors: dict[str, Tensor], path: Path, note: dict[str, str] | None = None) -> None:
    """Write named tensors, and a note of plain text beside them."""
    with files.whole(path) as partial:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, partial, note)


def read(path: Path, *, remedy: str) -> dict[str, Tensor]:
    """Read named tensors; ``remedy`` says what to do where there is no such file.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path} is not there; {remedy}.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as problem:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({_what(path, problem)}); delete it and "
            f"{remedy}."
        ) from None


def read_note(path: Path) -> dict[str, str]:
    """The note that :func:`write` put beside the tensors; empty where there is none.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as handle:
            return handle.metadata() or {}
    except (SafetensorError, OSError) as problem:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({_what(path, problem)})."
        ) from None


def _what(path: Path, problem: Exception) -> str:
    try:
        with open(path, "rb") as handle:
            start = handle.read(2)
    except OSError:
        return str(problem)
    pickled = start == b"PK" or start[:1] == b"\x80"  # torch.save's archive; a bare pickle
    return "it is a pickle, which could run anything and is not opened" if pickled else str(problem)


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Put weights that came from ``path`` into ``network``.

    Raises:
        CheckpointError: if a name or a shape does not fit.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as problem:
        raise CheckpointError(f"{path} holds another architecture: {problem}") from None


# What the files are called that a classifier may start from: torchvision's ImageNet weights, and
# I3D's flow stream on Kinetics (clipnets.take_kinetics).
PUBLISHED = {
    "resnet18": "resnet18-????????.pth",
    "resnet152": "resnet152-????????.pth",
    "i3d": "flow_imagenet.pt",
}


def find_published(network: str, where: str = "auto") -> Path | None:
    """The file of a classifier's published weights, if it is at hand.

    Args:
        network: a key of :data:`PUBLISHED`.
        where: a folder that holds the file, or ``auto``: torch's own cache. Nothing is downloaded.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints" if where == "auto" else Path(where)
    found = sorted(folder.glob(PUBLISHED[network]))
    return found[-1] if found else None


def take_imagenet(network: nn.Module, path: Path) -> None:
    """Start a ResNet from ImageNet weights; its last layer stays as it was made.

    Where the first convolution takes other than three planes, each gets the mean over R, G and B
    (Wang et al., Temporal Segment Networks, ECCV 2016, 3.2: cross-modality pre-training).

    Args:
        network: as :func:`dmclib.models.motion_resnet18` makes it.
        path: torchvision's file, whose name ends with the start of its SHA-256.

    Raises:
        CheckpointError: the file is missing, damaged, of another network, or not what its name
            says.
    """
    try:
        with open(path, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        if not digest.startswith(path.stem.rsplit("-", 1)[-1]):
            raise CheckpointError(
                f"{path} is not the file that its name says (SHA-256 {digest[:8]}...): fetch it "
                "again."
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as problem:  # a damaged file can make the unpickler raise anything
        reason = " ".join(str(problem).split())[:200]
        raise CheckpointError(f"{path} cannot be read as ImageNet weights: {reason}") from None
    own = network.state_dict()
    # torchvision's oldest files lack the counters of batch normalisation.
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    if not isinstance(state, dict) or state.keys() | counters != own.keys():
        raise CheckpointError(f"{path} holds the weights of another network.")
    state = own | state | {name: own[name] for name in ("fc.weight", "fc.bias")}
    planes = own["conv1.weight"].shape[1]
    if planes != state["conv1.weight"].shape[1]:
        state["conv1.weight"] = (
            state["conv1.weight"].mean(1, keepdim=True).expand(-1, planes, -1, -1)
        )
    fill(network, state, path)
