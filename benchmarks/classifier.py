"""Rows of ``dmc bench classifier``: a ResNet-18 in every form on the processor, and its labels."""

import copy
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

from dmclib import demo, fast, models, training
from dmclib.speed.timing import forward, measure
from dmclib.training import fitting

SIZE = 224  # px, the paper's


def rows(*, profile: str = "laptop", repeats: int = 15) -> list[dict]:
    """Time the forms beside PyTorch's own (eager), and count the labels that they keep.

    "fast" is what :func:`dmclib.fast.form` chooses; "int8" is PyTorch's static quantization, with
    ranges from some fields. Labels are those of the classifier that a profile trained, on its
    validation clips; the ranges then are from training clips.

    Args:
        profile: whose classifier of the cue says how many labels a form keeps.
        repeats: timed runs.

    Returns:
        A row per form and batch, 224 px: ``eager_ms`` and ``ours_ms`` a call with quartiles,
        ``gain``. A row per form of ``same_label``, a share of ``frames``; or ``needs``.
    """
    found = []
    network = models.motion_resnet18(400).eval()
    forms = {"fast": fast.form(network), "int8": int8(network, torch.randn(32, 2, SIZE, SIZE))}
    for batch in (1, 8):
        field = torch.randn(batch, 2, SIZE, SIZE)
        calls = {name: forward(form, field) for name, form in ({"eager": network} | forms).items()}
        times = measure(calls, repeats=repeats)
        for name in forms:
            row = {"task": "ResNet-18", "form": name, "size": SIZE, "batch": batch}
            row |= times["eager"].ms("eager") | times[name].ms("ours")
            row["gain"] = row["eager_ms"] / row["ours_ms"]
            found.append(row | {"repeats": repeats})
    config = demo.find_weights(profile).config
    if config is None:
        return [*found, {"task": "labels", "needs": f"dmc reproduce {profile} --only 06"}]
    return found + _labels(config)


@torch.inference_mode()
def _labels(config: training.TrainConfig) -> list[dict]:
    networks = training.load_networks(config).eval()

    def fields(split: str) -> Iterator[torch.Tensor]:
        batches = fitting.batches(config, split, torch.device("cpu"), workers=None).all()
        return (networks.field(batch.sample) for batch in batches)

    classifier = networks.classifier
    forms = {"fast": fast.form(classifier), "int8": int8(classifier, next(fields("train")))}
    same, frames = dict.fromkeys(forms, 0), 0
    for field in fields("validation"):
        expected = classifier(field).argmax(1)
        frames += len(field)
        for name, form in forms.items():
            same[name] += (form(field).argmax(1) == expected).sum().item()
    setting = {"task": "labels", "size": config.size, "frames": frames}
    return [setting | {"form": name, "same_label": n / frames} for name, n in same.items()]


def int8(network: nn.Module, fields: torch.Tensor) -> nn.Module:
    """A classifier with weights and maps of eight bits, their ranges from these fields."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, models.SmallMapConv2d):
            module.__class__ = nn.Conv2d  # which can be traced
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch is moving this to a package of its own
        mapping = get_default_qconfig_mapping("onednn")
        prepared = quantize_fx.prepare_fx(network, mapping, (fields[:1],))
        with torch.inference_mode():
            prepared(fields)
        return quantize_fx.convert_fx(prepared)
