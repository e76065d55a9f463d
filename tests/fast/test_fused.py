"""Classifiers fused for the processor against the networks that they stand for."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from dmclib import fast, i3d, machine, models
from dmclib.fast import fused

CLASSES, SIZE, STEPS = 6, 32, 60


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def bf16(request, monkeypatch):
    """A processor without bfloat16 instructions, or with them; both compute either here."""
    monkeypatch.setattr(machine, "has_bf16", lambda device: request.param)
    return request.param


@pytest.fixture
def float32(monkeypatch):
    monkeypatch.setattr(machine, "has_bf16", lambda device: False)


def drifting(clips, frames, *, seed):
    """Noisy fields (clips, frames, 2, H, W) whose middles drift one of the ways, and labels."""
    dice = torch.Generator().manual_seed(seed)
    angles = torch.arange(clips) % CLASSES * (2 * torch.pi / CLASSES)
    ways = torch.stack([angles.cos(), angles.sin()], dim=1)[:, None, :, None, None]
    fields = torch.randn(clips, frames, 2, SIZE, SIZE, generator=dice)
    fields[..., 12:20, 12:20] += 1.0 * ways
    return fields, torch.arange(clips)[:, None].expand(clips, frames) % CLASSES


class Small(nn.Module):
    """A residual network that learns in a second."""

    def __init__(self):
        super().__init__()
        self.begin = nn.Conv2d(2, 16, 5, stride=2, padding=2)
        self.convs = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(6))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(6))
        self.to_logits = nn.Linear(16, CLASSES)

    def forward(self, field):
        x = torch.relu(self.begin(field))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)) + x)
        return self.to_logits(x.mean((2, 3)))


@pytest.fixture(scope="module")
def trained():
    """It tells the ways apart, not always."""
    torch.manual_seed(0)
    network = Small().train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(STEPS):
        fields, labels = drifting(24, 1, seed=step + 10)
        loss = nn.functional.cross_entropy(network(fields[:, 0]), labels[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.fixture
def resnet():
    return models.motion_resnet18(CLASSES).eval()


@torch.inference_mode()
def test_labels_stay_and_scores_move_by_no_more_than_is_said(trained, bf16):
    fields, labels = drifting(600, 5, seed=1)
    quick = fast.form(trained)
    expected = torch.stack([trained(clip) for clip in fields])
    scores = torch.stack([quick(clip) for clip in fields])
    assert trained not in quick._forms.values()
    assert 0.5 < (expected.argmax(2) == labels).float().mean() < 0.95  # neither blind nor too sure
    assert (scores.argmax(2) == expected.argmax(2)).float().mean() >= 0.99
    clips = scores.mean(1).argmax(1) == expected.mean(1).argmax(1)
    assert clips.float().mean() >= 0.995
    gap = (scores - expected).abs().max() / expected.abs().max()
    assert gap < fused.TOLERANCES[torch.bfloat16 if bf16 else torch.float32]
    assert (gap > 1e-3) == bf16
    assert scores.dtype == torch.float32


@torch.inference_mode()
@pytest.mark.parametrize("threads", [1, 3])
def test_numbers_and_sizes_come_as_they_like_from_any_thread(resnet, float32, threads):
    quick = fast.form(resnet)
    dice = torch.Generator().manual_seed(2)
    shapes = [(5, 2, 32, 32), (1, 2, 32, 32), (3, 2, 40, 36), (5, 2, 32, 32)] * 3
    fields = [torch.randn(shape, generator=dice) for shape in shapes]

    @torch.inference_mode()
    def gap(field):
        expected = resnet(field)
        return ((quick(field) - expected).abs().max() / expected.abs().max()).item()

    with ThreadPoolExecutor(threads) as pool:
        assert max(pool.map(gap, fields)) < fused.TOLERANCES[torch.float32]
    assert set(quick._forms) == {(2, 32, 32), (2, 40, 36)}
    assert resnet not in quick._forms.values()


@torch.inference_mode()
def test_a_classifier_of_clips_is_fused_too(float32):
    network = i3d.InceptionI3D(5).eval()
    torch.nn.init.normal_(network.to_logits.weight)
    clip = torch.randn(1, 2, 2, 32, 32)
    quick = fast.form(network)
    torch.testing.assert_close(quick(clip), network(clip), atol=0, rtol=1e-3)
    assert network not in quick._forms.values()


@torch.inference_mode()
def test_of_a_dmcnet_both_parts_are_fast_and_the_scores_are_its_own(resnet, float32):
    network = models.DMCNet(resnet, models.DenseGenerator(), stream="cue").eval()
    quick = fast.form(network)
    assert isinstance(quick.classifier, fused.FusedNetwork)
    motion, residual = torch.randn(3, 2, 32, 32), torch.randn(3, 3, 32, 32)
    scores, cue = network(motion, residual)
    torch.testing.assert_close(quick(motion, residual)[0], scores, atol=1e-3, rtol=0)
    torch.testing.assert_close(quick(motion, residual)[1], cue, atol=fast.TOLERANCE, rtol=0)
    motion_alone = fast.form(models.DMCNet(resnet, stream="motion"))
    assert (motion_alone.stream, motion_alone.generator) == ("motion", None)


@torch.inference_mode()
def test_a_form_that_misses_is_not_used(resnet, float32, monkeypatch):
    monkeypatch.setitem(fused.TOLERANCES, torch.float32, 0.0)
    quick, field = fast.form(resnet), torch.randn(2, 2, 32, 32)
    with pytest.warns(RuntimeWarning, match=r"scores are .* off .* The network's own is used\."):
        assert torch.equal(quick(field), resnet(field))
    assert quick._forms == {(2, 32, 32): resnet}


@torch.inference_mode()
def test_where_bfloat16_misses_float32_is_used(resnet, monkeypatch):
    monkeypatch.setattr(machine, "has_bf16", lambda device: True)
    monkeypatch.setitem(fused.TOLERANCES, torch.bfloat16, 0.0)
    quick, field = fast.form(resnet), torch.randn(2, 2, 32, 32)
    gap = (quick(field) - resnet(field)).abs().max()
    assert gap < 1e-4
    assert resnet not in quick._forms.values()


@torch.inference_mode()
def test_without_torchscript_the_network_answers(resnet, float32, monkeypatch):
    monkeypatch.delattr(torch.jit, "freeze")
    quick, field = fast.form(resnet), torch.randn(2, 2, 32, 32)
    with pytest.warns(RuntimeWarning, match="no fast form: AttributeError"):
        assert torch.equal(quick(field), resnet(field))


def test_gradients_other_types_and_nothing_are_the_networks_matter(resnet, float32):
    quick = fast.form(copy.deepcopy(resnet))
    assert quick(torch.randn(1, 2, 32, 32)).requires_grad
    with torch.inference_mode():
        assert quick(torch.randn(0, 2, 32, 32)).shape == (0, CLASSES)
        assert quick.double()(torch.randn(1, 2, 32, 32).double()).dtype == torch.float64
    assert not quick._forms


def test_the_fused_form_holds_no_second_copy_of_the_weights_in_its_state(resnet):
    assert set(fast.form(resnet).state_dict()) == {f"network.{k}" for k in resnet.state_dict()}
