"""The authors' trained networks, read from their checkpoints (RELEASED_CODE.md, section 8).

Their inputs have other planes and scales than ours. The weights are changed instead, so that a
network takes what :func:`dmclib.transforms.normalize` makes with ``eight_bit``.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from dmclib import models, weights
from dmclib.errors import CheckpointError
from dmclib.models import DMCNet, Stream
from dmclib.transforms import IMAGENET_STD, MOTION_STD

_REMEDY = "give one of the authors' checkpoints, *_model_best.pth.tar, as they published it"
_STD = torch.tensor(IMAGENET_STD)
_MEAN = torch.tensor([0.485, 0.456, 0.406])  # ImageNet's, of R, G, B: taken off CoViAR's I-frames
# Their residual is B, G, R over the deviations of R, G, B: theirs over ours, of our R, G and B.
_RESIDUAL_SCALE = _STD / _STD.flip(0)
State = dict[str, Tensor]


def load_released(path: str | Path, *, classes: int | None = None) -> DMCNet:
    """Read a DMC-Net with ResNet-18, or one of CoViAR's streams, from the authors' checkpoint.

    Only tensors are read; nothing in the file is run. On samples from ``normalize(sample,
    eight_bit=True)`` the network answers as theirs does, to 1e-4. ``stream`` says what it sees:
    "cue" (with ``generator``, and ``discriminator`` where the file has one), or "motion",
    "residual" and "rgb" for CoViAR's, whose classifier begins with the normalisation of its input.

    Args:
        path: what ``torch.save`` wrote, in its format of today or of before 2020.
        classes: of the data set that is to be recognised; None takes the file's.

    Returns:
        The networks on the CPU, in evaluation mode.

    Raises:
        CheckpointError: the file is missing or damaged, lacks a name or has one without a place,
            or is of another number of classes.
    """
    path = Path(path)
    theirs = _read(path)
    network, names = _build(theirs, path)
    own, counters = network.state_dict(), {n for n in names if n.endswith("num_batches_tracked")}
    if wrong := sorted(names.keys() - theirs.keys() - counters):
        raise CheckpointError(
            f"{path} has no {wrong[0]!r}, one of {len(wrong)} names that it lacks; {_REMEDY}."
        )
    if wrong := sorted(theirs.keys() - names.keys()):
        raise CheckpointError(
            f"{path} has {wrong[0]!r}, one of {len(wrong)} names without a place here; {_REMEDY}."
        )
    found = len(theirs["base_model.fc.bias"])
    if classes not in (None, found):
        raise CheckpointError(
            f"{path} tells {found} classes apart, and the data set has {classes}: give the "
            "checkpoint of that data set."
        )
    weights.fill(network, own | {names[name]: tensor for name, tensor in theirs.items()}, path)
    _take_our_planes(network)
    return network.eval()


def _read(path: Path) -> State:
    """Name without DataParallel's prefix -> tensor; without an input norm that no run has used."""
    content = weights.unpickle(path, remedy=_REMEDY)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{path} holds no 'state_dict' of tensors; {_REMEDY}.")
    state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    if any(name.startswith("gen_flow_model.") for name in state):
        return {name: t for name, t in state.items() if not name.startswith("data_bn.")}
    return state


def _build(theirs: State, path: Path) -> tuple[DMCNet, dict[str, str]]:
    """Networks of the shapes that the file has, with new weights; their names -> ours."""
    shapes = {name: tensor.shape for name, tensor in theirs.items()}
    convolution, last = (shapes.get(f"base_model.{n}.weight", ()) for n in ("conv1", "fc"))
    if len(convolution) != 4 or len(last) != 2 or convolution[1] not in (2, 3):
        raise CheckpointError(
            f"{path} holds no ResNet of 2 or 3 planes as 'base_model'; {_REMEDY}."
        )
    deep = "base_model.layer3.35.conv1.weight" in shapes
    resnet = models.motion_resnet152 if deep else models.motion_resnet18
    classifier = resnet(last[0], channels=convolution[1])
    if any(name.startswith("gen_flow_model.") for name in shapes):
        discriminator = None
        if any(name.startswith("discriminator.") for name in shapes):
            depth = 3 if "discriminator.discriminator_block_1_2.0.weight" in shapes else 1
            discriminator = models.Discriminator(depth)
        network = DMCNet(classifier, models.DenseGenerator(), discriminator, stream="cue")
        return network, dict(_names(network, "classifier"))
    stream: Stream = "motion" if convolution[1] == 2 else "residual"
    if stream == "residual" and "data_bn.weight" not in shapes:
        stream = "rgb"
    parts = OrderedDict(norm=nn.BatchNorm2d(convolution[1]), resnet=classifier)
    network = DMCNet(nn.Sequential(parts), stream=stream)
    return network, dict(_names(network, "classifier.resnet"))


def _names(network: DMCNet, resnet: str) -> Iterator[tuple[str, str]]:
    """Their name and ours of every tensor that a file of this network has."""
    parts = {f"{resnet}.": "base_model."}
    if network.stream != "rgb":  # whose pictures are normalised before
        parts["classifier.norm."] = "data_bn."
    if network.generator is not None:
        parts["generator.to_cue."] = "gen_flow_model.predict_flow."
        layers = range(len(network.generator.layers))
        parts |= {f"generator.layers.{k}.": f"gen_flow_model.conv_{k}." for k in layers}
    if network.discriminator is not None:
        parts["discriminator.to_logits."] = "discriminator.adv_layer."
        parts |= _discriminator_parts(network.discriminator)
    for name in network.state_dict():
        for ours, theirs in parts.items():
            if name.startswith(ours):
                yield theirs + name.removeprefix(ours), name


def _discriminator_parts(discriminator: models.Discriminator) -> dict[str, str]:
    """Our place of each convolution and norm -> theirs: four stages of one or three blocks."""
    convolutions = [m for m in discriminator.features if isinstance(m, nn.Conv2d)]
    depth, parts, block = len(convolutions) // 4, {}, -1
    for number, module in enumerate(discriminator.features):
        block += isinstance(module, nn.Conv2d)
        step = block % depth
        theirs = f"discriminator.discriminator_block_{block // depth + 1}"
        theirs += f"_{step + 1}" if step else ""
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            within = 0 if isinstance(module, nn.Conv2d) else 3
            parts[f"discriminator.features.{number}."] = f"{theirs}.{within}."
    return parts


@torch.no_grad()
def _take_our_planes(network: DMCNet) -> None:
    """Change the weights that meet the input, from their planes and scales to ours."""
    if network.generator is not None:
        layers = [layer[0] for layer in network.generator.layers]
        for convolution in (*layers, network.generator.to_cue):  # each sees the input last
            residual = convolution.weight[:, -3:]
            residual.copy_(residual.flip(1) * _RESIDUAL_SCALE.view(1, 3, 1, 1))
        return
    norm, resnet = network.classifier.norm, network.classifier.resnet
    if network.stream == "rgb":  # ours has 0.5 taken off, theirs the mean
        norm.running_var.fill_(1 - norm.eps)
        norm.bias.copy_((0.5 - _MEAN) / _STD)
        return
    scale = torch.tensor(MOTION_STD)  # theirs is not divided by it
    if network.stream == "residual":
        scale = _RESIDUAL_SCALE
        for vector in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            vector.copy_(vector.flip(0))
        resnet.conv1.weight.copy_(resnet.conv1.weight.flip(1))
    norm.running_mean.div_(scale)
    norm.running_var.add_(norm.eps).div_(scale.square()).sub_(norm.eps)
