"""The dense generator on the processor: ``dense_generator.c``, compiled when it is first needed.

It is compiled for this very processor and kept under :data:`dmclib.paths.CACHE`. All is float32:
bfloat16 would gain as much as Winograd's F(4, 3) does, and lose three digits.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dmclib import files, machine, paths
from dmclib.errors import DMCError

SOURCE = Path(__file__).with_name("dense_generator.c")
COMPILE_SECONDS = 60


class Stack:
    """A dense stack of 3x3 convolutions on torch's own threads (OpenMP), with torch's rules.

    Any thread may call it. A process forked after first use may use one thread only.

    Args:
        weights: of each layer, float32 (outputs, inputs, 3, 3), the inputs from the oldest map to
            the newest; the last layer has two outputs.
        biases: of each layer, float32 (outputs,).
        slope: of the LeakyReLU after all layers but the last.
        correction: add the motion to the last layer's output.

    Raises:
        DMCError: there is no C compiler, it fails, or there are too many layers.
    """

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], *, slope: float, correction: bool
    ):
        self._library = library()
        if len(weights) > (most := self._library.layers_at_most()):
            raise DMCError(
                f"the generator has {len(weights)} layers, and the C form {most} at most."
            )
        self._in_channels = weights[0].shape[1]
        self._weights = _in_points(weights, self._library.outputs_together())
        self._biases = torch.cat(list(biases))
        self._widths = torch.tensor([len(bias) for bias in biases], dtype=torch.int32)
        self._slope, self._correction = slope, correction
        # Kept for the next call of the same thread: new pages would cost as much as a layer.
        self._scratch = threading.local()

    def __call__(self, motion: Tensor, *residual: Tensor) -> Tensor:
        """Motion (N, 2, H, W), if any residual (N, C, H, W), contiguous -> cue (N, 2, H, W)."""
        count, _, height, width = motion.shape
        cue = torch.empty(count, 2, height, width)
        threads = torch.get_num_threads()
        # With too few pictures for the threads, each picture is cut into strips.
        strips = 1 if count % threads == 0 else min(threads, -(-height // 4))
        layers, widths = len(self._widths), self._widths.data_ptr()
        floats = self._library.scratch_floats(self._in_channels, layers, widths, width)
        scratch = getattr(self._scratch, "kept", None)
        if scratch is None or len(scratch) < threads * floats:
            scratch = self._scratch.kept = torch.empty(threads * floats)
        inputs = motion.data_ptr(), residual[0].data_ptr() if residual else None, self._in_channels
        stack = layers, widths, self._weights.data_ptr(), self._biases.data_ptr()
        sizes = count, height, width, strips, threads
        places = scratch.data_ptr(), cue.data_ptr()
        after = self._slope, self._correction
        self._library.dense_generator(*inputs, *stack, *after, *sizes, *places)
        return cue

    def trials(self) -> list[tuple[Callable[..., Tensor], tuple[int, int, int]]]:
        """This call, with a shape (N, H, W) to try it at."""
        return [(self, (1, 45, 70))]


def _in_points(weights: Sequence[Tensor], block: int) -> Tensor:
    """Weights in the order of ``dense_generator.c``, each column of three as its six points."""
    # Lavin and Gray (CVPR 2016), section 4, for the points 0, 1, -1, 2, -2 and infinity.
    to_points = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
    to_points = torch.tensor(to_points, dtype=torch.float64) / 24
    seen = [weight.shape[1] for weight in weights]  # channels before each layer
    blocks = []
    for number, end in enumerate(seen):
        begin = seen[number - 1] if number else 0
        later = torch.cat([weight[:, begin:end] for weight in weights[number:]]).double()
        points = torch.einsum("py,ocyx->pcxo", to_points, later)
        blocks += [part.flatten() for part in points.split(block, dim=3)]
    return torch.cat(blocks).float()


def compiled_path(suffix: str, *ingredients: object) -> Path:
    """Where a compiled form is kept, by a digest of all that it follows from."""
    digest = hashlib.sha256(repr(ingredients).encode()).hexdigest()[:16]
    return paths.CACHE / "compiled" / f"dense_generator-{digest}{suffix}"


@cache
def library() -> ctypes.CDLL:
    """The compiled form of ``dense_generator.c``; compiled now if it is not kept.

    Raises:
        DMCError: there is no C compiler, or it fails.
    """
    named = shlex.split(os.environ.get("CC", ""))
    command = named or [*filter(None, map(shutil.which, ("cc", "gcc", "clang")))][:1]
    if not command:
        raise DMCError(
            "there is no C compiler (cc, gcc or clang) for the fast generator: install one, or "
            "name it in CC. Until then PyTorch's own form is used, several times slower."
        )
    native = "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"
    command += ["-O3", native, "-fopenmp", "-shared", "-fPIC"]
    source = SOURCE.read_text(encoding="utf-8")
    path = compiled_path(".so", command, source, machine.describe()["cpu"])
    if not path.exists():
        with files.whole(path) as partial:
            _compile([*command, "-o", str(partial), str(SOURCE)])
    try:
        code = ctypes.CDLL(str(path))
    except OSError as problem:
        path.unlink(missing_ok=True)
        raise DMCError(f"{path} cannot be loaded ({problem}); it is removed.") from None
    pointer, number = ctypes.c_void_p, ctypes.c_int
    code.outputs_together.argtypes = code.layers_at_most.argtypes = []
    code.scratch_floats.argtypes = [number, number, pointer, number]
    code.scratch_floats.restype = ctypes.c_size_t
    code.dense_generator.argtypes = [pointer, pointer, number, number, pointer, pointer, pointer]
    code.dense_generator.argtypes += [ctypes.c_float, *[number] * 6, pointer, pointer]
    code.dense_generator.restype = None
    return code


def _compile(command: list[str]) -> None:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as problem:
        reason = str(problem)
    else:
        if run.returncode == 0:
            return
        reason = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
    raise DMCError(
        f"{command[0]} could not compile the fast generator ({reason}). PyTorch's own form is "
        "used, several times slower; another compiler may be named in CC."
    )
