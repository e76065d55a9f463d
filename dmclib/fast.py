"""The generator as fast as the processor allows: same weights, same field, for inference.

PyTorch runs the six layers one after the other, each through memory. ``dense_generator.c`` runs
them in one pass over the picture with everything on chip and half the multiplications (Winograd's
F(4, 3)); it is compiled for this processor by the C compiler at hand when it is first needed, and
kept under :data:`dmclib.paths.CACHE`. Where that cannot be, the network itself answers, so that
results never depend on a compiler.

It is float32 throughout: a processor's bfloat16 instructions do two products at once, which is what
F(4, 3) gains already, and with three digits less.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import threading
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from dmclib import files, paths, timing
from dmclib.errors import DMCError
from dmclib.models import DenseGenerator, GeneratorConfig

SOURCE = Path(__file__).with_name("dense_generator.c")
TOLERANCE = 1e-4  # largest difference to the network, on the motion's normalised scale
COMPILE_SECONDS = 60


class CompiledGenerator:
    """A :class:`DenseGenerator` for inference, with the weights that it has now.

    Called like the network, motion (N, 2, H, W) and residual (N, 3, H, W) to a cue (N, 2, H, W), on
    as many threads as torch uses. The field differs from the network's by rounding alone
    (:data:`TOLERANCE`). Anything but float32 on the CPU without gradients goes to the network.

    The threads are torch's own (OpenMP), with its rules: any thread may call it, and in a process
    forked after first use, such as a loader's worker, one thread is all there may be.

    Raises:
        DMCError: if there is no C compiler, or it fails, or the network is of a kind that the
            compiled form does not know; the sentence says which and why.
    """

    def __init__(self, network: DenseGenerator):
        self.network, self._library = network, library()
        config = network.config
        known = GeneratorConfig(config.widths, config.residual_channels, config.predicts)
        convs = [layer[0] for layer in network.layers] + [network.to_cue]
        if config != known or not 1 < len(convs) <= self._library.layers_at_most():
            raise DMCError(
                f"the compiled generator does not know {config}; use the network itself."
            )
        self._in_channels = convs[0].in_channels
        self._weights = _in_points(convs, [self._in_channels, *config.widths], self._library)
        self._biases = torch.cat([conv.bias.detach().float().cpu() for conv in convs])
        self._widths = torch.tensor([conv.out_channels for conv in convs], dtype=torch.int32)
        self._slope = network.layers[0][1].negative_slope
        # Kept for the next call, by each thread that calls: fresh pages would cost a layer's time.
        self._scratch = threading.local()

    def __call__(self, motion: Tensor, residual: Tensor) -> Tensor:
        """The cue, as :class:`DenseGenerator` gives it."""
        inputs = [motion, residual] if self._in_channels > 2 else [motion]
        if torch.is_grad_enabled() or not self._takes(*inputs):
            return self.network(motion, residual)
        # The pointers below are good for as long as these names are.
        inputs = [x.contiguous() for x in inputs]
        count, _, height, width = motion.shape
        cue = torch.empty(count, 2, height, width)
        threads = torch.get_num_threads()
        # Where there are too few pictures for the threads, each picture is cut into strips.
        strips = 1 if count % threads == 0 else min(threads, -(-height // 4))
        layers, widths = len(self._widths), self._widths.data_ptr()
        floats = self._library.scratch_floats(self._in_channels, layers, widths, width)
        scratch = getattr(self._scratch, "kept", None)
        if scratch is None or len(scratch) < threads * floats:
            scratch = self._scratch.kept = torch.empty(threads * floats)
        self._library.dense_generator(
            inputs[0].data_ptr(),
            inputs[-1].data_ptr(),
            self._in_channels,
            layers,
            widths,
            self._weights.data_ptr(),
            self._biases.data_ptr(),
            self._slope,
            self.network.config.predicts == "correction",
            count,
            height,
            width,
            strips,
            threads,
            scratch.data_ptr(),
            cue.data_ptr(),
        )
        return cue

    def _takes(self, *inputs: Tensor) -> bool:
        """Whether type and shapes are right; where they are not, the network's own words are."""
        first = inputs[0].shape
        return all(
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.ndim == 4
            and x.numel()
            and x.shape == (first[0], channels, *first[2:])
            for x, channels in zip(inputs, (2, self._in_channels - 2), strict=False)
        )


def _in_points(convs: list[nn.Conv2d], seen: list[int], library: ctypes.CDLL) -> Tensor:
    """Weights in the order of ``dense_generator.c``, each column of three as its six points."""
    # Lavin and Gray (CVPR 2016), section 4, for the points 0, 1, -1, 2, -2 and infinity.
    to_points = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
    to_points = torch.tensor(to_points, dtype=torch.float64) / 24
    block = library.outputs_together()
    found = []
    for number, channels in enumerate(seen):
        later = convs[number:]
        # A layer's inputs run from the newest map to the oldest, as in the released code.
        starts = [sum(seen[number + 1 : number + 1 + k]) for k in range(len(later))]
        weight = torch.cat(
            [c.weight[:, at : at + channels] for c, at in zip(later, starts, strict=True)]
        )
        points = torch.einsum("py,ocyx->pcxo", to_points, weight.detach().double().cpu())
        found += [part.flatten() for part in points.split(block, dim=3)]
    return torch.cat(found).float()


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
    command += ["-O3", native, "-fopenmp", "-shared", "-fPIC"]
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
    made.outputs_together.argtypes = made.layers_at_most.argtypes = []
    made.scratch_floats.argtypes = [number, number, pointer, number]
    made.scratch_floats.restype = ctypes.c_size_t
    made.dense_generator.argtypes = [pointer, pointer, number, number, pointer, pointer, pointer]
    made.dense_generator.argtypes += [ctypes.c_float, *[number] * 6, pointer, pointer]
    made.dense_generator.restype = None
    return made


def _find_compiler() -> str:
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return found
    raise DMCError(
        "there is no C compiler (cc, gcc or clang) for the fast generator: install one, or name "
        "it in CC. Until then PyTorch's own form is used, several times slower."
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
        "used, several times slower; another compiler may be named in CC."
    )
