"""The networks as fast as the machine allows: same weights, same answers, for inference.

PyTorch runs the generator's six layers one after the other, each through memory. The compiled forms
run them in one pass on chip: on the processor ``dense_generator.c`` (:mod:`dmclib.fast.cpu`), on a
CUDA GPU ``dense_generator.cu`` (:mod:`dmclib.fast.cuda`). They are compiled when they are first
needed. Classifiers are fused on the processor (:mod:`dmclib.fast.fused`). All forms are checked
against the network. Where they fail, the network itself is used, so results never depend on a
compiler.
"""

import copy
import warnings

import torch
from torch import Tensor, nn

from dmclib.errors import DMCError
from dmclib.fast import cpu, cuda
from dmclib.fast.fused import FusedNetwork
from dmclib.models import DenseGenerator, DMCNet, GeneratorConfig

# Largest difference to the float32 network, on the motion's normalised scale.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
TOLERANCE = TOLERANCES[torch.float32]


class CompiledGenerator:
    """A :class:`DenseGenerator` for inference, with its present weights.

    Called like the network: motion (N, 2, H, W) and residual (N, 3, H, W) to a cue (N, 2, H, W).
    The type is the network's: float32, and on a GPU also bfloat16, whose sums are float32. The
    field is that of the float32 network within :data:`TOLERANCES`, which is checked once, here, on
    random pictures. The network itself answers while gradients are enabled, and for inputs of
    another type, device or shape.

    Raises:
        DMCError: it cannot be compiled, fails the check, or does not know such a network.
    """

    def __init__(self, network: DenseGenerator):
        self.network = network
        weight = network.to_cue.weight
        self._device, self._dtype = weight.device, weight.dtype
        self._channels = [*filter(None, (2, network.config.residual_channels))]  # of the inputs
        on_cpu = self._device.type == "cpu"
        types = [torch.float32] if on_cpu else [torch.float32, torch.bfloat16]
        if not knows(network) or self._dtype not in types:
            raise DMCError(f"there is no compiled form for {self._dtype} and {network.config}.")
        if on_cpu:
            self._stack = cpu.Stack(**parts(network))
        else:
            self._stack = cuda.Stack(**parts(network), device=self._device, dtype=self._dtype)
        self._check()

    def __call__(self, motion: Tensor, residual: Tensor) -> Tensor:
        """The cue, as :class:`DenseGenerator` gives it."""
        inputs = [motion, residual][: len(self._channels)]
        if torch.is_grad_enabled() or not self._takes(*inputs):
            return self.network(motion, residual)
        return self._stack(*(x.contiguous() for x in inputs))

    def _takes(self, *inputs: Tensor) -> bool:
        """Whether type and shapes are right; if not, the network raises its own error."""
        first = inputs[0].shape
        return all(
            x.device == self._device
            and x.dtype == self._dtype
            and x.ndim == 4
            and x.numel()
            and x.shape == (first[0], channels, *first[2:])
            for x, channels in zip(inputs, self._channels, strict=True)
        )

    @torch.inference_mode()
    def _check(self) -> None:
        """Compare the cues of random pictures with the network's, in float32 on the CPU."""
        network = copy.deepcopy(self.network).float().cpu()
        dice = torch.Generator().manual_seed(0)
        for run, (count, height, width) in self._stack.trials():
            shapes = [(count, channels, height, width) for channels in self._channels]
            inputs = [torch.randn(shape, generator=dice).to(self._dtype) for shape in shapes]
            cue = run(*(x.to(self._device) for x in inputs)).float().cpu()
            expected = network(*(x.float() for x in [*inputs, inputs[0]][:2]))
            gap = (cue - expected).abs().max().item()
            if not gap <= TOLERANCES[self._dtype]:  # not so for NaN either
                raise DMCError(
                    f"the compiled generator is {gap:.2g} off the network on this machine "
                    f"({self._device.type}): please report it. PyTorch's own form is used."
                )


def knows(network: DenseGenerator) -> bool:
    """Whether there is a compiled form: for any widths, residual_channels and predicts."""
    config = network.config
    known = GeneratorConfig(config.widths, config.residual_channels, config.predicts)
    return config == known and len(config.widths) > 0


def parts(network: DenseGenerator) -> dict:
    """A network's parts as :class:`dmclib.fast.cpu.Stack` takes them, in float32 on the CPU."""
    convs = [layer[0] for layer in network.layers] + [network.to_cue]
    channels = [convs[0].in_channels, *network.config.widths]
    weights = []
    for number, conv in enumerate(convs):
        # The network stacks the newest map first; here it is the oldest.
        by_map = conv.weight.detach().float().cpu().split(channels[number::-1], dim=1)
        weights.append(torch.cat(by_map[::-1], dim=1))
    return {
        "weights": weights,
        "biases": [conv.bias.detach().float().cpu() for conv in convs],
        "slope": network.layers[0][1].negative_slope,
        "correction": network.config.predicts == "correction",
    }


def form(network: nn.Module) -> nn.Module | CompiledGenerator:
    """The fastest form of a network here for inference; its weights must not change afterwards.

    Args:
        network: in evaluation mode: a :class:`DenseGenerator`, a classifier or another network of
            one input, or a :class:`DMCNet`.

    Returns:
        Something called like the network; of a ``DMCNet``, one of such parts, whose cue comes by
        ``forward`` and not by ``field``. The network itself stands for a classifier on a GPU, for
        generators that the compiled forms do not know and, with a warning, for those that cannot
        be compiled or fail their check.
    """
    if isinstance(network, DMCNet):
        kind = {"stream": network.stream, "clip_frames": network.clip_frames}
        generator = network.generator and form(network.generator)
        return DMCNet(form(network.classifier), generator, **kind).eval()
    device = next(network.parameters()).device.type
    if not isinstance(network, DenseGenerator):
        return FusedNetwork(network) if device == "cpu" else network
    if not knows(network) or device not in ("cpu", "cuda"):
        return network
    try:
        return CompiledGenerator(network)
    except Exception as problem:  # whatever a compiler or driver does, the network can answer
        reason = str(problem) if isinstance(problem, DMCError) else f"no fast form: {problem!r}."
        warnings.warn(reason, RuntimeWarning, stacklevel=2)
        return network
