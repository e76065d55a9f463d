"""The proof of the vectors: they predict decoded blocks to the last bit, and others do not."""

import numpy as np
import pytest

from dmclib import codec
from dmclib.errors import VideoError
from tests.codec.material import foreign, moving_pictures

WRONG = ("flipped", "swapped", "none")


def halves(count=24, height=96, width=128):
    """The moving pictures at half their size: 1.5 px to the right and half a pixel down a frame."""
    texture = next(moving_pictures(1, 4 * height, 4 * width)).astype(np.float32)
    for n in range(count):
        large = np.roll(texture, (n, 3 * n), (0, 1))[: 2 * height, : 2 * width]
        yield large.reshape(height, 2, width, 2, 3).mean((1, 3)).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["mp4", "m4v"])
@pytest.mark.parametrize(
    "pictures", [lambda: moving_pictures(30, 96, 128), halves], ids=["px", "half"]
)
def test_the_vectors_alone_predict_most_blocks_to_the_last_bit(tmp_path, pictures, suffix):
    clip = tmp_path / f"clip.{suffix}"
    codec.encode(pictures(), clip, quantizer=31)
    share = codec.prediction_share(clip)
    print(share)
    assert share["as read"] > 0.5  # without the rounding type, of the half pixels it is 0.38
    assert max(share[name] for name in WRONG) < 0.1


def test_what_holds_no_proof_is_refused(tmp_path):
    codec.encode(moving_pictures(4), tmp_path / "clip.mp4", gop=1)
    with pytest.raises(VideoError, match=r"clip.mp4: has no inter blocks. Give a clip with P"):
        codec.prediction_share(tmp_path / "clip.mp4")
    quarters = foreign(tmp_path / "q.mp4", "mpeg4", pix_fmt="yuv420p", bf="0", flags="+qpel")
    with pytest.raises(VideoError, match=r"q.mp4: has vectors of quarter pixels. Give a clip of"):
        codec.prediction_share(quarters)


@pytest.mark.data
def test_a_real_clip_is_predicted_by_its_vectors(shared_data, tmp_path):
    clip = tmp_path / "clip.mp4"
    codec.transcode(shared_data / "clips" / "bikes.m4v", clip, quantizer=31, frames=60)
    share = codec.prediction_share(clip)
    print(share)
    assert share["as read"] > 0.85
    assert max(share[name] for name in WRONG) < 0.65  # those that stand still
