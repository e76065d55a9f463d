"""The dense generator on a CUDA GPU: ``dense_generator.cu``, compiled when it is first needed.

One launch makes the cues of a batch: nothing for a CUDA graph to gather, though it may be captured
in one. A block holds one tile of a picture, all its maps included, in shared memory. CUDA C and not
Triton, which cannot look at a neighbour's value on chip, as a 3x3 convolution of a map that is only
there must.

Compiled by NVRTC, which comes with PyTorch; kept under :data:`dmclib.paths.CACHE`.
"""

import ctypes
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from dmclib import files, paths
from dmclib.errors import DMCError

SOURCE = Path(__file__).with_name("dense_generator.cu")
# Rows and columns of a cue that a block makes. Large ones repeat less of their neighbours' work;
# small ones keep all of a GPU busy with one picture, and fit into older ones' shared memory.
TILES = ((28, 32), (14, 28), (14, 16))
THREADS = 512  # of a block
OUTPUTS = 4  # channels that a thread makes together, as in the source


class Stack:
    """A dense stack of 3x3 convolutions; see :class:`dmclib.fast_cpu.Stack`.

    Args:
        weights, biases, slope, correction: as there.
        device: the GPU.
        dtype: of inputs, maps and cue, float32 or bfloat16; sums are float32.

    Raises:
        DMCError: if it cannot be compiled, or no tile fits into the GPU's shared memory.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        *,
        slope: float,
        correction: bool,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self._channels = [weights[0].shape[1], *map(len, biases)]
        self._weights = torch.cat([_grouped(weight) for weight in weights]).to(device)
        self._biases = torch.cat(list(biases)).to(device)
        self._processors, memory = limits(device)
        given = {"LAYERS": len(weights), "CHANNELS": ",".join(map(str, self._channels))}
        given |= {"SLOPE": f"{float(slope)!r}f", "CORRECTION": int(correction), "THREADS": THREADS}
        if dtype == torch.bfloat16:
            given["BFLOAT16"] = 1
        self._kernels = {}
        for tile in TILES:
            areas = _areas(tile, self._channels)
            maps = sum(n * area for n, area in zip(self._channels[:-1], areas[:-1], strict=True))
            shared = self._weights.nbytes + maps * dtype.itemsize
            if shared <= memory:
                defined = given | {"TILE_H": tile[0], "TILE_W": tile[1]}
                self._kernels[tile] = Kernel(defined, shared, device)
        if not self._kernels:
            raise DMCError(
                f"the generator's maps do not fit into this GPU's {memory} bytes of shared memory; "
                "PyTorch's own form is used."
            )

    def __call__(self, motion: Tensor, *residual: Tensor) -> Tensor:
        """Motion (N, 2, H, W), if any residual (N, C, H, W), contiguous -> cue (N, 2, H, W)."""
        count, _, height, width = motion.shape
        return self._run(self.tile_for(count, height, width), motion, *residual)

    def trials(self) -> list[tuple[Callable[..., Tensor], tuple[int, int, int]]]:
        """Each tile's form of this call, with a shape (N, H, W) to try it at."""
        return [
            (partial(self._run, tile), (2, 2 * tile[0] + 3, tile[1] + 5)) for tile in self._kernels
        ]

    def _run(self, tile: tuple[int, int], motion: Tensor, *residual: Tensor) -> Tensor:
        count, _, height, width = motion.shape
        cue = torch.empty_like(motion)
        grid = ceil(width / tile[1]), ceil(height / tile[0]), count
        inputs = [motion, residual[0] if residual else motion, self._weights, self._biases]
        self._kernels[tile](grid, [*inputs, cue], [height, width])
        return cue

    def tile_for(self, count: int, height: int, width: int) -> tuple[int, int]:
        """The tile that takes the least: rounds of blocks over the GPU, times products of one."""

        def time(tile: tuple[int, int]) -> int:
            blocks = count * ceil(height / tile[0]) * ceil(width / tile[1])
            made = zip(_areas(tile, self._channels)[1:], self._channels[1:], strict=True)
            work = sum(area * n * sum(self._channels[:k]) for k, (area, n) in enumerate(made, 1))
            return ceil(blocks / self._processors) * work

        return min(self._kernels, key=time)


def _areas(tile: tuple[int, int], channels: Sequence[int]) -> list[int]:
    """Pixels of each map in a block, the input's first: one around for each layer to come."""
    return [(tile[0] + 2 * k) * (tile[1] + 2 * k) for k in reversed(range(len(channels)))]


