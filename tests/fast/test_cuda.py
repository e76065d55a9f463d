"""The CUDA generator: its source run on the CPU, compiled for a GPU, and used if there is one."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from dmclib import fast, paths
from dmclib.errors import DMCError
from dmclib.fast import cuda
from dmclib.models import DenseGenerator, GeneratorConfig

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
HEADER = Path(__file__).with_name("cuda_on_cpu.h")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def on_cpu(monkeypatch, folder):
    """Kernels that run here, in blocks of three threads, and tiles that are small enough for it."""
    if not COMPILER:
        pytest.skip("there is no C++ compiler to run the kernel's source on the CPU")

    class Kernel:
        def __init__(self, defined, shared_bytes, device):
            defined = dict(defined) | {"THREADS": 3, "SOURCE": f'"{cuda.SOURCE}"'}
            words = [f"-D{name}={value}" for name, value in defined.items()]
            made = folder / f"{len(list(folder.iterdir()))}.so"
            command = [COMPILER, "-std=c++17", "-O1", "-w", "-pthread", "-shared", "-fPIC", *words]
            subprocess.run([*command, "-x", "c++", str(HEADER), "-o", str(made)], check=True)
            self.run, self.shared_bytes = ctypes.CDLL(str(made)).run, ctypes.c_size_t(shared_bytes)

        def __call__(self, grid, tensors, numbers):
            pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
            assert self.run(*grid, self.shared_bytes, *pointers, *numbers) == 0

    monkeypatch.setattr(cuda, "Kernel", Kernel)
    monkeypatch.setattr(cuda, "limits", lambda device: (4, 227 * 1024))
    monkeypatch.setattr(cuda, "TILES", ((6, 9), (4, 5)))


def network(**settings) -> DenseGenerator:
    torch.manual_seed(0)
    return DenseGenerator(GeneratorConfig(**settings)).eval()


def stack(of: DenseGenerator, dtype=torch.float32):
    """The CUDA form of a network, as ``fast.CompiledGenerator`` makes it on a GPU."""
    return cuda.Stack(**fast.select.parts(of), device=CPU, dtype=dtype)


def pictures(count, height, width, planes=(2, 3)):
    random = torch.Generator().manual_seed(1)
    return [torch.randn(count, n, height, width, generator=random) for n in planes]


@pytest.mark.parametrize(
    "settings",
    [{}, {"residual_channels": 0, "predicts": "flow", "widths": (3, 9, 1)}, {"widths": (17,)}],
    ids=str,
)
def test_the_kernel_gives_the_network_s_field(on_cpu, settings):
    of = network(**settings)
    quick = stack(of)
    for count, height, width in [(2, 13, 20), (1, 6, 9), (3, 1, 1)]:
        motion, residual = pictures(count, height, width)
        inputs = [motion, residual] if of.config.residual_channels else [motion]
        with torch.inference_mode():
            expected = of(motion, residual)
            for run, _ in quick.trials():
                torch.testing.assert_close(
                    run(*inputs), expected, atol=fast.select.TOLERANCE, rtol=0
                )
            torch.testing.assert_close(quick(*inputs), expected, atol=fast.select.TOLERANCE, rtol=0)


def test_in_bfloat16_it_stays_within_the_tolerance_that_is_stated(on_cpu):
    of = network().bfloat16()
    inputs = [x.bfloat16() for x in pictures(2, 13, 20)]
    with torch.inference_mode():
        cue = stack(of, torch.bfloat16)(*inputs)
        gap = (cue.float() - of.float()(*(x.float() for x in inputs))).abs().max()
    assert cue.dtype == torch.bfloat16
    assert 0 < gap < fast.select.TOLERANCES[torch.bfloat16]


def test_not_a_number_stays_one_in_bfloat16(on_cpu):
    motion, residual = (x.bfloat16() for x in pictures(1, 6, 9))
    motion[0, 0, 3, 4] = torch.nan
    with torch.inference_mode():
        assert stack(network().bfloat16(), torch.bfloat16)(motion, residual)[0, 0, 3, 4].isnan()


@pytest.fixture
def on_gpu(monkeypatch):
    """Set a GPU's multiprocessors and shared memory; nothing is compiled for it."""

    def set_limits(processors, kilobytes):
        monkeypatch.setattr(cuda, "Kernel", lambda *about: about)
        monkeypatch.setattr(cuda, "limits", lambda device: (processors, kilobytes * 1024))

    return set_limits


def test_one_picture_is_cut_smaller_than_many(on_gpu):
    on_gpu(132, 227)  # an H100
    assert stack(network()).tile_for(1, 224, 224) == (14, 28)
    assert stack(network()).tile_for(64, 224, 224) == (28, 32)


def test_tiles_that_do_not_fit_are_left_out(on_gpu):
    on_gpu(108, 163)  # an A100
    assert stack(network()).tile_for(64, 224, 224) == (14, 28)
    on_gpu(40, 48)
    with pytest.raises(DMCError, match="do not fit into this GPU's 49152 bytes"):
        stack(network())


def compiled(**changes) -> bytes:
    defined = {"LAYERS": 6, "CHANNELS": "5,8,8,6,4,2,2", "SLOPE": "0.1f", "CORRECTION": 1}
    defined |= {"TILE_H": 14, "TILE_W": 16, "THREADS": 512} | changes
    return cuda.binary(tuple(defined.items()), (9, 0))


@pytest.fixture
def nvrtc(monkeypatch, tmp_path):
    """NVIDIA's compiler, which needs no GPU; what it makes is not kept."""
    pytest.importorskip("cuda.bindings.nvrtc")
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    cuda.binary.cache_clear()
    yield
    cuda.binary.cache_clear()


def test_nvidia_s_compiler_takes_the_source(nvrtc):
    made = compiled()
    assert made.startswith(b"\x7fELF")
    assert b"dense_generator" in made


def test_what_it_does_not_take_is_said_in_a_sentence(nvrtc, tmp_path):
    with pytest.raises(DMCError, match=r"NVRTC could not compile .* for sm_90 \(.*error"):
        compiled(SLOPE="steep")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_gpu_it_gives_the_network_s_field(dtype):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU: the kernel's source was run on the CPU alone")
    of = network().to(dtype)
    quick = fast.CompiledGenerator(of.cuda())
    reference = network().to(dtype).float()
    for count, height, width in [(1, 224, 224), (64, 224, 224), (3, 37, 53), (1, 1, 1)]:
        inputs = [x.to(dtype) for x in pictures(count, height, width)]
        with torch.inference_mode():
            cue = quick(*(x.cuda() for x in inputs)).float().cpu()
            gap = (cue - reference(*(x.float() for x in inputs))).abs().max()
        assert gap < fast.select.TOLERANCES[dtype]
