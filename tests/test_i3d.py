import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dmclib import i3d, models, transforms
from dmclib.errors import CheckpointError
from tests.close import FLOAT32


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture
def network_i3d():
    torch.manual_seed(0)
    return i3d.InceptionI3D(7).eval()


@pytest.mark.parametrize("shape", [(8, 32, 48), (2, 40, 32), (17, 33, 32)])
def test_i3d_gives_an_answer_a_clip_whatever_its_length_and_size(network_i3d, shape):
    with torch.inference_mode():
        assert network_i3d(torch.randn(2, 2, *shape)).shape == (2, 7)


def test_both_streams_of_i3d_have_the_25_million_parameters_of_the_paper():
    with torch.device("meta"):
        both = [i3d.InceptionI3D(400, channels=channels) for channels in (3, 2)]
    assert sum(map(parameters, both)) == pytest.approx(25e6, rel=0.02)  # its table 1
    assert parameters(both[0]) == 12_697_264  # as ports of it are listed
    # Between pictures and motion: one plane of 7x7x7 weights in each of 64 filters.
    assert parameters(both[0]) - parameters(both[1]) == 64 * 7**3


def test_i3d_has_the_published_operations_at_64_frames_of_224_px():
    with torch.device("meta"):
        pictures, motion = (i3d.InceptionI3D(400, channels=c) for c in (3, 2))
    macs = models.count_macs(pictures, (1, 3, 64, 224, 224))
    # Feichtenhofer et al., SlowFast (ICCV 2019), table 2, has 108; ours are 111.2 with the zeros
    # that pad the edges and 104.4 without, and how theirs were counted is not said.
    assert macs == pytest.approx(108e9, rel=0.04)
    fewer = macs - models.count_macs(motion, (1, 2, 64, 224, 224))
    assert fewer == 7**3 * 64 * 32 * 112 * 112


def test_padding_is_tensorflows():
    x = torch.ones(1, 1, 5, 6, 7)
    padded = i3d._pad(x, (3, 7), (2, 2))
    # Time: 3 outputs reach over (3 - 1) * 2 + 3 = 7. Height: 3 over 11. Width: 4 over 13.
    assert padded.shape[2:] == (7, 11, 13)
    assert padded[0, 0, :, 5, 6].tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert padded[0, 0, 3, :, 6].tolist() == [0, 0, *[1] * 6, 0, 0, 0]  # the odd one behind


def test_a_still_clip_is_answered_as_each_of_its_frames_is():
    # Time matters to I3D only where something changes, or where zeros pad it at both ends; so a
    # network whose kernels see one moment alone answers a longer still clip alike.
    torch.manual_seed(1)
    network = i3d.InceptionI3D(4).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
            middle = module.kernel_size[0] // 2
            module.weight.data[:, :, [k for k in range(module.kernel_size[0]) if k != middle]] = 0
    frame = torch.randn(1, 2, 1, 32, 32)
    with torch.inference_mode():
        short, long = (network(frame.expand(-1, -1, frames, -1, -1)) for frames in (16, 32))
    torch.testing.assert_close(short, long, **FLOAT32)


def theirs(network):
    """The state of a network under the published names."""
    ours = {new: old for old, new in i3d.published_names().items()}
    return {ours[name]: tensor for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_published_checkpoint_gives_the_published_network(network_i3d, tmp_path, suffix):
    donor = i3d.InceptionI3D(7).eval()
    for norm in donor.modules():
        if isinstance(norm, nn.BatchNorm3d):
            nn.init.uniform_(norm.running_mean)
    file = tmp_path / f"flow_imagenet{suffix}"
    (torch.save if suffix == ".pt" else save_file)(theirs(donor), file)
    i3d.take_kinetics(network_i3d, file)
    px = 40 * torch.rand(1, 2, 8, 32, 32) - 20
    normal = transforms.normalize(
        transforms.Sample(px[0].transpose(0, 1), torch.zeros(8, 3, 32, 32))
    )
    with torch.inference_mode():
        # The published weights have 20 px for 1.
        expected = donor(px / 20)
        found = network_i3d(normal.motion.transpose(0, 1)[None])
    torch.testing.assert_close(found, expected, **FLOAT32)


def test_with_other_classes_the_last_layer_stays_as_it_was(network_i3d, tmp_path):
    donor = i3d.InceptionI3D(400)
    state = {k: v for k, v in theirs(donor).items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "flow_imagenet.pt")
    last = network_i3d.to_logits.weight.clone()
    i3d.take_kinetics(network_i3d, tmp_path / "flow_imagenet.pt")
    assert torch.equal(network_i3d.to_logits.weight, last)
    assert torch.equal(
        network_i3d.mixed["5c"].b1[1].conv.weight, donor.mixed["5c"].b1[1].conv.weight
    )


class Hostile:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


def test_other_files_are_refused_and_nothing_in_them_is_run(network_i3d, tmp_path):
    file, trap = tmp_path / "flow_imagenet.pt", tmp_path / "sprung"
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        i3d.take_kinetics(network_i3d, file)
    torch.save(Hostile(str(trap)), file)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        i3d.take_kinetics(network_i3d, file)
    assert not trap.exists()
    torch.save({"a": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match="holds the weights of another network"):
        i3d.take_kinetics(network_i3d, file)
    torch.save(theirs(i3d.InceptionI3D(7, channels=3)), file)
    with pytest.raises(
        CheckpointError, match=r"conv_1a.conv.weight: .* shape torch.Size\(\[64, 3, 7, 7, 7\]\)"
    ):
        i3d.take_kinetics(network_i3d, file)
    torch.save(theirs(network_i3d) | {"logits.conv3d.weight": "no tensor"}, file)
    with pytest.raises(
        CheckpointError, match=r"'logits.conv3d.weight' and 0 other names do not fit"
    ):
        i3d.take_kinetics(network_i3d, file)