def _grouped(weight: Tensor) -> Tensor:
    """A layer's weights as the kernel reads them: groups x inputs x column x row x ``OUTPUTS``."""
    groups = ceil(len(weight) / OUTPUTS)
    each = ceil(len(weight) / groups)
    padded = weight.new_zeros(groups * each, *weight.shape[1:])
    padded[: len(weight)] = weight
    found = weight.new_zeros(groups, weight.shape[1], 3, 3, OUTPUTS)
    found[..., :each] = padded.unflatten(0, (groups, each)).permute(0, 2, 4, 3, 1)
    return found.flatten()


def limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors of a GPU, and bytes of shared memory that a block of its may have."""
    about = torch.cuda.get_device_properties(device)
    return about.multi_processor_count, about.shared_memory_per_block_optin


class Kernel:
    """``dense_generator.cu`` with these macros defined, loaded on one GPU.

    Raises:
        DMCError: if NVRTC or the driver refuses; the sentence has their words.
    """

    def __init__(self, defined: Mapping[str, object], shared_bytes: int, device: torch.device):
        self._device, self._shared_bytes = device, shared_bytes
        driver = _bindings("driver")
        code = binary(tuple(defined.items()), torch.cuda.get_device_capability(device))
        size = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        with torch.cuda.device(device):
            torch.cuda.synchronize()  # from here on PyTorch's context is there
            self._context = _asked(driver.cuCtxGetCurrent())
            self._module = _asked(driver.cuModuleLoadData(code))
            self._function = _asked(driver.cuModuleGetFunction(self._module, b"dense_generator"))
            _asked(driver.cuFuncSetAttribute(self._function, size, shared_bytes))

    def __call__(
        self, grid: tuple[int, int, int], tensors: Sequence[Tensor], numbers: Sequence[int]
    ) -> None:
        """Put one launch on the current stream."""
        values = [*(x.data_ptr() for x in tensors), *numbers]
        types = [ctypes.c_void_p] * len(tensors) + [ctypes.c_int] * len(numbers)
        driver = _bindings("driver")
        with torch.cuda.device(self._device):
            _asked(driver.cuCtxSetCurrent(self._context))  # a thread of its own may have none yet
            stream = torch.cuda.current_stream().cuda_stream
            launch = (*grid, THREADS, 1, 1, self._shared_bytes, stream)
            arguments = (tuple(values), tuple(types))
            _asked(driver.cuLaunchKernel(self._function, *launch, arguments, 0))


@cache
def binary(defined: tuple[tuple[str, object], ...], capability: tuple[int, int]) -> bytes:
    """The kernel with these macros for GPUs of this compute capability; needs no GPU.

    Raises:
        DMCError: if NVRTC is not there, or does not compile it.
    """
    nvrtc = _bindings("nvrtc")
    source = SOURCE.read_bytes()
    options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}", "-std=c++17"]
    options += ["-default-device", *(f"-D{name}={value}" for name, value in defined)]
    about = [source, options, _asked(nvrtc.nvrtcVersion())]
    digest = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
    compiled = paths.CACHE / "compiled" / f"dense_generator-{digest}.cubin"
    if not compiled.exists():
        program = _asked(nvrtc.nvrtcCreateProgram(source, SOURCE.name.encode(), 0, [], []))
        words = [option.encode() for option in options]
        status, *_ = nvrtc.nvrtcCompileProgram(program, len(words), words)
        if status.value:
            log = b" " * _asked(nvrtc.nvrtcGetProgramLogSize(program))
            _asked(nvrtc.nvrtcGetProgramLog(program, log))
            first = log.decode(errors="replace").strip("\0 \n").partition("\n")[0]
            raise DMCError(
                f"NVRTC could not compile the generator for sm_{capability[0]}{capability[1]} "
                f"({first or status.name}). PyTorch's own form is used."
            )
        made = b" " * _asked(nvrtc.nvrtcGetCUBINSize(program))
        _asked(nvrtc.nvrtcGetCUBIN(program, made))
        with files.whole(compiled) as partial:
            partial.write_bytes(made)
    return compiled.read_bytes()


def _bindings(part: str):
    """NVIDIA's own ``cuda.bindings``, which PyTorch's CUDA builds bring along."""
    try:
        return import_module(f"cuda.bindings.{part}")
    except ImportError as problem:
        raise DMCError(
            f"the generator's CUDA form needs cuda-bindings ({problem}): install it. PyTorch's own "
            "form is used."
        ) from None


def _asked(answer: tuple):
    """What a CUDA library gave, without its status.

    Raises:
        DMCError: if the status is not that of success.
    """
    status, *given = answer
    if status.value:
        raise DMCError(
            f"CUDA refused the compiled generator ({status.name}). PyTorch's own form is used."
        )
    return given[0] if given else None
