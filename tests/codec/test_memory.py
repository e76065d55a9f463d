"""Memory is used again when nobody can see it any more, and not before."""

import numpy as np
import pytest
import torch

from dmclib.codec import read_frames
from dmclib.codec.memory import Recycler

VIEWS = {
    "the array": lambda array: array,
    "a slice of a turned part": lambda array: array[1:].transpose(2, 0, 1)[0],
    "other numbers": lambda array: array.reshape(-1).view(np.uint8)[3:],
    "a tensor": torch.from_numpy,
    "bytes": memoryview,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_what_somebody_can_see_is_not_written_to(view):
    recycler = Recycler()
    seen = view(recycler.empty((4, 5, 6), np.float32))
    before = bytes(memoryview(np.asarray(seen)))
    for _ in range(20):
        recycler.empty((4, 5, 6), np.float32)[:] = 7
    assert bytes(memoryview(np.asarray(seen))) == before


def test_what_nobody_can_see_is_used_again():
    recycler = Recycler()
    place = recycler.empty((64, 64), np.float32).ctypes.data
    held = recycler.empty((64, 32), np.float64)  # as large, of another shape
    assert held.ctypes.data == place
    assert recycler.empty((64, 64), np.float32).ctypes.data != place


def test_a_part_of_a_frame_may_be_kept(clips):
    whole = [frame.motion.copy() for frame in read_frames(clips / "clip.mp4")]
    kept = [(f.motion[0, 3:], f.residual[1]) for f in read_frames(clips / "clip.mp4")]
    again = list(read_frames(clips / "clip.mp4"))
    for (motion, residual), field, frame in zip(kept, whole, again, strict=True):
        np.testing.assert_array_equal(motion, field[0, 3:])
        np.testing.assert_array_equal(residual, frame.residual[1])
