import copy
from operator import attrgetter

import pytest
import torch
import torchvision
from torch import nn

from dmclib import models
from dmclib.transforms import Sample
from tests.close import FLOAT32


def test_the_generator_has_the_papers_4584_parameters():
    # Table 2, by hand: 3x3 weights of each layer, then its biases.
    by_hand = 9 * (5 * 8 + 13 * 8 + 21 * 6 + 27 * 4 + 31 * 2 + 33 * 2) + 30
    assert by_hand == 4_584
    assert sum(p.numel() for p in models.DenseGenerator().parameters()) == by_hand


def test_input_widths_are_those_of_table_2():
    generator = models.DenseGenerator()
    convolutions = [m for m in generator.modules() if isinstance(m, nn.Conv2d)]
    assert [c.in_channels for c in convolutions] == [5, 13, 21, 27, 31, 33]
    assert [c.out_channels for c in convolutions] == [8, 8, 6, 4, 2, 2]


def test_a_generator_with_a_zero_head_returns_the_motion_it_was_given():
    generator = models.DenseGenerator()
    nn.init.zeros_(generator.to_cue.weight)
    nn.init.zeros_(generator.to_cue.bias)
    motion, residual = torch.randn(2, 2, 20, 24), torch.randn(2, 3, 20, 24)
    assert torch.equal(generator(motion, residual), motion)


def test_without_shortcut_a_zero_head_gives_zero():
    generator = models.DenseGenerator(models.GeneratorConfig(predicts="flow"))
    nn.init.zeros_(generator.to_cue.weight)
    nn.init.zeros_(generator.to_cue.bias)
    assert not generator(torch.randn(1, 2, 8, 8), torch.randn(1, 3, 8, 8)).any()


