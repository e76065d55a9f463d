import hashlib

import pytest
import torch

from dmclib import models, weights
from dmclib.errors import CheckpointError


def test_weights_come_back_as_they_were(tmp_path):
    one, other = models.DenseGenerator(), models.DenseGenerator()
    weights.save(one, tmp_path / "w.safetensors")
    weights.load(other, tmp_path / "w.safetensors")
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_another_architecture_is_refused(tmp_path):
    weights.save(models.motion_resnet18(2), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="another architecture"):
        weights.load(models.motion_resnet18(3), tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.safetensors is not a readable"):
        weights.load(models.DenseGenerator(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_in_place_of_safetensors_is_not_opened(tmp_path, zipped):
    file = tmp_path / "w.safetensors"
    torch.save({"a": torch.zeros(1)}, file, _use_new_zipfile_serialization=zipped)
    for read in (
        lambda: weights.read(file, remedy="train it again"),
        lambda: weights.read_note(file),
    ):
        with pytest.raises(CheckpointError, match="it is a pickle, which could run anything"):
            read()


def test_a_truncated_checkpoint_is_refused(tmp_path):
    file = tmp_path / "w.safetensors"
    weights.save(models.DenseGenerator(), file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"w\.safetensors is not a readable"):
        weights.load(models.DenseGenerator(), file)


def published(folder, state):
    """A file as torchvision publishes them: the name ends with the start of the SHA-256."""
    file = folder / "made.pth"
    torch.save(state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return file.rename(folder / f"resnet18-{digest[:8]}.pth")


def test_imagenet_weights_are_taken_and_averaged_for_two_planes(tmp_path):
    donor = models.motion_resnet18(1000, channels=3)
    state = {k: v for k, v in donor.state_dict().items() if not k.endswith("num_batches_tracked")}
    file = published(tmp_path, state)
    assert weights.find_published("resnet18", str(tmp_path)) == file
    network = models.motion_resnet18(7)
    last = network.fc.weight.clone()
    weights.take_imagenet(network, file)
    planes = network.conv1.weight
    torch.testing.assert_close(planes[:, 0], donor.conv1.weight.mean(1))
    assert torch.equal(planes[:, 0], planes[:, 1])
    assert torch.equal(network.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    assert torch.equal(network.fc.weight, last)
    three = models.motion_resnet18(7, channels=3)
    weights.take_imagenet(three, file)
    assert torch.equal(three.conv1.weight, donor.conv1.weight)


def test_imagenet_weights_that_are_not_there_are_none(tmp_path):
    assert weights.find_published("resnet18", str(tmp_path)) is None


class Hostile:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


def test_wrong_imagenet_files_are_refused_and_nothing_in_them_is_run(tmp_path):
    network = models.motion_resnet18(7)
    renamed = tmp_path / "resnet18-00000000.pth"
    torch.save({}, renamed)
    with pytest.raises(CheckpointError, match="not the file that its name says"):
        weights.take_imagenet(network, renamed)
    with pytest.raises(CheckpointError, match="weights of another network"):
        weights.take_imagenet(network, published(tmp_path, {"a": torch.zeros(1)}))
    trap = tmp_path / "sprung"
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        weights.take_imagenet(network, published(tmp_path, Hostile(str(trap))))
    assert not trap.exists()
    with pytest.raises(CheckpointError, match="cannot be read"):
        weights.take_imagenet(network, tmp_path / "resnet18-11111111.pth")
