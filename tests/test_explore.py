import re
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from dmclib import codec, demo, explore, figures, models
from dmclib.errors import VideoError

pytestmark = pytest.mark.usefixtures("house_style")


@pytest.fixture
def clip(tmp_path):
    """Texture, and over it a square that moves 2.5 px to the right per frame: 4 frames of 64x96."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (8, 12, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    path = tmp_path / "drift.mp4"
    codec.encode((np.roll(ground, 5 * n // 2, axis=1) for n in range(4)), path, gop=3)
    return path


def seen(explorer):
    """What the tooltips say: (x, y) of each block of the first panel -> dx, dy."""
    says = re.findall(
        r"dx (\S+), dy (\S+) px; block of \S+ x \S+ px at x (\d+), y (\d+)", explorer.page.value
    )
    return {(int(x), int(y)): (float(dx), float(dy)) for dx, dy, x, y in says}


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_the_frame_shown_is_the_codecs(clip, number):
    explorer = explore.gop_explorer(clip)
    explorer.number.value = number
    (frame,) = codec.read_at(clip, [number])
    for name in ("rgb", "motion", "residual"):
        np.testing.assert_array_equal(getattr(explorer.frame, name), getattr(frame, name))
    for (x, y), vector in seen(explorer).items():
        assert vector == tuple(frame.motion[:, y + 4, x + 4])


def test_a_block_tells_how_far_it_moved_and_the_reading_changes_it(clip):
    explorer = explore.gop_explorer(clip, start=2)
    plain, page = seen(explorer)[32, 32], explorer.page.value
    explorer.half.value = True
    assert explorer.page.value != page
    explorer.half.value = False
    assert explorer.page.value == page
    explorer.reading.value = "accumulated"
    assert explorer.page.value != page
    (frame,) = codec.read_at(clip, [2], accumulate=True)
    assert seen(explorer)[32, 32] == tuple(frame.motion[:, 40, 40])
    assert seen(explorer)[32, 32] == (5, 0) != plain


def test_where_no_widget_runs_the_frame_is_a_picture(clip):
    bundle = explore.gop_explorer(clip)._repr_mimebundle_()
    assert bundle["image/jpeg"].startswith("/9j/")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_page_has_the_cue_where_a_generator_is_at_hand(clip):
    generator = models.DenseGenerator().eval()
    torch.nn.init.ones_(generator.to_cue.bias)
    weights = demo.Weights(generator, None, "A cue beside the vectors.")
    explorer, without = explore.gop_explorer(clip, weights=weights), explore.gop_explorer(clip)
    assert explorer.page.value != without.page.value
    (frame,) = codec.read_at(clip, [1])
    fig = figures.explorer_page(
        frame, {0: 900, 1: 500}, frame.motion, full_colour_px=8, unit="px per frame"
    )
    assert [ax.get_title() for ax in fig.axes[1:4]] == [
        "motion (px per frame)",
        "residual",
        "DMC cue (px per frame)",
    ]
    bars = fig.axes[4].patches
    assert [bar.get_height() for bar in bars] == [0.9, 0.5]
    assert bars[0].get_facecolor() != bars[1].get_facecolor()


def test_what_cannot_be_explored_is_said_in_a_sentence(tmp_path):
    still = tmp_path / "still.mp4"
    codec.encode([np.zeros((32, 32, 3), np.uint8)] * 2, still, gop=1)
    with pytest.raises(VideoError, match=r"still.mp4: has no P-frame.*transcode"):
        explore.gop_explorer(still)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"damaged.mp4"):
        explore.gop_explorer(damaged)


def test_a_number_that_a_clip_does_not_have(clip):
    with pytest.raises(VideoError, match="there is no frame 4"):
        explore.gop_explorer(clip, start=4)


def test_search_finds_how_far_a_block_was_moved():
    before = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    now = np.roll(before, (3, -5), axis=(0, 1))
    costs = explore.search_block(before, now, (16, 32), reach=8)
    dy, dx = np.unravel_index(np.nanargmin(costs), costs.shape)
    assert (dx - 8, dy - 8) == (-5, 3)
    assert costs[dy, dx] == 0
    near_edge = explore.search_block(before, now, (0, 48), reach=8)
    assert np.isnan(near_edge[:, 9:]).all()  # content from left of the picture
    assert np.isfinite(near_edge[8:, :9]).all()
    fig = figures.block_search(before, now, costs, (16, 32))
    assert fig.axes[2].get_title() == "best: dx = -5, dy = 3"


def test_a_playable_copy_has_the_same_pictures_and_never_replaces_its_source(clip, tmp_path):
    copy = demo.playable(clip, tmp_path / "copy.mp4")
    assert codec.probe(copy).frames == 4
    assert codec.probe(copy).codec in ("h264", "mpeg4")
    for ours, theirs in zip(codec.decode_rgb(copy), codec.decode_rgb(clip), strict=True):
        assert np.abs(ours.astype(int) - theirs).mean() < 8
    with pytest.raises(ValueError, match="the video itself"):
        demo.playable(clip, clip)


def shown(own):
    """What an ``OwnVideo`` has below its controls: an explorer or a sentence."""
    below = own.children[1]
    return below if isinstance(below, explore.Explorer) else below.value


def uploaded(name, content):
    now = datetime.now(UTC)
    about = {"name": name, "type": "video/mp4", "size": len(content), "last_modified": now}
    return (about | {"content": memoryview(content)},)


def test_a_video_of_ones_own_comes_by_path_or_upload_and_stays_as_it_is(clip):
    before, own = clip.read_bytes(), explore.own_video()
    own.path.value = str(clip)
    assert shown(own).frame.rgb.shape == (256, 340, 3)
    by_path = shown(own).frame.rgb
    own.path.value = f"{clip}.txt"
    assert f"{clip}.txt: no such file" in shown(own)
    own.upload.value = uploaded("../../film.mp4", before)
    np.testing.assert_array_equal(shown(own).frame.rgb, by_path)
    assert clip.read_bytes() == before
    assert [path.name for path in clip.parent.iterdir()] == [clip.name]


def test_an_upload_that_is_no_video_is_said_in_a_sentence():
    own = explore.own_video()
    own.upload.value = uploaded("film<b>.mp4", b"no video")
    assert "is not a readable video" in shown(own)
    assert "text/html" in own._repr_mimebundle_()