def test_each_layer_sees_everything_before_it_newest_first():
    generator = models.DenseGenerator()
    motion, residual = torch.randn(1, 2, 9, 9), torch.randn(1, 3, 9, 9)
    seen = [torch.cat([motion, residual], dim=1)]
    for layer in generator.layers:
        conv = layer[0]
        made = nn.functional.conv2d(torch.cat(seen[::-1], 1), conv.weight, conv.bias, padding=1)
        seen.append(torch.where(made > 0, made, 0.1 * made))
    head = generator.to_cue
    expected = motion + nn.functional.conv2d(
        torch.cat(seen[::-1], 1), head.weight, head.bias, padding=1
    )
    torch.testing.assert_close(generator(motion, residual), expected, **FLOAT32)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"residual_channels": 0},
        {"predicts": "flow"},
        {"widths": (3, 17)},
        {"networks": 2, "attention": True},
    ],
    ids=str,
)
def test_the_summed_form_is_the_network(settings):
    generator = models.DenseGenerator(models.GeneratorConfig(**settings))
    motion, residual = torch.randn(2, 2, 20, 24), torch.randn(2, 3, 20, 24)
    cues = generator(motion, residual), models.summed(generator, motion, residual)[0]
    torch.testing.assert_close(*cues, **FLOAT32)
    own, of_summed = (
        torch.autograd.grad(cue.square().sum(), list(generator.parameters()), allow_unused=True)
        for cue in cues
    )
    for one, other in zip(own, of_summed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_without_residual_channels_the_residual_changes_nothing():
    generator = models.DenseGenerator(models.GeneratorConfig(residual_channels=0))
    motion = torch.randn(1, 2, 8, 8)
    one, other = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    assert torch.equal(generator(motion, one), generator(motion, other))


def test_the_released_discriminator_has_twelve_convolutions_and_eleven_norms():
    discriminator = models.Discriminator()
    convolutions = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [c.out_channels for c in convolutions] == [16] * 3 + [32] * 3 + [64] * 3 + [128] * 3
    assert [c.stride[0] for c in convolutions] == [2, 1, 1] * 4
    assert len(norms) == 11
    assert {n.eps for n in norms} == {0.8}
    assert discriminator.to_logits.in_features == 128 * 14 * 14


def test_pooling_is_no_change_at_224_px():
    discriminator = models.Discriminator().eval()
    maps = discriminator.features(torch.randn(1, 2, 224, 224))
    assert torch.equal(discriminator.pool(maps), maps)


@pytest.mark.parametrize("size", [64, 97])
def test_discriminator_and_classifier_take_other_sizes(size):
    field = torch.randn(2, 2, size, size)
    assert models.Discriminator(depth=1).eval()(field).shape == (2, 2)
    assert models.motion_resnet18(7).eval()(field).shape == (2, 7)


def test_dmcnet_classifies_the_cue_that_it_returns():
    net = models.DMCNet(models.motion_resnet18(5), models.DenseGenerator(), stream="cue").eval()
    motion, residual = torch.randn(1, 2, 64, 64), torch.randn(1, 3, 64, 64)
    logits, cue = net(motion, residual)
    assert torch.equal(cue, net.generator(motion, residual))
    torch.testing.assert_close(logits, net.classifier(cue), **FLOAT32)


@pytest.mark.parametrize("stream", ["motion", "residual", "flow", "rgb", "cue"])
def test_each_stream_sees_its_own_field(stream):
    generator = models.DenseGenerator() if stream == "cue" else None
    net = models.DMCNet(nn.Identity(), generator, stream=stream)
    sample = Sample(*(torch.randn(2, channels, 8, 8) for channels in (2, 3, 2)))
    field, attention = net.field_and_attention(sample)
    expected = {"motion": sample.motion, "flow": sample.flow}.get(stream, sample.residual)
    if stream == "cue":
        expected = generator(sample.motion, sample.residual)
    torch.testing.assert_close(field, expected, **FLOAT32)
    assert attention is None


def test_a_classifier_of_clips_gets_consecutive_frames_as_one_clip():
    net = models.DMCNet(nn.Identity(), stream="motion", clip_frames=3)
    field = torch.randn(6, 2, 8, 8)
    clips = net.logits(field)
    assert clips.shape == (2, 2, 3, 8, 8)
    assert torch.equal(clips[1, :, 2], field[5])


def test_multiply_adds_of_the_generator_are_those_of_table_1():
    # Every weight is used once for every pixel: the paper's 0.23 GFLOPs at 224 x 224.
    by_hand = 9 * (5 * 8 + 13 * 8 + 21 * 6 + 27 * 4 + 31 * 2 + 33 * 2) * 224 * 224
    shapes = (1, 2, 224, 224), (1, 3, 224, 224)
    assert models.count_macs(models.DenseGenerator(), *shapes) == by_hand
    assert round(by_hand / 1e9, 2) == 0.23


def test_c3d_is_as_large_and_as_dear_as_published():
    with torch.device("meta"):
        network = models.C3D()
    # Tran et al. 2015: eight convolutions of 3x3x3 over 3 to 512 channels, then fc6, fc7 and fc8.
    pairs = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512)] + [(512, 512)] * 3
    outputs = [16 * 112**2, 16 * 56**2] + [8 * 28**2] * 2 + [4 * 14**2] * 2 + [2 * 7**2] * 2
    convolved = sum(27 * a * b * n for (a, b), n in zip(pairs, outputs, strict=True))
    connected = 8192 * 4096 + 4096 * 4096 + 4096 * 487
    assert models.count_macs(network, (1, 3, 16, 112, 112)) == convolved + connected
    assert convolved / 1e9 == pytest.approx(38.5, rel=0.02)  # DMC-Net's Table 1


@pytest.mark.parametrize(
    ("name", "weights", "shape"),
    [
        ("resnet18", "ResNet18_Weights", (1, 3, 224, 224)),
        ("resnet152", "ResNet152_Weights", (1, 3, 224, 224)),
        ("googlenet", "GoogLeNet_Weights", (1, 3, 224, 224)),
        ("video.r3d_18", "video.R3D_18_Weights", (1, 3, 16, 112, 112)),
    ],
)
def test_multiply_adds_are_those_that_torchvision_publishes(name, weights, shape):
    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        network = attrgetter(name)(torchvision.models)(weights=None, **options)
    published = next(iter(attrgetter(weights)(torchvision.models))).meta["_ops"]
    assert models.count_macs(network, shape) / 1e9 == pytest.approx(published, rel=0.02)


