import pytest
import torch

from dmclib import checkpoints, models
from dmclib.errors import CheckpointError


def test_weights_come_back_as_they_were(tmp_path):
    one, other = models.DenseGenerator(), models.DenseGenerator()
    checkpoints.save(one, tmp_path / "w.safetensors")
    checkpoints.load(other, tmp_path / "w.safetensors")
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_another_architecture_is_refused(tmp_path):
    checkpoints.save(models.motion_resnet18(2), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="another architecture"):
        checkpoints.load(models.motion_resnet18(3), tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.safetensors is not a readable"):
        checkpoints.load(models.DenseGenerator(), tmp_path / "w.safetensors")
