"""The generator as fast as the processor allows: same weights, same field, for inference.

PyTorch runs the six layers one after the other, each through memory. ``dense_generator.c`` runs
them in one pass over the picture with everything on chip; it is compiled for this processor by the
C compiler at hand when it is first needed, and kept under :data:`dmclib.paths.CACHE`. Where that
cannot be, the network itself answers, so that results never depend on a compiler.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmclib import files, paths, timing
from dmclib.errors import DMCError
from dmclib.models import DenseGenerator

SOURCE = Path(__file__).with_name("dense_generator.c")
TOLERANCE = 1e-4  # largest difference to the network, on the motion's normalised scale
COMPILE_SECONDS = 60


class CompiledGenerator:
    """A :class:`DenseGenerator` for inference, with the weights that it has now.

    Called like the network, motion (N, 2, H, W) and residual (N, 3, H, W) to a cue (N, 2, H, W), on
    as many threads as torch uses. The field differs from the network's by rounding alone
    (:data:`TOLERANCE`). Anything but float32 on the CPU without gradients goes to the network.

    Raises:
        DMCError: if there is no C compiler, or it fails; the sentence says which and why.
    """

    def __init__(self, network: DenseGenerator):
        self.network, self._library = network, library()
        convs = [layer[0] for layer in network.layers] + [network.to_cue]
        seen = [convs[0].in_channels, *network.config.widths]
        block = self._library.outputs_together()
        weights, biases = [], []
        for number, conv in enumerate(convs):
            # The network stacks the newest map first, the compiled form the oldest.
            parts = conv.weight.detach().float().cpu().split(seen[number::-1], dim=1)
            weight = torch.cat(parts[::-1], dim=1)
            weights += [part.permute(1, 2, 3, 0).flatten() for part in weight.split(block)]
            biases.append(conv.bias.detach().float().cpu())
        self._weights, self._biases = torch.cat(weights), torch.cat(biases)
        self._widths = torch.tensor([conv.out_channels for conv in convs], dtype=torch.int32)
        self._slope = network.layers[0][1].negative_slope
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads)

    def __call__(self, motion: Tensor, residual: Tensor) -> Tensor:
        """The cue, as :class:`DenseGenerator` gives it."""
        inputs = [motion, residual] if self.network.config.residual_channels else [motion]
        if torch.is_grad_enabled() or any(
            x.device.type != "cpu" or x.dtype != torch.float32 for x in inputs
        ):
            return self.network(motion, residual)
        # The pointers below are good for as long as these names are.
        inputs = [x.contiguous() for x in inputs]
        count, _, height, width = motion.shape
        cue = torch.empty(count, 2, height, width)
        # Where there are too few pictures for the threads, each picture is cut into strips.
        strips = 1 if count % self._threads == 0 else min(self._threads, height)
        edges = [height * part // strips for part in range(strips + 1)]
        jobs = [
            (cue[item], [plane.data_ptr() for x in inputs for plane in x[item]], *edges[k : k + 2])
            for item in range(count)
            for k in range(strips)
        ]
        for _ in self._pool.map(lambda job: self._strip(*job), jobs):
            pass
        return cue

    def _strip(self, cue: Tensor, planes: list[int], first: int, last: int) -> None:
        """Rows first..last-1 of one cue (2, H, W) from its input planes' addresses."""
        height, width = cue.shape[1:]
        layers, widths = len(self._widths), self._widths.data_ptr()
        scratch = np.empty(
            self._library.scratch_floats(layers, widths, len(planes), width), np.float32
        )
        self._library.dense_generator(
            (ctypes.c_void_p * len(planes))(*planes),
            len(planes),
            layers,
            widths,
            self._weights.data_ptr(),
            self._biases.data_ptr(),
            self._slope,
            self.network.config.predicts == "correction",
            height,
            width,
            first,
            last,
            scratch.ctypes.data,
            cue.data_ptr(),
        )


def generator(network: DenseGenerator) -> CompiledGenerator | DenseGenerator:
    """The fastest form of ``network`` there is here for inference; its weights must not change.

    Compiled where the network is on the CPU and a C compiler works, else the network itself.
    """
    if next(network.parameters()).device.type != "cpu":
        return network
    try:
        return CompiledGenerator(network)
    except DMCError:
        return network


@cache
def library() -> ctypes.CDLL:
    """The compiled form of ``dense_generator.c``, made now if it is not kept from before.

    Raises:
        DMCError: if there is no C compiler, or it fails.
    """
    command = shlex.split(os.environ.get("CC", "")) or [_find_compiler()]
    native = "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"
    command += ["-O3", native, "-shared", "-fPIC"]
    about = [command, SOURCE.read_text(encoding="utf-8"), timing.machine()["cpu"]]
    digest = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
    compiled = paths.CACHE / "compiled" / f"dense_generator-{digest}.so"
    if not compiled.exists():
        with files.whole(compiled) as partial:
            _compile([*command, "-o", str(partial), str(SOURCE)])
    try:
        made = ctypes.CDLL(str(compiled))
    except OSError as problem:
        compiled.unlink(missing_ok=True)
        raise DMCError(f"{compiled} cannot be loaded ({problem}); it is removed.") from None
    pointer, number = ctypes.c_void_p, ctypes.c_int
    made.outputs_together.argtypes = []
    made.scratch_floats.argtypes = [number, pointer, number, number]
    made.scratch_floats.restype = ctypes.c_size_t
    made.dense_generator.argtypes = [pointer, number, number, pointer, pointer, pointer]
    made.dense_generator.argtypes += [ctypes.c_float, *[number] * 5, pointer, pointer]
    made.dense_generator.restype = None
    return made


def _find_compiler() -> str:
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return found
    raise DMCError(
        "there is no C compiler (cc, gcc or clang) for the fast generator: install one, or name "
        "it in CC. Until then PyTorch's own form is used, about four times slower."
    )


def _compile(command: list[str]) -> None:
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as problem:
        reason = str(problem)
    else:
        if made.returncode == 0:
            return
        reason = made.stderr.strip().splitlines()[-1:] or [f"exit status {made.returncode}"]
        reason = reason[0]
    raise DMCError(
        f"{command[0]} could not compile the fast generator ({reason}). PyTorch's own form is "
        "used, about four times slower; another compiler may be named in CC."
    )
