import threading

import numpy as np
import pytest
import torch

from dmclib import codec, models, transforms
from dmclib.errors import VideoError
from dmclib.fast import stream
from tests.close import FLOAT32


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """27 frames, 48 x 64: GOPs of 12, 12 and 3, a texture that drifts to the right."""
    texture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    texture = np.repeat(np.repeat(texture[::8, ::8], 8, 0), 8, 1)
    path = tmp_path_factory.mktemp("stream") / "clip.m4v"
    codec.encode((np.roll(texture, 2 * n, axis=1) for n in range(27)), path)
    return path


@pytest.fixture
def network():
    return models.DMCNet(models.motion_resnet18(5), models.DenseGenerator(), stream="cue").eval()


def test_every_p_frame_is_scored_as_if_it_had_come_alone(clip, network):
    expected = {}
    for frame in codec.read_frames(clip):
        if frame.is_key:
            continue
        residual = torch.from_numpy(frame.residual.astype(np.float32))
        sample = transforms.Sample(torch.from_numpy(frame.motion)[None], residual[None])
        sample = transforms.normalize(transforms.center_crop(sample, (32, 32)))
        with torch.inference_mode():
            expected[frame.index] = network(sample.motion, sample.residual)[0][0]
    scored = dict(stream.classify(clip, network, size=(32, 32), batch=7))
    assert list(scored) == [n for n in range(27) if n % 12]
    for index, logits in scored.items():
        torch.testing.assert_close(logits, expected[index], **FLOAT32)


def test_the_next_batch_is_decoded_while_the_network_works(clip, monkeypatch):
    order, second = [], threading.Event()
    read = codec.read_frames

    def noted(path):
        for frame in read(path):
            if frame.index == 6:
                second.set()  # of the second batch of 4: frames 5 to 8
            yield frame

    def network(motion, residual):
        order.append(second.wait(timeout=20))
        return torch.zeros(len(motion), 2), motion

    monkeypatch.setattr(codec, "read_frames", noted)
    assert len(list(stream.classify(clip, network, size=(32, 32), batch=4))) == 24
    assert order[0]


def test_no_more_than_one_batch_is_read_ahead(clip, monkeypatch):
    seen, read = [], codec.read_frames

    def noted(path):
        for frame in read(path):
            seen.append(frame.index)
            yield frame

    monkeypatch.setattr(codec, "read_frames", noted)
    scores = stream.classify(clip, lambda m, r: (torch.zeros(len(m), 2), m), size=(32, 32), batch=4)
    next(scores)
    scores.close()
    assert max(seen) == 8
    assert not any("decode" in thread.name for thread in threading.enumerate())


def test_what_came_before_the_damage_is_scored(clip, network, tmp_path):
    data = clip.read_bytes()
    spans = [packet.size_bytes for packet in codec.packets(clip)]
    damaged = tmp_path / "cut.m4v"
    begin, end = sum(spans[:6]), sum(spans[:7])
    damaged.write_bytes(data[: begin + 20] + bytes(end - begin - 20) + data[end:])
    scores, found = stream.classify(damaged, network, size=(32, 32), batch=16), []
    with pytest.raises(VideoError, match=r"cut\.m4v"):
        found.extend(index for index, _ in scores)
    assert found
    assert found == list(range(1, len(found) + 1))


def test_a_size_that_changes_ends_a_batch(tmp_path):
    bare = b""
    for height, width in ((48, 64), (32, 48)):
        codec.encode([np.zeros((height, width, 3), np.uint8)] * 5, tmp_path / "take.m4v")
        bare += (tmp_path / "take.m4v").read_bytes()
    (tmp_path / "two.m4v").write_bytes(bare)
    sizes = []

    def network(motion, residual):
        sizes.append(len(motion))
        return torch.zeros(len(motion), 2), motion

    scored = stream.classify(tmp_path / "two.m4v", network, size=(32, 32), batch=3)
    assert [index for index, _ in scored] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert sizes == [3, 1, 3, 1]


def test_a_batch_of_none_is_refused(clip, network):
    with pytest.raises(ValueError, match="batch is 0"):
        next(stream.classify(clip, network, batch=0))
