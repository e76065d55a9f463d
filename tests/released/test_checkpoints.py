import pytest
import torch
import torch.nn.functional as F

from dmclib import transforms
from dmclib.errors import CheckpointError
from dmclib.released.checkpoints import load_released
from dmclib.transforms import Sample
from tests.released.material import (
    MEAN,
    STD,
    classified,
    convolved,
    dmc_state,
    normed,
    resnet,
    stream_state,
    their_cue,
    their_residual,
    their_vectors,
    under,
    write,
)


@pytest.fixture
def sample():
    torch.manual_seed(0)
    motion = torch.randint(-25, 26, (2, 2, 224, 224)).float()
    return Sample(motion, torch.randint(-255, 256, (2, 3, 224, 224)).float())


def by_hand(state, sample, depth):
    """Cue, class scores and the discriminator's logits, from section 8 alone."""
    cue = h = their_cue(state, sample)
    for stage in range(1, 5):
        for step in range(1, depth + 1):
            block = f"discriminator.discriminator_block_{stage}{f'_{step}' if step > 1 else ''}"
            h = F.leaky_relu(convolved(state, f"{block}.0", h, 2 if step == 1 else 1), 0.2)
            if (stage, step) != (1, 1):
                h = normed(state, f"{block}.3", h, 0.8)
    last = "discriminator.adv_layer"
    answer = F.linear(h.flatten(1), state[f"{last}.weight"], state[f"{last}.bias"])
    return cue, classified(state, cue), answer


@pytest.mark.parametrize("depth", [3, 1])
@pytest.mark.parametrize("zipped", [True, False])
@torch.no_grad()
def test_a_dmc_net_answers_as_theirs_does(tmp_path, sample, depth, zipped):
    state = dmc_state(depth)
    file = write(tmp_path / "a.pth.tar", state, _use_new_zipfile_serialization=zipped)
    network = load_released(file, classes=5)
    assert network.stream == "cue"
    assert not network.training
    own = transforms.normalize(sample, eight_bit=True)
    logits, cue = network(own.motion, own.residual)
    found = cue, logits, network.discriminator(cue)
    for ours, theirs in zip(found, by_hand(state, sample, depth), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stream", ["motion", "residual"])
@torch.no_grad()
def test_a_stream_of_coviar_answers_as_theirs_does(tmp_path, sample, stream):
    state = stream_state(2 if stream == "motion" else 3)
    network = load_released(write(tmp_path / "a.pth.tar", state))
    assert network.stream == stream
    theirs = (their_vectors if stream == "motion" else their_residual)(sample)
    expected = classified(state, normed(state, "data_bn", torch.from_numpy(theirs), 1e-5))
    own = network.logits(network.field(transforms.normalize(sample, eight_bit=True)))
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_stream_of_pictures_takes_imagenets_mean_off(tmp_path):
    torch.manual_seed(0)
    picture = torch.randint(0, 256, (1, 3, 224, 224)).float()
    state = under("base_model", resnet(3))
    network = load_released(write(tmp_path / "a.pth.tar", state))
    assert network.stream == "rgb"
    mean, deviation = (torch.from_numpy(x).view(1, 3, 1, 1) for x in (MEAN, STD))
    expected = classified(state, (picture / 255 - mean) / deviation)
    own = transforms.normalize(Sample(torch.zeros(1, 2, 224, 224), picture - 128))
    torch.testing.assert_close(network.logits(network.field(own)), expected, rtol=1e-4, atol=1e-4)


def test_the_residuals_planes_and_the_rounding_matter(tmp_path, sample):
    network = load_released(write(tmp_path / "a.pth.tar", dmc_state()))
    own = transforms.normalize(sample, eight_bit=True)
    with torch.no_grad():
        cue = network.generator(own.motion, own.residual)
        turned = network.generator(own.motion, own.residual.flip(1))
        unrounded = network.generator(transforms.normalize(sample).motion, own.residual)
    assert (cue - turned).abs().max() > 0.01
    assert (cue - unrounded).abs().max() > 0.005


def test_a_missing_and_an_extra_name_are_told(tmp_path):
    lacking, more = dmc_state(), dmc_state()
    del lacking["gen_flow_model.conv_3.0.bias"]
    more["base_model.aux.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"no 'gen_flow_model\.conv_3\.0\.bias'"):
        load_released(write(tmp_path / "a.pth.tar", lacking))
    with pytest.raises(CheckpointError, match=r"'base_model\.aux\.weight'.* without a place here"):
        load_released(write(tmp_path / "a.pth.tar", more))


def test_streams_that_coviar_does_not_have_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no 'data_bn\.bias'"):
        load_released(write(tmp_path / "a.pth.tar", under("base_model", resnet(2))))
    with pytest.raises(CheckpointError, match="no ResNet of 2 or 3 planes"):
        load_released(write(tmp_path / "b.pth.tar", stream_state(10)))


def test_a_file_without_counters_is_taken(tmp_path):
    state = {k: t for k, t in dmc_state().items() if not k.endswith("num_batches_tracked")}
    assert load_released(write(tmp_path / "a.pth.tar", state)).stream == "cue"


def test_another_shape_or_number_of_classes_is_refused(tmp_path):
    file = write(tmp_path / "a.pth.tar", dmc_state())
    with pytest.raises(CheckpointError, match="tells 5 classes apart, and the data set has 51"):
        load_released(file, classes=51)
    wide = dmc_state() | {"gen_flow_model.conv_4.0.weight": torch.zeros(3, 31, 3, 3)}
    with pytest.raises(CheckpointError, match="another architecture"):
        load_released(write(tmp_path / "b.pth.tar", wide))


@pytest.mark.parametrize("content", [{}, {"state_dict": {"a": 1}}, {"state_dict": {}}, [1, 2]])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth.tar")
    with pytest.raises(CheckpointError, match=r"a\.pth\.tar holds no "):
        load_released(tmp_path / "a.pth.tar")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_or_missing_file_is_refused(tmp_path, zipped):
    state = under("base_model", resnet(3))
    file = write(tmp_path / "a.pth.tar", state, _use_new_zipfile_serialization=zipped)
    file.write_bytes(file.read_bytes()[:-2000])
    for path in (file, tmp_path / "b.pth.tar"):
        with pytest.raises(CheckpointError, match="cannot be read as weights"):
            load_released(path)


class Hostile:
    """What it would do when it is unpickled: make a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_does_not_run(tmp_path, zipped):
    target, file = tmp_path / "made", tmp_path / "a.pth.tar"
    content = {"state_dict": dmc_state(), "epoch": Hostile(target)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_released(file)
    assert not target.exists()
