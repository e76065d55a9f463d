import torch

from benchmarks import classifier, classify
from dmclib import demo, models


def test_each_form_is_timed_beside_the_network(monkeypatch):
    monkeypatch.setattr(classifier, "SIZE", 32)
    monkeypatch.setattr(demo, "find_weights", lambda profile: demo.Weights(None, None, ""))
    *rows, labels = classifier.rows(repeats=1)
    assert [(row["form"], row["batch"]) for row in rows] == [
        ("fast", 1),
        ("int8", 1),
        ("fast", 8),
        ("int8", 8),
    ]
    for row in rows:
        assert row["gain"] == row["eager_ms"] / row["ours_ms"]
    assert "dmc reproduce laptop" in labels["needs"]


@torch.inference_mode()
def test_eight_bits_are_near_the_network_and_are_not_it():
    network = models.motion_resnet18(10).eval()
    fields = torch.randn(8, 2, 64, 64)
    scores, expected = classifier.int8(network, fields)(fields), network(fields)
    gap = (scores - expected).abs().max() / expected.abs().max()
    assert 1e-4 < gap < 0.3


def test_without_networks_a_folder_is_not_labelled(monkeypatch):
    monkeypatch.setattr(demo, "find_weights", lambda profile: demo.Weights(None, None, ""))
    (row,) = classify.rows()
    assert "dmc reproduce laptop" in row["needs"]
