"""The fast forms of the networks that the laptop run trained, on its test clips."""

import pytest
import torch

from dmclib import demo, fast, machine
from dmclib.training import fitting


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_labels_and_scores_of_the_laptops_test_clips_stay(bf16, monkeypatch):
    weights = demo.find_weights("laptop")
    if weights.config is None:
        pytest.skip("no trained networks in the cache: dmc reproduce laptop --only 06 makes them")
    monkeypatch.setattr(machine, "has_bf16", lambda device: bf16)
    networks, quick = weights.networks.eval(), fast.form(weights.networks.eval())
    expected, found, clips = [], [], []
    for sample, _, clip in fitting.batches(weights.config, "test", torch.device("cpu"), None).all():
        expected.append(networks(sample.motion, sample.residual)[0])
        found.append(quick(sample.motion, sample.residual)[0])
        clips.append(clip)
    expected, found, clips = map(torch.cat, (expected, found, clips))
    assert networks.classifier not in quick.classifier._forms.values()  # it was fused
    gap = (found - expected).abs().max() / expected.abs().max()
    assert gap < fast.fused.TOLERANCES[torch.bfloat16 if bf16 else torch.float32]
    assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.99

    def called(scores):
        sums = torch.zeros(int(clips.max()) + 1, scores.shape[1]).index_add_(0, clips, scores)
        return sums.argmax(1)

    assert (called(found) == called(expected)).float().mean() >= 0.995
