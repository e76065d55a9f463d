"""The compiled generator against the network that it stands for."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from dmclib import fast, paths
from dmclib.errors import DMCError
from dmclib.fast import cpu
from dmclib.models import DenseGenerator, GeneratorConfig


@pytest.fixture
def compiled():
    """The class, where a C compiler is at hand."""
    try:
        cpu.library()
    except DMCError as problem:
        pytest.skip(str(problem))
    return fast.CompiledGenerator


@pytest.fixture
def no_library(monkeypatch, tmp_path):
    """Nothing compiled yet, and nothing left behind."""
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    cpu.library.cache_clear()
    yield
    cpu.library.cache_clear()


@pytest.fixture
def restore_threads():
    """The test may set torch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network(**settings) -> DenseGenerator:
    torch.manual_seed(0)
    return DenseGenerator(GeneratorConfig(**settings)).eval()


def pictures(count=2, height=37, width=53):
    random = torch.Generator().manual_seed(1)
    return (torch.randn(count, planes, height, width, generator=random) for planes in (2, 3))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"residual_channels": 0},
        {"predicts": "flow"},
        {"widths": (3, 17, 1, 9)},
        {"widths": (5,)},
    ],
    ids=str,
)
def test_it_gives_the_network_s_field(compiled, settings):
    of = network(**settings)
    motion, residual = pictures()
    with torch.inference_mode():
        torch.testing.assert_close(
            compiled(of)(motion, residual), of(motion, residual), atol=fast.select.TOLERANCE, rtol=0
        )


# Heights below the layers' reach, widths around a whole number of vectors, counts that are cut
# into strips and that are not.
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 64), (5, 63), (9, 65), (41, 128)])
def test_edges_and_strips_leave_no_seam(compiled, count, height, width):
    of = network()
    motion, residual = pictures(count, height, width)
    with torch.inference_mode():
        gap = compiled(of)(motion, residual) - of(motion, residual)
    assert gap.abs().max() < fast.select.TOLERANCE


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_any_number_of_threads_gives_the_same_field(compiled, restore_threads, threads):
    of = network()
    quick = compiled(of)
    motion, residual = pictures(1, 45, 40)
    torch.set_num_threads(threads)
    with torch.inference_mode():
        gap = quick(motion, residual) - of(motion, residual)
    assert gap.abs().max() < fast.select.TOLERANCE


def test_callers_at_once_do_not_disturb_each_other(compiled):
    of = network()
    quick = compiled(of)
    inputs = [tuple(x * k for x in pictures(1, 30, 50)) for k in range(1, 5)]

    @torch.inference_mode()
    def gap(pair):
        return max((quick(*pair) - of(*pair)).abs().max().item() for _ in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(gap, inputs)) < fast.select.TOLERANCE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_worker_forked_after_use_still_computes(compiled):
    quick = compiled(network())
    motion, residual = pictures()

    def work():
        torch.set_num_threads(1)  # as torch does in a DataLoader's worker
        with torch.inference_mode():
            os._exit(0 if torch.equal(quick(motion, residual), expected) else 1)

    with torch.inference_mode():
        expected = quick(motion, residual)
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    worker.join(20)
    worker.kill()
    assert worker.exitcode == 0


def test_views_of_larger_tensors_are_read_as_they_are_seen(compiled):
    of = network()
    motion, residual = pictures(3, 20, 40)
    motion, residual = motion[::2, :, 3:-2, 5:], residual[::2, :, 3:-2, 5:]
    with torch.inference_mode():
        gap = compiled(of)(motion, residual) - of(motion, residual)
    assert gap.abs().max() < fast.select.TOLERANCE


def test_a_form_that_computes_something_else_is_not_taken(compiled, monkeypatch):
    monkeypatch.setattr(cpu.Stack, "__call__", lambda self, motion, residual: motion * torch.nan)
    of = network()
    with pytest.raises(DMCError, match="is nan off the network"):
        compiled(of)
    with pytest.warns(RuntimeWarning, match="is nan off the network .* PyTorch's own form is used"):
        assert fast.form(of) is of


def test_whatever_goes_wrong_the_network_answers(compiled, monkeypatch):
    monkeypatch.setattr(cpu.Stack, "trials", lambda self: 1 / 0)
    of = network()
    with pytest.warns(RuntimeWarning, match="no fast form: ZeroDivisionError"):
        assert fast.form(of) is of


def test_where_gradients_or_another_type_are_asked_for_the_network_answers(compiled):
    of = network()
    motion, residual = pictures()
    quick = compiled(of)
    assert quick(motion, residual).requires_grad
    of.double()
    with torch.inference_mode():
        assert quick(motion.double(), residual.double()).dtype == torch.float64


def test_inputs_that_do_not_fit_are_refused_by_the_network(compiled):
    motion, residual = pictures()
    with torch.inference_mode():
        for wrong in (residual[:1], residual[..., 1:], residual[0]):
            with pytest.raises(RuntimeError):
                compiled(network())(motion, wrong)
        with pytest.raises(RuntimeError, match="to have 5 channels, but got 6"):
            compiled(network())(motion, residual[:, [0, 0, 1, 2]])


def test_a_kind_of_generator_that_it_does_not_know_is_left_to_the_network(compiled):
    @dataclass(frozen=True)
    class Later(GeneratorConfig):
        weighs_its_losses: bool = True

    of = network()
    of.config = Later()
    with pytest.raises(DMCError, match=r"no compiled form for .*weighs_its_losses"):
        compiled(of)
    assert fast.form(of) is of


def test_without_a_compiler_the_network_is_taken_and_the_sentence_says_why(no_library, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(DMCError, match=r"no C compiler .* install one"):
        cpu.library()
    of = network()
    with pytest.warns(RuntimeWarning, match="no C compiler"):
        assert fast.form(of) is of


def test_a_compiler_that_fails_leaves_nothing_and_is_named(no_library, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "false")
    with pytest.raises(DMCError, match=r"false could not compile .*exit status 1"):
        cpu.library()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_damaged_library_is_removed(no_library, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "_compile", lambda command: Path(command[-2]).write_bytes(b"nothing"))
        with pytest.raises(DMCError, match="cannot be loaded"):
            cpu.library()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
