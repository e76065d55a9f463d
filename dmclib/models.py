"""The networks of DMC-Net: generator, discriminator, classifier, generator + classifier.

Sources: Shou et al., CVPR 2019 (arXiv:1901.03460), Table 2 for the generator. Layer sizes of the
discriminator, which the paper leaves to its supplement, are those of the authors' released code
(facebookresearch/dmc-net, ``Discriminator3``).
"""

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of a generator; the defaults are the paper's (Table 2)."""

    widths: tuple[int, ...] = (8, 8, 6, 4, 2)  # channels that each dense layer adds
    residual_channels: int = 3  # 0 leaves the residual out
    predicts: Literal["correction", "flow"] = "correction"  # added to the vectors, or alone
    attention: bool = False  # one more channel, which says where L_mse counts (supplement)
    networks: int = 1  # in sequence, each with the cue of the one before for vectors (supplement)


class DenseGenerator(nn.Module):
    """Sharpen a blocky motion field with the help of the residual.

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
        scale. With ``residual_channels=0`` the residual is not looked at.
        """
        return self.with_attention(motion, residual)[0]

    def with_attention(self, motion: Tensor, residual: Tensor) -> tuple[Tensor, Tensor | None]:
        """The cue, and where its reconstruction counts: (N, 1, H, W), of mean 1 in each item.

        Without ``attention`` in the config the second is None. The released code multiplies cue and
        flow by a map without bounds, and so could have the whole loss vanish with the map; ours is
        a softmax over the pixels, times their number.
        """
        made = self._dense(motion, residual)
        cue = motion + made[:, :2] if self.config.predicts == "correction" else made[:, :2]
        if self.following is not None:
            return self.following.with_attention(cue, residual)
        if not self.config.attention:
            return cue, None
        pixels = made[:, 2:].flatten(1)
        return cue, (pixels.softmax(dim=1) * pixels.shape[1]).view_as(made[:, 2:])

    def _dense(self, motion: Tensor, residual: Tensor) -> Tensor:
        """What the last layer gives, (N, 2 or 3, H, W)."""
        x = torch.cat([motion, residual], dim=1) if self.config.residual_channels else motion
        if x.shape[1] != 2 + self.config.residual_channels:  # else weights would be cut to fit
            raise ValueError(
                f"expected 2 + {self.config.residual_channels} channels of motion and residual, "
                f"got {x.shape[1]}."
            )
        convs = [layer[0] for layer in self.layers] + [self.to_cue]
        seen = [x.shape[1], *self.config.widths]  # channels of the input and of each layer
        # Convolution is linear in its input channels. So instead of stacking everything seen for
        # every layer, each map is convolved once, for all layers after it together, and the parts
        # are added up: the same sums in another order, in half the time.
        sums = [conv.bias.view(1, -1, 1, 1) for conv in convs]
        for number, channels in enumerate(seen):
            later = convs[number:]
            # A layer's inputs run from the newest map to the oldest, as in the released code.
            starts = [sum(seen[number + 1 : number + 1 + k]) for k in range(len(later))]
            weight = torch.cat(
                [c.weight[:, at : at + channels] for c, at in zip(later, starts, strict=True)]
            )
            parts = F.conv2d(x, weight, padding=1).split([c.out_channels for c in later], dim=1)
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
            finished = sums.pop(0)
            if number < len(self.layers):
                x = self.layers[number][1](finished)
        return finished


class Discriminator(nn.Module):
    """Tell optical flow from generated cues (paper, 3.3.2).

    Each stage halves the resolution: one 3x3 convolution of stride 2, then ``depth - 1`` of stride
    1, each followed by LeakyReLU(0.2), Dropout2d(0.25) and BatchNorm, but none after the very first
    convolution. The defaults are the released ``Discriminator3``; ``depth=1`` is the variant of its
    I3D runs. The released head is a linear layer over 128 x 14 x 14 values and fits 224 px alone;
    here the last map is averaged to ``pooled`` x ``pooled`` first, so that any size works. At
    224 px and the default of 14 that changes nothing.
    """

    def __init__(self, depth: int = 3, width: int = 16, stages: int = 4, pooled: int = 14):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 2
        for stage in range(stages):
            for step in range(depth):
                stride = 2 if step == 0 else 1
                layers += [
                    nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1),
                    nn.LeakyReLU(0.2),
                    nn.Dropout2d(0.25),
                ]
                if stage or step:
                    # eps 0.8 is a slip of the released code (a positional argument meant as
                    # momentum), kept because its trained models carry it.
                    layers.append(nn.BatchNorm2d(width, eps=0.8))
                channels = width
            width *= 2
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
    """A ResNet whose first convolution takes so many planes."""
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network


class DMCNet(nn.Module):
    """Generator, then classifier (paper, Figure 3): all that runs at test time."""

    def __init__(self, generator: nn.Module, classifier: nn.Module):
        super().__init__()
        self.generator, self.classifier = generator, classifier

    def forward(self, motion: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised motion (N, 2, H, W), residual (N, 3, H, W) -> logits (N, classes), cue."""
        cue = self.generator(motion, residual)
        return self.classifier(cue), cue


class C3D(nn.Module):
    """The 3D network that Table 1 begins with: here to be counted, not trained.

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
            # The last stage has 7 x 7 values; padded, it leaves 4 x 4, as the 8,192 of fc6 ask for.
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

    What Table 1 calls FLOPs: a multiplication and its addition count once, and only convolutions
    and matrix products count. Nothing is computed: the pass runs on shapes alone, and the network
    stays as it is.
    """
    network = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() // 2
