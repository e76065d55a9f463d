"""Checkpoints in the authors' layout with random weights, and what they do with an input."""

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

STD = np.float32([0.229, 0.224, 0.225])
MEAN = np.float32([0.485, 0.456, 0.406])


def resnet(planes, classes=5):
    network = torchvision.models.resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(planes, 64, 7, stride=2, padding=3, bias=False)
    return with_moments(network)


def with_moments(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return network


def under(name, network):
    return {f"{name}.{k}": tensor for k, tensor in network.state_dict().items()}


def stream_state(planes, classes=5):
    """A stream of CoViAR; that of I-frames has no norm of its input."""
    norm = with_moments(nn.BatchNorm2d(planes))
    norm.running_var *= 0.05  # of values below a half
    return under("base_model", resnet(planes, classes)) | under("data_bn", norm)


def dmc_state(depth=3, classes=5):
    """All names of section 8, with random weights; of depth 0 without the discriminator."""
    state, channels = under("base_model", resnet(2, classes)), 5
    for k, width in enumerate((8, 8, 6, 4, 2)):
        state |= under(f"gen_flow_model.conv_{k}.0", nn.Conv2d(channels, width, 3))
        channels += width
    state |= under("gen_flow_model.predict_flow", nn.Conv2d(channels, 2, 3))
    state |= under("data_bn", nn.BatchNorm2d(2))
    if depth == 0:
        return state
    before = 2
    for stage, width in enumerate((16, 32, 64, 128), 1):
        for step in ("", "_2", "_3")[:depth]:
            block = f"discriminator.discriminator_block_{stage}{step}"
            state |= under(f"{block}.0", nn.Conv2d(before, width, 3))
            if block != "discriminator.discriminator_block_1":
                state |= under(f"{block}.3", with_moments(nn.BatchNorm2d(width)))
            before = width
    return state | under("discriminator.adv_layer", nn.Linear(128 * 14 * 14, 2))


def write(path, state, **options):
    content = {"epoch": 49, "arch": "resnet18", "best_prec1": torch.tensor(61.8)}
    content["state_dict"] = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(content | {"optimizer": {"state": {}, "param_groups": []}}, path, **options)
    return path


def their_vectors(sample):
    v = sample.motion.numpy()
    return (np.clip((v * 127.5 / 20).astype(np.int32) + 128, 0, 255) / 255 - 0.5).astype(np.float32)


def their_residual(sample):
    blue_first = sample.residual.numpy()[:, ::-1]
    scaled = np.clip(blue_first + 128, 0, 255) / 255 - 0.5
    return (scaled / STD[:, None, None]).astype(np.float32)


def convolved(state, name, x, stride=1):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding=1)


def normed(state, name, x, eps):
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{k}"] for k in names), eps=eps)


def classified(state, x):
    network = resnet(x.shape[1], len(state["base_model.fc.bias"])).eval()
    own = {k.removeprefix("base_model."): t for k, t in state.items() if k.startswith("base_")}
    network.load_state_dict(own)
    return network(x)


def their_cue(state, sample):
    """The generator's field, from section 8 alone."""
    vectors = torch.from_numpy(their_vectors(sample)) / 0.226
    x = torch.cat([vectors, torch.from_numpy(their_residual(sample))], dim=1)
    for k in range(5):
        x = torch.cat([F.leaky_relu(convolved(state, f"gen_flow_model.conv_{k}.0", x), 0.1), x], 1)
    return convolved(state, "gen_flow_model.predict_flow", x) + vectors