def test_a_batch_costs_as_many_multiply_adds_as_its_pictures():
    one, four = ((n, 2, 32, 32) for n in (1, 4))
    counted = [models.count_macs(models.motion_resnet18(5), shape) for shape in (one, four)]
    assert counted[1] == 4 * counted[0]


def test_a_network_survives_being_counted():
    generator = models.DenseGenerator().train()
    before = [p.clone() for p in generator.parameters()]
    models.count_macs(generator, (1, 2, 8, 8), (1, 3, 8, 8))
    assert generator.training
    assert all(torch.equal(a, b) for a, b in zip(before, generator.parameters(), strict=True))


def test_the_pwc_size_generator_has_the_counts_that_its_widths_give():
    widths = (128, 128, 96, 64, 32)  # PWC-Net's
    generator = models.DenseGenerator(models.GeneratorConfig(widths=widths))
    by_hand, channels = 0, 5
    for width in (*widths, 2):
        by_hand += 9 * channels * width + width
        channels += width
    assert sum(p.numel() for p in generator.parameters()) == by_hand


def test_attention_is_one_more_channel_of_the_last_layer_and_has_mean_one():
    generator = models.DenseGenerator(models.GeneratorConfig(attention=True))
    assert sum(p.numel() for p in generator.parameters()) == 4_584 + 9 * 33 + 1
    motion, residual = torch.randn(2, 2, 8, 10), torch.randn(2, 3, 8, 10)
    cue, attention = models.summed(generator, motion, residual)
    assert (cue.shape, attention.shape) == ((2, 2, 8, 10), (2, 1, 8, 10))
    torch.testing.assert_close(attention.mean((1, 2, 3)), torch.ones(2), **FLOAT32)
    assert (attention > 0).all()
    torch.testing.assert_close(cue, generator(motion, residual), **FLOAT32)
    assert models.summed(models.DenseGenerator(), motion, residual)[1] is None


def test_two_networks_in_sequence_are_one_after_the_other():
    two = models.DenseGenerator(models.GeneratorConfig(networks=2, attention=True))
    assert sum(p.numel() for p in two.parameters()) == 2 * 4_584 + 9 * 33 + 1
    motion, residual = torch.randn(1, 2, 8, 8), torch.randn(1, 3, 8, 8)
    first = models.DenseGenerator()
    first.load_state_dict({k: v for k, v in two.state_dict().items() if not k.startswith("foll")})
    expected = two.following(first(motion, residual), residual)
    torch.testing.assert_close(two(motion, residual), expected, **FLOAT32)


def test_resnet_152_is_the_papers_network_for_i_frames():
    with torch.device("meta"):
        network = models.motion_resnet152(1000)
    assert sum(p.numel() for p in network.parameters()) == 60_192_808  # torchvision's documentation


def test_a_residual_of_too_few_channels_is_refused():
    with pytest.raises(ValueError, match=r"expected 2 \+ 3 channels of motion and residual, got 4"):
        models.summed(models.DenseGenerator(), torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [2, 3, 5, 6, 12])
def test_a_convolution_of_few_pixels_is_a_convolution(side, stride):
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 4, 3, stride=stride, padding=1, bias=False).double()
    quick = copy.deepcopy(plain)
    quick.__class__ = models.SmallMapConv2d
    x = torch.randn(3, 6, side, side + 1, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for network, data in zip((plain, quick), inputs, strict=True):
        network(data).square().sum().backward()
    torch.testing.assert_close(quick(x), plain(x))
    torch.testing.assert_close(quick.weight.grad, plain.weight.grad)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)


def test_the_last_stage_of_a_resnet_is_quick_and_keeps_its_names():
    network, original = models.motion_resnet18(10, channels=3), torchvision.models.resnet18()
    quick = [name for name, m in network.named_modules() if isinstance(m, models.SmallMapConv2d)]
    assert quick == [f"layer4.{block}.conv{k}" for block in (0, 1) for k in (1, 2)]
    assert network.state_dict().keys() == original.state_dict().keys()
