"""DMC-Net and its parts: Shou et al., CVPR 2019 (arXiv:1901.03460), Figure 3 and Table 2."""

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dmclib.transforms import Sample

Stream = Literal["motion", "residual", "flow", "rgb", "cue"]  # what a classifier sees


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of a generator; the defaults are the paper's (Table 2)."""

    widths: tuple[int, ...] = (8, 8, 6, 4, 2)  # channels that each dense layer adds
    residual_channels: int = 3  # 0 leaves the residual out
    predicts: Literal["correction", "flow"] = "correction"  # added to the vectors, or used alone
    attention: bool = False  # one more output channel, which weights L_mse by pixel (supplement)
    networks: int = 1  # in sequence; each takes the cue of the one before as motion (supplement)


class DenseGenerator(nn.Module):
    """Sharpen a blocky motion field with the help of the residual (Table 2).

    Every layer sees everything before it. With the default config there are 4,584 parameters, and
    the field keeps its resolution throughout.
    """

    def __init__(self, config: GeneratorConfig | None = None):
        super().__init__()
        self.config = config = config or GeneratorConfig()
        channels = 2 + config.residual_channels  # dx, dy and the residual
        self.layers = nn.ModuleList()
        for width in config.widths:
            conv = nn.Conv2d(channels, width, kernel_size=3, padding=1)
            self.layers.append(nn.Sequential(conv, nn.LeakyReLU(0.1)))
            channels += width
        last = config.networks == 1
        outputs = 3 if config.attention and last else 2
        self.to_cue = nn.Conv2d(channels, outputs, kernel_size=3, padding=1)
        self.following = None
        if not last:
            self.following = DenseGenerator(replace(config, networks=config.networks - 1))

    def forward(self, motion: Tensor, residual: Tensor) -> Tensor:
        """Map motion (N, 2, H, W) and residual (N, 3, H, W) to a cue (N, 2, H, W).

        Both inputs as :func:`dmclib.transforms.normalize` leaves them; the cue is on the motion's
        scale. With ``residual_channels=0`` the residual is ignored.
        """
        x = torch.cat([motion, residual], dim=1) if self.config.residual_channels else motion
        for layer in self.layers:
            x = torch.cat([layer(x), x], dim=1)  # newest first, as the released code has it
        cue, _ = self.cue_and_attention(motion, self.to_cue(x))
        return cue if self.following is None else self.following(cue, residual)

    def cue_and_attention(self, motion: Tensor, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split the last layer's output (N, 2 or 3, H, W) into cue and attention (N, 1, H, W).

        Attention has mean 1 over each item's pixels (a softmax times their number; the released
        code's map is unbounded, so its loss can vanish); without it in the config it is None.
        """
        cue = motion + output[:, :2] if self.config.predicts == "correction" else output[:, :2]
        if output.shape[1] == 2:
            return cue, None
        pixels = output[:, 2:].flatten(1)
        return cue, (pixels.softmax(dim=1) * pixels.shape[1]).view_as(output[:, 2:])


def summed(
    generator: DenseGenerator, motion: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor | None]:
    """A generator's cue and attention in half the time of ``generator(motion, residual)``.

    Convolution is linear in its input channels. So each map is convolved once for all later layers
    together, and the parts are added up: the same sums in another order. Training uses this form.

    Raises:
        ValueError: motion and residual have other channels than the config says; slices of the
            weights would fit nevertheless.
    """
    config = generator.config
    x = torch.cat([motion, residual], dim=1) if config.residual_channels else motion
    if x.shape[1] != 2 + config.residual_channels:
        raise ValueError(
            f"expected 2 + {config.residual_channels} channels of motion and residual, "
            f"got {x.shape[1]}."
        )
    convs = [layer[0] for layer in generator.layers] + [generator.to_cue]
    widths = [x.shape[1], *config.widths]  # channels of the input and of each layer
    sums = [conv.bias.view(1, -1, 1, 1) for conv in convs]
    for number, channels in enumerate(widths):
        later = convs[number:]
        # A layer's input channels run from the newest map to the oldest.
        starts = [sum(widths[number + 1 : number + 1 + k]) for k in range(len(later))]
        weight = torch.cat(
            [c.weight[:, at : at + channels] for c, at in zip(later, starts, strict=True)]
        )
        parts = F.conv2d(x, weight, padding=1).split([c.out_channels for c in later], dim=1)
        sums = [total + part for total, part in zip(sums, parts, strict=True)]
        output = sums.pop(0)
        if number < len(generator.layers):
            x = generator.layers[number][1](output)
    cue, attention = generator.cue_and_attention(motion, output)
    if generator.following is None:
        return cue, attention
    return summed(generator.following, cue, residual)


class Discriminator(nn.Module):
    """Tell optical flow from generated cues (paper, 3.3.2).

    Each stage halves the resolution: one 3x3 convolution of stride 2, then ``depth - 1`` of stride
    1, each followed by LeakyReLU(0.2), Dropout2d(0.25) and, but for the very first, BatchNorm. The
    defaults are the authors' released ``Discriminator3`` (the paper leaves layers to a supplement);
    ``depth=1`` is that of the released I3D runs. The last map is averaged to ``pooled`` x
    ``pooled``, so that any size works; at the released 224 px and 14 this changes nothing.
    """

    def __init__(self, depth: int = 3, *, pooled: int = 14):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 2
        for stage, width in enumerate((16, 32, 64, 128)):
            for step in range(depth):
                stride = 2 if step == 0 else 1
                layers += [
                    nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1),
                    nn.LeakyReLU(0.2),
                    nn.Dropout2d(0.25),
                ]
                if stage or step:
                    # eps 0.8 is a slip of the released code: a positional argument meant as
                    # momentum. Its trained models have it.
                    layers.append(nn.BatchNorm2d(width, eps=0.8))
                channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(pooled)
        self.to_logits = nn.Linear(channels * pooled * pooled, 2)

    def forward(self, field: Tensor) -> Tensor:
        """Map normalised motion fields (N, 2, H, W) to logits (N, 2): column 0 fake, 1 real."""
        return self.to_logits(self.pool(self.features(field)).flatten(1))


def motion_resnet18(classes: int, *, channels: int = 2) -> nn.Module:
    """ResNet-18 over ``channels`` input planes (2 for motion, 3 for pictures), random weights.

    Maps (N, channels, H, W), any H and W from 32 px, to logits (N, classes). Only the first
    convolution differs from torchvision's (paper, 4.2).
    """
    return _with_planes(torchvision.models.resnet18(num_classes=classes), channels)


def motion_resnet152(classes: int, *, channels: int = 3) -> nn.Module:
    """ResNet-152, the paper's network for I-frames (4.2), as :func:`motion_resnet18`."""
    return _with_planes(torchvision.models.resnet152(num_classes=classes), channels)


def _with_planes(network: nn.Module, channels: int) -> nn.Module:
    """Give a ResNet a first convolution over ``channels`` planes, and quick ones at its end."""
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    for module in network.layer4.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.__class__ = SmallMapConv2d  # another way to compute with the same weights
    return network


class SmallMapConv2d(nn.Conv2d):
    """A 3x3 convolution with padding 1 that learns from maps of few pixels by a matrix product.

    The last stage of a ResNet has 2 x 2 values of a crop of 64 px, and 3 x 3 of 96. On a processor
    torch's convolution learns there at a tenth of the speed that it has elsewhere.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Conv2d``, but for the order of sums."""
        height, width = ((side - 1) // self.stride[0] + 1 for side in x.shape[-2:])
        if not torch.is_grad_enabled() or x.device.type != "cpu" or height * width > 9:
            return super().forward(x)
        patches = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, self.stride[0]).unfold(3, 3, self.stride[0])
        # Channels last, as the weights lie in memory: no copy of these is made.
        rows = patches.permute(0, 2, 3, 4, 5, 1).reshape(len(x) * height * width, -1)
        product = rows @ self.weight.permute(0, 2, 3, 1).flatten(1).t()
        return product.view(len(x), height, width, -1).permute(0, 3, 1, 2)


class DMCNet(nn.Module):
    """The networks of Figure 3: what one stream trains and runs.

    Args:
        classifier: maps (N, 2 or 3, H, W) to logits (N, classes), or, with ``clip_frames``, clips
            (N, 2 or 3, T, H, W).
        generator: of stream "cue": motion and residual to the cue.
        discriminator: of the adversarial stage; not used at test time.
        stream: what the classifier sees: the cue, or one of a sample's own fields. "rgb" samples
            have the decoded picture in the place of the residual.
        clip_frames: frames per clip, if the classifier takes clips; None: it takes frames.
    """

    def __init__(
        self,
        classifier: nn.Module,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        stream: Stream,
        clip_frames: int | None = None,
    ):
        super().__init__()
        self.classifier, self.generator = classifier, generator
        self.discriminator, self.stream, self.clip_frames = discriminator, stream, clip_frames

    def forward(self, motion: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """All that runs at test time: normalised motion and residual -> logits and cue."""
        cue = self.generator(motion, residual)
        return self.logits(cue), cue

    def field(self, sample: Sample) -> Tensor:
        """What the classifier sees of a normalised sample: (N, 2 or, for pictures, 3, H, W)."""
        return self.field_and_attention(sample)[0]

    def field_and_attention(self, sample: Sample) -> tuple[Tensor, Tensor | None]:
        """:meth:`field`, and the generator's attention if it has one; by :func:`summed`."""
        if self.stream == "cue":
            return summed(self.generator, sample.motion, sample.residual)
        return sample.residual if self.stream == "rgb" else getattr(sample, self.stream), None

    def logits(self, field: Tensor) -> Tensor:
        """Class scores of what :meth:`field` returned: per frame, or per clip of frames."""
        if self.clip_frames is not None:
            field = field.unflatten(0, (-1, self.clip_frames)).transpose(1, 2).contiguous()
        return self.classifier(field)


class C3D(nn.Module):
    """The first network of Table 1: it is counted here, not trained.

    Tran et al., ICCV 2015 (arXiv:1412.0767), section 3.3: eight 3x3x3 convolutions, five poolings
    (the first leaves time alone), two fully connected layers of 4,096, and the classes.
    """

    def __init__(self, classes: int = 487):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage, widths in enumerate([(64,), (128,), (256, 256), (512, 512), (512, 512)]):
            for width in widths:
                layers += [nn.Conv3d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
                channels = width
            # The last stage has 7 x 7 values. Padding leaves 4 x 4, as fc6's 8,192 inputs need.
            padding = (0, 1, 1) if stage == 4 else 0
            layers.append(nn.MaxPool3d((1, 2, 2) if stage == 0 else 2, padding=padding))
        self.features = nn.Sequential(*layers)
        wide = [nn.Linear(512 * 4 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
        self.to_logits = nn.Sequential(*wide, nn.Linear(4096, classes))

    def forward(self, clip: Tensor) -> Tensor:
        """Map clips (N, 3, 16, 112, 112) to logits (N, classes)."""
        return self.to_logits(self.features(clip).flatten(1))


def count_macs(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Multiply-adds of one forward pass over inputs of these shapes, batch dimension included.

    Table 1 calls them FLOPs; only convolutions and matrix products count. The pass runs on shapes
    alone and leaves the network as it is.
    """
    network = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() // 2
