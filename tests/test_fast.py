"""The compiled generator against the network that it stands for."""

from pathlib import Path

import pytest
import torch

from dmclib import fast, paths
from dmclib.errors import DMCError
from dmclib.models import DenseGenerator, GeneratorConfig


@pytest.fixture
def compiled():
    """The class, where a C compiler is at hand."""
    try:
        fast.library()
    except DMCError as problem:
        pytest.skip(str(problem))
    return fast.CompiledGenerator


@pytest.fixture
def no_library(monkeypatch, tmp_path):
    """Nothing compiled yet, and nothing left behind."""
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    fast.library.cache_clear()
    yield
    fast.library.cache_clear()


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
            compiled(of)(motion, residual), of(motion, residual), atol=fast.TOLERANCE, rtol=0
        )


# Heights below the layers' reach, widths around a whole number of vectors, counts that are cut
# into strips and that are not.
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 64), (5, 63), (9, 65), (40, 128)])
def test_edges_and_strips_leave_no_seam(compiled, count, height, width):
    of = network()
    motion, residual = pictures(count, height, width)
    with torch.inference_mode():
        gap = compiled(of)(motion, residual) - of(motion, residual)
    assert gap.abs().max() < fast.TOLERANCE


def test_views_of_larger_tensors_are_read_as_they_are_seen(compiled):
    of = network()
    motion, residual = pictures(3, 20, 40)
    motion, residual = motion[::2, :, 3:-2, 5:], residual[::2, :, 3:-2, 5:]
    with torch.inference_mode():
        gap = compiled(of)(motion, residual) - of(motion, residual)
    assert gap.abs().max() < fast.TOLERANCE


def test_where_gradients_or_another_type_are_asked_for_the_network_answers(compiled):
    of = network()
    motion, residual = pictures()
    assert compiled(of)(motion, residual).requires_grad
    with torch.inference_mode():
        assert compiled(of.double())(motion.double(), residual.double()).dtype == torch.float64


def test_without_a_compiler_the_network_is_taken_and_the_sentence_says_why(no_library, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(DMCError, match=r"no C compiler .* install one"):
        fast.library()
    of = network()
    assert fast.generator(of) is of


def test_a_compiler_that_fails_leaves_nothing_and_is_named(no_library, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "false")
    with pytest.raises(DMCError, match=r"false could not compile .*exit status 1"):
        fast.library()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_damaged_library_is_removed(no_library, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(fast, "_compile", lambda command: Path(command[-2]).write_bytes(b"nothing"))
        with pytest.raises(DMCError, match="cannot be loaded"):
            fast.library()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
