"""Facts about motion vectors: blocks spread over pixels, pictures carried along them."""

import numpy as np
import pytest

from dmclib.codec import predict, rasterize_motion_vectors, vectors
from dmclib.errors import VideoError
from tests.codec.material import FIELDS, literal_sources


def block(dst_x, dst_y, motion_x=0, motion_y=0, *, size=16, scale=4, source=-1):
    """One AVMotionVector row; motion is in 1/scale pixels, dst is the block centre."""
    src = dst_x + int(motion_x / scale), dst_y + int(motion_y / scale)
    row = (source, size, size, *src, dst_x, dst_y, motion_x, motion_y, scale)
    return np.array([row], dtype=FIELDS)


def random_blocks(rng, count, height, width, places):
    """Vectors of a frame: macroblocks of the grid with gaps, the same twice, or blocks anywhere."""
    rows = np.zeros(count, FIELDS)
    if places != "anywhere":
        cells = np.indices((-(-height // 16), -(-width // 16))).reshape(2, -1)
        cells = cells[:, np.sort(rng.permutation(cells.shape[1])[:count])]
        rows = rows[: cells.shape[1]]
        rows["dst_y"], rows["dst_x"] = cells * 16 + 8
        rows["w"] = rows["h"] = 16
        if places == "twice":
            rows = np.concatenate([rows, rng.permutation(rows)])
    else:
        rows["dst_y"] = rng.integers(-20, height + 20, count)
        rows["dst_x"] = rng.integers(-20, width + 20, count)
        rows["w"] = rng.choice([8, 16], count)
        rows["h"] = rng.choice([8, 16], count)
    for axis in "xy":
        shift = rng.integers(-40, 41, len(rows)) * rng.integers(0, 2, len(rows))
        rows[f"src_{axis}"] = rows[f"dst_{axis}"] + shift
    return rows


def test_content_from_the_left_moves_right_and_keeps_its_quarter_pixel():
    # Predicted from 3.25 px to the left -> the content moved 3.25 px to the right.
    field = rasterize_motion_vectors(block(24, 8, motion_x=-13), 32, 48, subpixel=True)

    assert field.shape == (2, 32, 48)
    assert field.dtype == np.float32
    np.testing.assert_array_equal(field[0, 0:16, 16:32], 3.25)  # 13/4 is exact in float32
    assert np.count_nonzero(field) == 16 * 16  # nothing outside the block, and no dy


def test_whole_pixels_are_the_truncated_source():
    field = rasterize_motion_vectors(block(24, 8, motion_x=-13, motion_y=7), 32, 48)
    np.testing.assert_array_equal(field[0, 0:15, 16:32], 3)
    np.testing.assert_array_equal(field[1, 0:15, 16:32], -1)
    assert (field[:, 15:] == 0)[:, 1:].all()


@pytest.mark.parametrize(
    ("dst_x", "dst_y", "covered"),
    [(0, 0, 8 * 8), (48, 8, 16 * 8), (-20, 8, 0)],
    ids=["top-left corner", "right edge", "outside"],
)
def test_blocks_over_the_edge_are_clipped_not_wrapped(dst_x, dst_y, covered):
    field = rasterize_motion_vectors(block(dst_x, dst_y, motion_x=4), 32, 48, subpixel=True)
    assert np.count_nonzero(field[0]) == covered


@pytest.mark.parametrize("subpixel", [False, True])
def test_a_frame_without_vectors_is_all_zero(subpixel):
    assert not rasterize_motion_vectors(block(0, 0)[:0], 32, 48, subpixel=subpixel).any()


def test_vectors_from_the_future_are_refused():
    with pytest.raises(VideoError, match="1 of 1 motion vectors point to a future frame"):
        rasterize_motion_vectors(block(8, 8, source=1), 32, 48)


@pytest.mark.parametrize("places", ["grid", "twice", "anywhere"])
@pytest.mark.parametrize(("height", "width"), [(34, 50), (48, 32), (20, 90)])
def test_blockwise_reading_equals_the_loader_written_pixel_by_pixel(places, height, width):
    rng = np.random.default_rng([height, len(places)])
    batch = [random_blocks(rng, k, height, width, places) for k in (0, 1, 6, 12)]
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    padded = np.zeros((vectors.padded(height), vectors.padded(width), 3), np.uint8)
    padded[:height, :width] = picture
    together = vectors.whole_pixel_moves(batch, height, width)
    for rows, moves in zip(batch, together, strict=True):
        origin = literal_sources(rows, height, width)
        motion = (np.stack(np.mgrid[:height, :width], -1) - origin)[..., ::-1].transpose(2, 0, 1)
        np.testing.assert_array_equal(rasterize_motion_vectors(rows, height, width), motion)
        np.testing.assert_array_equal(vectors.motion_field(moves, height, width), motion)
        expected = picture[origin[..., 0], origin[..., 1]]
        carried = padded.copy()
        vectors.carry(carried, moves)
        np.testing.assert_array_equal(carried[:height, :width], expected)
        np.testing.assert_array_equal(predict(picture, motion.astype(np.float32)), expected)


def test_frames_with_and_without_a_grid_may_be_read_together():
    rng = np.random.default_rng(3)
    batch = [random_blocks(rng, 9, 34, 50, places) for places in ("grid", "anywhere", "grid")]
    for rows, moves in zip(batch, vectors.whole_pixel_moves(batch, 34, 50), strict=True):
        alone = rasterize_motion_vectors(rows, 34, 50)
        np.testing.assert_array_equal(vectors.motion_field(moves, 34, 50), alone)


def test_prediction_between_pixels_is_their_mean_rounded_up_and_the_edge_repeats():
    picture = np.zeros((1, 4, 3), np.uint8)
    picture[0, :, 0] = 10, 21, 30, 40
    motion = np.zeros((2, 1, 4), np.float32)
    motion[0] = 0.5
    np.testing.assert_array_equal(predict(picture, motion)[0, :, 0], [10, 16, 26, 35])
    motion[0] = -2
    np.testing.assert_array_equal(predict(picture, motion)[0, :, 0], [30, 40, 40, 40])
