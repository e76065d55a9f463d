"""Weights on disk: ours in safetensors, whole or not at all; published ones as they come."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
        CheckpointError: the file is missing, damaged, or of another architecture.
    """
    fill(network, read(path, remedy="train it again"), path)


def write(tensors: dict[str, Tensor], path: Path, note: dict[str, str] | None = None) -> None:
    """Write named tensors, and with them a note of plain text."""
    with files.whole(path) as partial:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, partial, note)


def read(path: Path, *, remedy: str) -> dict[str, Tensor]:
    """Read named tensors; ``remedy`` says what to do if the file is missing or damaged.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path} is not there; {remedy}.")
    with _as_sentence(path, remedy):
        return load_file(path)


def read_note(path: Path) -> dict[str, str]:
    """Read the note that :func:`write` put with the tensors; empty if there is none.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    with _as_sentence(path, "make it again"), safe_open(path, "pt") as handle:
        return handle.metadata() or {}


@contextmanager
def _as_sentence(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as problem:
        start = b""
        with suppress(OSError), open(path, "rb") as handle:
            start = handle.read(2)
        pickled = start == b"PK" or start[:1] == b"\x80"  # torch.save's archive; a bare pickle
        found = "it is a pickle, which could run anything and is not opened" if pickled else problem
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({found}); delete it and {remedy}."
        ) from None


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Put weights that came from ``path`` into ``network``.

    Raises:
        CheckpointError: a name or a shape does not fit.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as problem:
        found = " ".join(str(problem).split())
        raise CheckpointError(
            f"{path} holds another architecture ({found}); give a file of this one."
        ) from None


def unpickle(path: Path, *, remedy: str) -> object:
    """Read what ``torch.save`` or safetensors wrote: tensors in plain containers, and no code.

    Raises:
        CheckpointError: the file is missing or damaged, or holds more than that.
    """
    try:
        pickled = path.suffix != ".safetensors"
        return torch.load(path, "cpu", weights_only=True) if pickled else load_file(path)
    except Exception as problem:  # a damaged file can make the unpickler raise anything
        found = getattr(problem, "strerror", None) or type(problem).__name__
        raise CheckpointError(f"{path} cannot be read as weights ({found}); {remedy}.") from None


def read_published(
    network: nn.Module, path: Path, *, remedy: str, names: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Read weights that others published for ``network``, without running what is in the file.

    Args:
        network: gives the names that must be in the file; it is not changed.
        path: what ``torch.save`` or safetensors wrote. Where its name ends with a dash and eight or
            more hexadecimal digits, as torchvision's do, its SHA-256 must begin with them.
        remedy: what to do where the file is not the right one.
        names: name in the file -> name in the network; by default they are the same.

    Returns:
        Name in the network -> tensor on the CPU, for every name; :func:`fill` checks the shapes.
        The counters of batch normalisation, which old files lack, may be the network's own.

    Raises:
        CheckpointError: the file is missing, damaged, not what its name says, or of another
            network.
    """
    promised = re.search(r"-([0-9a-f]{8,64})$", path.stem)
    if promised and path.is_file() and not (digest := files.sha256(path)).startswith(promised[1]):
        raise CheckpointError(
            f"{path} is not the file that its name says (SHA-256 {digest[:8]}...); {remedy}."
        )
    state = unpickle(path, remedy=remedy)
    own = network.state_dict()
    names = names or {name: name for name in own}
    state = state if isinstance(state, dict) else {}
    counters = {name for name in names if name.endswith("num_batches_tracked")}
    wrong = sorted((state.keys() | counters) ^ names.keys(), key=str)
    wrong = wrong or [name for name, tensor in state.items() if not isinstance(tensor, Tensor)]
    if wrong:
        raise CheckpointError(
            f"{path} holds the weights of another network ({wrong[0]!r} and {len(wrong) - 1} other "
            f"names do not fit); {remedy}."
        )
    return own | {names[name]: tensor for name, tensor in state.items()}


# Names of the files that a classifier may start from: torchvision's ImageNet weights, and I3D's
# flow stream on Kinetics (i3d.take_kinetics).
PUBLISHED = {
    "resnet18": "resnet18-????????.pth",
    "resnet152": "resnet152-????????.pth",
    "i3d": "flow_imagenet.pt",
}


def find_published(network: str, where: str = "auto") -> Path | None:
    """Find the file of a classifier's published weights; None if it is not at hand.

    ``network`` is a key of :data:`PUBLISHED`, ``where`` the folder of the file, or ``auto``:
    torch's own cache. Nothing is downloaded.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints" if where == "auto" else Path(where)
    return max(folder.glob(PUBLISHED[network]), default=None)


def take_imagenet(network: nn.Module, path: Path) -> None:
    """Start a ResNet from torchvision's ImageNet weights; its last layer stays as it was made.

    Where the first convolution takes other than three planes, each gets the mean over R, G and B
    (Wang et al., Temporal Segment Networks, ECCV 2016, 3.2: cross-modality pre-training).

    Raises:
        CheckpointError: as :func:`read_published`.
    """
    state, own = read_published(network, path, remedy="fetch it again"), network.state_dict()
    state |= {name: own[name] for name in ("fc.weight", "fc.bias")}
    if own["conv1.weight"].shape[1] != state["conv1.weight"].shape[1]:
        mean = state["conv1.weight"].mean(1, keepdim=True)
        state["conv1.weight"] = mean.expand_as(own["conv1.weight"])
    fill(network, state, path)
