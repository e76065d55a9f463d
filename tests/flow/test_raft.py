import re

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import optical_flow

from dmclib import errors, flow
from dmclib.flow import raft


class PointsAlongX(nn.Module):
    """In RAFT's place: answers (first picture's mean level, 0), second to last something else."""

    def forward(self, first, second):
        self.seen = first, second
        level = (first.mean((1, 2, 3)) + 1) * 127.5
        field = torch.zeros(len(first), 2, *first.shape[2:])
        field[:, 0] = level[:, None, None]
        return [field * 99, field]


@pytest.fixture
def stub(monkeypatch):
    network = PointsAlongX()
    monkeypatch.setattr(raft, "load", lambda *_, **__: network)
    return network


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_flow_is_asked_for_at_the_current_frame_and_its_sign_turned(stub):
    previous, current = np.full((2, 96, 130, 3), [[[[7]]], [[[40]]]], np.uint8)

    field = flow.estimate(previous, current, method="raft")

    # RAFT's first picture is the current frame, and its flow points to the previous one.
    assert field.shape == (2, 96, 130)
    np.testing.assert_allclose(field[0], -40, atol=1e-4)
    assert not field[1].any()


def test_pictures_are_scaled_and_padded_to_what_raft_takes(stub):
    frame = np.zeros((130, 50, 3), np.uint8)
    frame[:, -1] = 255
    flow.estimate(frame, frame, method="raft-small")
    first, _ = stub.seen
    assert first.shape == (1, 3, 136, 128)  # whole eights, 128 at least
    assert (first[..., :49] == -1).all()
    assert (first[..., 49:] == 1).all()  # the border's colour goes on


def test_a_clips_pairs_are_taken_together_and_none_is_lost(stub):
    frames = np.arange(1, 8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    fields = list(flow.estimate_clip(frames, method="raft", batch=4))
    assert [round(-float(field[0, 0, 0])) for field in fields] == [2, 3, 4, 5, 6, 7]
    assert len(stub.seen[0]) == 2  # 4 pairs, then the 2 left


def test_weights_come_from_a_file_and_give_a_finite_field(tmp_path):
    torch.save(optical_flow.raft_small(weights=None).state_dict(), tmp_path / "own.pth")
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    field = flow.estimate(*frames, method="raft-small", weights=tmp_path / "own.pth")
    assert field.shape == (2, 40, 60)
    assert np.isfinite(field).all()


def test_missing_weights_are_named_with_their_place_and_not_downloaded(cache):
    frame = np.zeros((8, 8, 3), np.uint8)
    name = "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
    with pytest.raises(errors.CheckpointError, match=re.escape(str(cache / name))):
        flow.estimate(frame, frame, method="raft")
    assert not list(cache.iterdir())


def test_a_file_in_the_cache_must_be_the_published_one(cache):
    path = raft.weights_path("raft-small")
    torch.save(optical_flow.raft_small(weights=None).state_dict(), path)
    with pytest.raises(errors.CheckpointError, match="is not the file that its name says"):
        raft.load("raft-small")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no weights"])
def test_damaged_weights_are_refused(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(
        errors.CheckpointError, match=r"bad\.pth cannot be read as weights .*fetch https"
    ):
        raft.load("raft-small", path=tmp_path / "bad.pth")


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(errors.CheckpointError, match="holds the weights of another network"):
        raft.load("raft-small", path=tmp_path / "linear.pth")


def test_weights_that_would_run_code_do_not(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    torch.save({"a": Attack()}, tmp_path / "attack.pth")
    with pytest.raises(errors.CheckpointError, match="cannot be read as weights"):
        raft.load("raft-small", path=tmp_path / "attack.pth")
    assert not (tmp_path / "made").exists()
