"""Weights on disk: safetensors, never pickle, whole or not at all."""

from pathlib import Path

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
            f"{path} is not a readable safetensors file ({problem}); delete it and {remedy}."
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
        raise CheckpointError(f"{path} is not a readable safetensors file ({problem}).") from None


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Put weights that came from ``path`` into ``network``.

    Raises:
        CheckpointError: if a name or a shape does not fit.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as problem:
        raise CheckpointError(f"{path} holds another architecture: {problem}") from None
