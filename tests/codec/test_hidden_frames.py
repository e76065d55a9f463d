"""Frames that an edit list hides are not shown, and are still what the next frames refer to."""

import numpy as np
import pytest

from dmclib import codec
from dmclib.codec import read_at, read_frames
from tests.codec import mp4_maker
from tests.codec.material import MODES, foreign

EDITS = {  # (first frame shown, how many), of 30 frames in GOPs of 12
    "begins in a GOP": [(5, 25)],
    "begins in the last GOP": [(27, 3)],
    "ends in a GOP": [(0, 17)],
    "one P-frame": [(16, 1)],
    "two parts": [(3, 6), (20, 9)],
    "the second part first": [(20, 9), (3, 6)],
    "the same part twice": [(7, 4), (7, 4)],
}


@pytest.fixture(params=EDITS)
def edited(request, tmp_path, clips):
    """A clip with an edit list, and the numbers that its frames have without it."""
    whole, edits = clips / "clip.mp4", EDITS[request.param]
    run = mp4_maker.description(whole), mp4_maker.samples(whole)
    mp4_maker.movie(tmp_path / "edited.mp4", [run], size=(50, 34), edits=edits)
    return tmp_path / "edited.mp4", [
        n for first, count in edits for n in range(first, first + count)
    ]


def alike(frame, whole):
    """Whether two frames are the same but for their number."""
    return frame.gop_position == whole.gop_position and all(
        np.array_equal(getattr(frame, name), getattr(whole, name))
        for name in ("rgb", "motion", "residual")
    )


@pytest.mark.parametrize(("accumulate", "subpixel"), MODES)
def test_shown_frames_are_read_as_without_the_edit_list(clips, edited, accumulate, subpixel):
    mode = {"accumulate": accumulate, "subpixel": subpixel}
    path, numbers = edited
    whole = list(read_frames(clips / "clip.mp4", **mode))
    frames = list(read_frames(path, **mode))
    assert [frame.index for frame in frames] == list(range(len(numbers)))
    for frame, number in zip(frames, numbers, strict=True):
        assert alike(frame, whole[number])
    asked = [len(numbers) - 1, 0, len(numbers) // 2]
    for n, frame in zip(asked, read_at(path, asked, **mode), strict=True):
        assert alike(frame, whole[numbers[n]])
        assert (frame.index, frame.gop_index) == (n, frames[n].gop_index)


def test_every_call_counts_what_is_shown(clips, edited, tmp_path):
    path, numbers = edited
    pictures = list(codec.decode_rgb(clips / "clip.mp4"))
    np.testing.assert_array_equal(list(codec.decode_rgb(path)), [pictures[n] for n in numbers])
    assert codec.probe(path).frames == len(codec.packets(path)) == len(numbers)
    codec.transcode(path, tmp_path / "clip.mp4", size=(50, 34))
    assert codec.probe(tmp_path / "clip.mp4").frames == len(numbers)


@pytest.mark.parametrize("name", ["libx264", "mpeg2video"])
def test_with_b_frames_those_are_shown_that_ffmpeg_shows(tmp_path, name):
    source = foreign(tmp_path / "film.mp4", name, pix_fmt="yuv420p", bf="2", g="10")
    run = mp4_maker.description(source), mp4_maker.samples(source)
    path = mp4_maker.movie(tmp_path / "cut.mp4", [run], size=(50, 34), edits=[(14, 6)])
    # Without times of their own for B-frames, samples are shown in the order of decoding.
    assert len(list(codec.decode_rgb(path))) == codec.probe(path).frames == 6
