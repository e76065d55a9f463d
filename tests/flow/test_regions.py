import numpy as np
import pytest

from dmclib import flow
from dmclib.flow.regions import camera

SIZE = 96
Y, X = np.indices((SIZE, SIZE), np.float32) - SIZE / 2
STILL = np.zeros((2, SIZE, SIZE), np.float32)
CAMERAS = {
    "still": STILL,
    "pans": STILL + np.float32([3.5, -2])[:, None, None],
    "zooms": np.stack([0.06 * X, 0.06 * Y]),  # nearly 3 px at the border
    "rolls and zooms": np.stack([0.02 * X - 0.05 * Y + 1, 0.05 * X + 0.02 * Y]),
}
SQUARE = slice(30, 70), slice(20, 60)  # rows, columns


def with_square(background, dx=4.0):
    """A square of 40 px that moves ``dx`` px to the right of what is behind it."""
    field = background.copy()
    field[0][SQUARE] += dx
    return field


@pytest.mark.parametrize("background", CAMERAS.values(), ids=CAMERAS)
def test_a_square_before_any_camera_is_a_body_with_a_band_about_its_edge(background):
    masks = flow.regions(with_square(background))

    assert tuple(masks) == flow.REGIONS
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in masks.values()), 1)
    inside, outside = np.zeros((2, SIZE, SIZE), bool)
    inside[34:66, 24:56] = True  # 4 px within the edge
    outside[26:74, 16:64] = True  # 4 px outside it, but for the very corners, which are further
    outside[[26, 26, 73, 73], [16, 63, 16, 63]] = False
    np.testing.assert_array_equal(masks["body"], inside)
    np.testing.assert_array_equal(masks["background"], ~outside)
    np.testing.assert_array_equal(masks["boundary"], outside & ~inside)


@pytest.mark.parametrize("band_px", [1, 7])
def test_the_band_is_as_wide_as_asked_on_either_side(band_px):
    boundary = flow.regions(with_square(STILL), band_px=band_px)["boundary"]
    assert boundary.sum() == (40 + 2 * band_px) ** 2 - 4 - (40 - 2 * band_px) ** 2


def test_what_moves_less_than_a_whole_pixel_vector_errs_is_background():
    assert flow.regions(with_square(STILL, dx=0.4))["background"].all()
    assert flow.regions(with_square(STILL, dx=0.6))["body"].any()


def test_a_field_without_a_body_is_all_background():
    for background in CAMERAS.values():
        assert flow.regions(background)["background"].all()


def test_a_body_that_bends_without_a_jump_has_no_edge_within():
    field = with_square(STILL, dx=4)
    field[1][SQUARE] = 0.1 * X[SQUARE]  # it turns: neighbours differ by 0.1 px
    np.testing.assert_array_equal(
        flow.regions(field)["boundary"], flow.regions(with_square(STILL))["boundary"]
    )


def test_the_camera_is_found_beside_several_bodies_and_always_the_same():
    rng = np.random.default_rng(0)
    field = CAMERAS["rolls and zooms"].copy()
    for x in (0, 20, 40, 60):  # four bodies over 4 / 10 of the picture, each its own way
        field[:, :, x : x + 10] += rng.normal(0, 5, 2)[:, None, None]
    found = camera(field)
    np.testing.assert_allclose(found, CAMERAS["rolls and zooms"], atol=1e-4)
    np.testing.assert_array_equal(found, camera(field))


def test_noise_has_no_background_to_speak_of():
    noise = np.random.default_rng(0).normal(0, 5, (2, SIZE, SIZE)).astype(np.float32)
    assert flow.regions(noise)["background"].mean() < 0.05
