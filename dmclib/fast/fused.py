"""A classifier on the processor: batch norms folded, channels last, one pass per convolution.

TorchScript traces and freezes the network, which folds batch norms into convolutions; oneDNN's
Graph API, which comes with PyTorch, then runs a convolution with the additions and ReLUs behind it
in one pass. OpenVINO's float32 form and ``torch.compile`` are no faster; the one would be a package
more, the other takes ten seconds and a C++ compiler in every process.
"""

import copy
import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dmclib import machine
from dmclib.errors import DMCError

# Largest difference of a score to the float32 network's, as a share of its largest score. A trained
# ResNet-18 whose bfloat16 scores differ by 1.1 % on random pictures gave 99.65 % of 3,750 test
# frames, and all of 150 test clips, their float32 label; the largest difference there was 0.7 %.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # of pictures, of clips
_LOOK = 4  # random items that are compared
_FUSING = threading.Lock()  # held while any network's form for a new N is made


class FusedNetwork(nn.Module):
    """A network of one input for inference on the processor, with its present weights.

    Called like the network: pictures (N, C, H, W) or clips (N, C, T, H, W), float32, to float32
    scores (N, classes). Where the processor has bfloat16 instructions, weights and maps are
    bfloat16 and sums float32. Any thread may call it.

    It is made when a size is first seen, which takes some twenty times as long as one item, and
    compared with the network on random inputs: scores that differ by more than :data:`TOLERANCES`
    are not used. If float32 fails too, however, there is a warning, and the network itself answers.
    So it does while gradients are enabled and for inputs of another type or device. Each new N
    costs some two calls more, and memory for the weights once more.

    Args:
        network: in evaluation mode, float32, on the processor.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self._types = [torch.bfloat16] * machine.has_bf16("cpu") + [torch.float32]
        self._forms: dict[torch.Size, Callable[[Tensor], Tensor]] = {}
        self._lock = threading.Lock()

    def forward(self, field: Tensor) -> Tensor:
        """The scores, as the network gives them."""
        plain = field.device.type == "cpu" and field.dtype == torch.float32 and len(field)
        if torch.is_grad_enabled() or not plain:
            return self.network(field)
        size = field.shape[1:]
        with self._lock:  # threads take turns: two at once in one traced network give wrong scores
            if size not in self._forms:
                self._forms[size] = self._form(size)
            return self._forms[size](field)

    def _form(self, size: torch.Size) -> Callable[[Tensor], Tensor]:
        """The first type's form that gives the network's scores, or the network."""
        # Random, not what is asked first: all processes are to choose alike.
        example = torch.randn((_LOOK, *size), generator=torch.Generator().manual_seed(0))
        expected = self.network(example)  # raises its own error if the size is wrong
        for dtype in self._types:
            try:
                with torch.inference_mode(False), torch.no_grad():
                    return _fused(self.network, example, expected, dtype)
            except Exception as problem:  # whatever a compiler does, the network can answer
                found = problem if isinstance(problem, DMCError) else f"no fast form: {problem!r}."
        warnings.warn(f"{found} The network's own is used.", RuntimeWarning, stacklevel=4)
        return self.network


def _fused(
    network: nn.Module, example: Tensor, expected: Tensor, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """The form for inputs of this size; a :class:`DMCError` if its scores are not as expected."""
    layout = {"dtype": dtype, "memory_format": _LAYOUTS[example.ndim]}
    torch.jit.enable_onednn_fusion(True)  # for good: each new N is fused when it comes
    with warnings.catch_warnings():
        # TorchScript is deprecated, but not gone; a trace of one size may count on that size.
        warnings.simplefilter("ignore")
        copied = copy.deepcopy(network).to(**layout)
        traced = torch.jit.trace(copied, example.to(**layout), check_trace=False)
        frozen = torch.jit.freeze(traced)

    watched = set()

    def form(field: Tensor) -> Tensor:
        field = field.to(**layout)
        if len(field) not in watched:  # TorchScript watches a first call, and fuses at the second
            with _FUSING:
                frozen(field)
                scores = frozen(field)
            watched.add(len(field))
        else:
            scores = frozen(field)
        return scores.float()

    gap = ((form(example) - expected).abs().max() / expected.abs().max()).item()
    if not gap <= TOLERANCES[dtype]:  # not so for NaN either
        raise DMCError(
            f"the fused network's scores are {gap:.2g} of the largest off on this machine: "
            "please report it."
        )
    return form
