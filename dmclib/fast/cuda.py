"""The dense generator on a CUDA GPU: ``dense_generator.cu``, compiled when it is first needed.

One launch makes the cues of a batch; it may be captured in a CUDA graph. A block holds one tile of
a picture, all its maps included, in shared memory. It is CUDA C because Triton cannot read a
neighbour's value on chip, as a 3x3 convolution of a map in shared memory must.

NVRTC, which comes with PyTorch, compiles it; the code is kept under :data:`dmclib.paths.CACHE`.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from dmclib import files
from dmclib.errors import DMCError
from dmclib.fast.cpu import compiled_path

SOURCE = Path(__file__).with_name("dense_generator.cu")
# Rows and columns of a cue that a block makes. Large tiles repeat less of their neighbours' work;
# small ones keep a whole GPU busy with one picture, and fit into the shared memory of older GPUs.
TILES = ((28, 32), (14, 28), (14, 16))
THREADS = 512  # of a block
OUTPUTS = 4  # channels that a thread makes together, as in the source


class Stack:
    """:class:`dmclib.fast.cpu.Stack` on a GPU, ``device``.

    Inputs, maps and cue have ``dtype``, float32 or bfloat16; sums are float32.

    Raises:
        DMCError: it cannot be compiled, or no tile fits into the GPU's shared memory.
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
        macros = {"LAYERS": len(weights), "CHANNELS": ",".join(map(str, self._channels))}
        macros |= {"SLOPE": f"{float(slope)!r}f", "CORRECTION": int(correction), "THREADS": THREADS}
        if dtype == torch.bfloat16:
            macros["BFLOAT16"] = 1
        self._kernels = {}
        for tile in TILES:
            areas = _areas(tile, self._channels)
            maps = sum(n * area for n, area in zip(self._channels[:-1], areas[:-1], strict=True))
            shared = self._weights.nbytes + maps * dtype.itemsize
            if shared <= memory:
                defined = macros | {"TILE_H": tile[0], "TILE_W": tile[1]}
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
        """The fastest tile: fewest rounds of blocks on the GPU times products per block."""

        def time(tile: tuple[int, int]) -> int:
            blocks = count * ceil(height / tile[0]) * ceil(width / tile[1])
            maps = zip(_areas(tile, self._channels)[1:], self._channels[1:], strict=True)
            work = sum(area * n * sum(self._channels[:k]) for k, (area, n) in enumerate(maps, 1))
            return ceil(blocks / self._processors) * work

        return min(self._kernels, key=time)


def _areas(tile: tuple[int, int], channels: Sequence[int]) -> list[int]:
    """Pixels of each map in a block, the input's first: a border of one for each later layer."""
    return [(tile[0] + 2 * k) * (tile[1] + 2 * k) for k in reversed(range(len(channels)))]


def _grouped(weight: Tensor) -> Tensor:
    """A layer's weights as the kernel reads them: groups x inputs x column x row x ``OUTPUTS``."""
    groups = ceil(len(weight) / OUTPUTS)
    each = ceil(len(weight) / groups)
    padded = weight.new_zeros(groups * each, *weight.shape[1:])
    padded[: len(weight)] = weight
    grouped = weight.new_zeros(groups, weight.shape[1], 3, 3, OUTPUTS)
    grouped[..., :each] = padded.unflatten(0, (groups, each)).permute(0, 2, 4, 3, 1)
    return grouped.flatten()


def limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors of a GPU, and bytes of shared memory that one block may have."""
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin


class Kernel:
    """``dense_generator.cu`` with these macros defined, loaded on one GPU.

    Raises:
        DMCError: NVRTC or the driver refuses; the sentence quotes them.
    """

    def __init__(self, defined: Mapping[str, object], shared_bytes: int, device: torch.device):
        self._device, self._shared_bytes = device, shared_bytes
        driver = _bindings("driver")
        code = binary(tuple(defined.items()), torch.cuda.get_device_capability(device))
        size = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        with torch.cuda.device(device):
            torch.cuda.synchronize()  # creates PyTorch's context
            self._context = _unwrap(driver.cuCtxGetCurrent())
            self._module = _unwrap(driver.cuModuleLoadData(code))
            self._function = _unwrap(driver.cuModuleGetFunction(self._module, b"dense_generator"))
            _unwrap(driver.cuFuncSetAttribute(self._function, size, shared_bytes))

    def __call__(
        self, grid: tuple[int, int, int], tensors: Sequence[Tensor], numbers: Sequence[int]
    ) -> None:
        """Put one launch on the current stream."""
        values = [*(x.data_ptr() for x in tensors), *numbers]
        types = [ctypes.c_void_p] * len(tensors) + [ctypes.c_int] * len(numbers)
        driver = _bindings("driver")
        with torch.cuda.device(self._device):
            _unwrap(driver.cuCtxSetCurrent(self._context))  # a new thread has none
            stream = torch.cuda.current_stream().cuda_stream
            launch = (*grid, THREADS, 1, 1, self._shared_bytes, stream)
            arguments = (tuple(values), tuple(types))
            _unwrap(driver.cuLaunchKernel(self._function, *launch, arguments, 0))


@cache
def binary(defined: tuple[tuple[str, object], ...], capability: tuple[int, int]) -> bytes:
    """The kernel with these macros for GPUs of this compute capability; needs no GPU.

    Raises:
        DMCError: NVRTC is missing, or does not compile it.
    """
    nvrtc = _bindings("nvrtc")
    source = SOURCE.read_bytes()
    options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}", "-std=c++17"]
    options += ["-default-device", *(f"-D{name}={value}" for name, value in defined)]
    path = compiled_path(".cubin", source, options, _unwrap(nvrtc.nvrtcVersion()))
    if not path.exists():
        program = _unwrap(nvrtc.nvrtcCreateProgram(source, SOURCE.name.encode(), 0, [], []))
        words = [option.encode() for option in options]
        status, *_ = nvrtc.nvrtcCompileProgram(program, len(words), words)
        if status.value:
            log = b" " * _unwrap(nvrtc.nvrtcGetProgramLogSize(program))
            _unwrap(nvrtc.nvrtcGetProgramLog(program, log))
            first = log.decode(errors="replace").strip("\0 \n").partition("\n")[0]
            raise DMCError(
                f"NVRTC could not compile the generator for sm_{capability[0]}{capability[1]} "
                f"({first or status.name}). PyTorch's own form is used."
            )
        code = b" " * _unwrap(nvrtc.nvrtcGetCUBINSize(program))
        _unwrap(nvrtc.nvrtcGetCUBIN(program, code))
        with files.whole(path) as partial:
            partial.write_bytes(code)
    return path.read_bytes()


def _bindings(part: str):
    """NVIDIA's ``cuda.bindings``, which PyTorch's CUDA builds install."""
    try:
        return import_module(f"cuda.bindings.{part}")
    except ImportError as problem:
        raise DMCError(
            f"the generator's CUDA form needs cuda-bindings ({problem}): install it. PyTorch's own "
            "form is used."
        ) from None


def _unwrap(answer: tuple):
    """The result of a CUDA call, without its status.

    Raises:
        DMCError: the status is not that of success.
    """
    status, *result = answer
    if status.value:
        raise DMCError(
            f"CUDA refused the compiled generator ({status.name}). PyTorch's own form is used."
        )
    return result[0] if result else None
