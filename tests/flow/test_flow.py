import sys
from itertools import pairwise

import numpy as np
import pytest

from dmclib import errors, flow


def texture(height, width, *, seed=0):
    """Random colours in patches of 4x4, which flow methods can hold on to."""
    patches = np.random.default_rng(seed).integers(
        0, 255, (height // 4, width // 4, 3), dtype=np.uint8
    )
    return patches.repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize("method", ["tvl1", "tvl1-torch", "farneback", "dis"])
def test_a_picture_moved_right_and_up_has_positive_dx_and_negative_dy(method):
    pytest.importorskip("cv2.optflow")
    still = texture(96, 128)
    moved = np.roll(still, (-2, 3), axis=(0, 1))  # content goes 3 px right, 2 px up

    field = flow.estimate(still, moved, method=method)

    assert field.shape == (2, 96, 128)
    assert field.dtype == np.float32
    # Away from the border, where content came in from the other side.
    middle = field[:, 16:-16, 16:-16]
    np.testing.assert_allclose(np.median(middle, axis=(1, 2)), [3, -2], atol=0.25)


@pytest.mark.parametrize("method", ["tvl1", "tvl1-torch"])
def test_flow_is_defined_at_the_current_frame(method):
    # A picture grows by a tenth about its middle: pixel x now was at x / 1.1, so it moved by
    # x * (1 - 1 / 1.1). Counted at the previous frame it would be x * 0.1, half a pixel more here.
    pytest.importorskip("cv2.optflow")
    previous = texture(96, 128)
    y, x = np.mgrid[-47.5:48, -63.5:64].astype(np.float32)
    truth = np.stack([x, y]) * (1 - 1 / 1.1)
    current = flow.warp(previous, truth).round().astype(np.uint8)

    error = flow.estimate(previous, current, method=method) - truth

    assert abs(np.median(error[0, 8:-8, 104:120])) < 0.15
    assert abs(np.median(error[0, 8:-8, 8:24])) < 0.15


@pytest.mark.parametrize("method", ["tvl1-torch", "dis"])
def test_a_clips_flow_is_that_of_its_pairs_one_after_the_other(method):
    pytest.importorskip("cv2.optflow")
    frames = [np.roll(texture(32, 48), step, axis=1) for step in (0, 1, 3, 2)]

    fields = list(flow.estimate_clip(iter(frames), method=method, batch=2))

    assert len(fields) == 3
    for (previous, current), field in zip(pairwise(frames), fields, strict=True):
        np.testing.assert_array_equal(field, flow.estimate(previous, current, method=method))
    assert not list(flow.estimate_clip(frames[:1], method=method))


def test_a_clip_is_read_no_further_than_its_flow_is_asked_for():
    pytest.importorskip("cv2.optflow")
    frames = iter([texture(32, 48)] * 5)
    next(flow.estimate_clip(frames, method="dis"))
    assert len(list(frames)) == 3


def test_flow_refuses_what_it_cannot_compare():
    pytest.importorskip("cv2.optflow")
    frame = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(errors.DMCError, match=r"\(8, 8, 3\) and \(8, 9, 3\)"):
        flow.estimate(frame, np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(errors.DMCError, match="float32"):
        flow.estimate(frame, frame.astype(np.float32))
    with pytest.raises(errors.DMCError, match="'lucas'; choose tvl1, tvl1-torch, farneback"):
        flow.estimate(frame, frame, method="lucas")


def test_without_opencv_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # makes ``import cv2`` fail
    frame = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(errors.DMCError, match=r"pip install opencv-contrib-python-headless"):
        flow.estimate(frame, frame)


def test_endpoint_error_is_the_length_of_the_difference():
    truth = np.zeros((2, 4, 5), np.float32)
    estimate = np.broadcast_to(np.float32([3, -4])[:, None, None], (2, 4, 5))
    error = flow.endpoint_error(estimate, truth)
    assert error.shape == (4, 5)
    np.testing.assert_array_equal(error, 5)


def test_warp_by_whole_pixels_moves_the_picture_and_repeats_its_border():
    image = np.arange(5 * 6 * 3).reshape(5, 6, 3)
    motion = np.zeros((2, 5, 6), np.float32)
    motion[0], motion[1] = 2, -1  # right by two, up by one

    moved = flow.warp(image, motion)

    np.testing.assert_array_equal(moved[:-1, 2:], image[1:, :-2])
    np.testing.assert_array_equal(moved[-1, 2:], image[-1, :-2])  # from below the frame
    np.testing.assert_array_equal(moved[:-1, :2], image[1:, :1].repeat(2, axis=1))  # from its left


def test_warp_between_pixels_is_linear_on_a_ramp():
    y, x = np.mgrid[:8, :8]
    motion = np.broadcast_to(np.float32([0.25, 0.5])[:, None, None], (2, 8, 8))
    moved = flow.warp(10 * x + 100 * y, motion)
    np.testing.assert_array_equal(moved[1:, 1:], (10 * x + 100 * y - 52.5)[1:, 1:])


def test_colours_show_direction_and_length():
    def colour(dx, dy, full_colour_px=10):
        field = np.float32([dx, dy]).reshape(2, 1, 1)
        return tuple(flow.flow_to_rgb(field, full_colour_px=full_colour_px)[0, 0].tolist())

    assert colour(0, 0) == (255, 255, 255)
    assert colour(10, 0) == (255, 0, 0)  # right
    assert colour(-10, 0) == (0, 255, 255)  # left: the opposite hue
    assert colour(0, 10) == (128, 255, 0)  # down
    assert colour(0, -10) == (128, 0, 255)  # up
    assert colour(5, 0) == (255, 128, 128)  # half the length, half the colour
    assert colour(50, 0) == colour(10, 0)  # the scale ends
    assert colour(5, 0, full_colour_px=5) == (255, 0, 0)


def test_quantized_motion_is_the_authors_bytes():
    px = np.float32([0, 0.15, 0.157, -0.157, 10, -10, 20, -20, 25, -25])
    assert flow.quantize(px).tolist() == [128, 128, 129, 127, 191, 65, 255, 1, 255, 0]


def test_quantize_round_trip_keeps_zero_and_errs_by_less_than_a_step_towards_it():
    px = np.linspace(-20, 20, 4001)
    back = flow.dequantize(flow.quantize(px))

    lost = np.abs(px) - np.abs(back)
    assert lost.min() > -1e-5  # never longer: truncation, up to float32
    assert 0.99 * 20 / 127.5 < lost.max() < 20 / 127.5 + 1e-5
    assert flow.dequantize(flow.quantize(np.zeros(1))) == 0
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(flow.quantize(flow.dequantize(codes) * 1.00001), codes)
