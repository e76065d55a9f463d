import numpy as np
import pytest

from dmclib import evaluation

SIZE = 96


def square_scenes(*sides):
    """One field per side: a square of so many px moves 4 px to the right, the rest stands still."""
    fields = np.zeros((len(sides), 2, SIZE, SIZE), np.float32)
    for field, side in zip(fields, sides, strict=True):
        field[0, 20 : 20 + side, 20 : 20 + side] = 4
    return fields


def test_saying_that_nothing_moves_errs_by_4_px_on_the_body_and_not_at_all_behind_it():
    truth = square_scenes(40, 20)
    near = evaluation.nearness(0 * truth, truth, evaluation.region_masks(truth))

    assert list(near) == ["whole", "background", "body", "boundary"]
    np.testing.assert_array_equal(near["body"].epe, 4)
    np.testing.assert_array_equal(near["body"].squared, 16)
    np.testing.assert_array_equal(near["background"].epe, 0)
    np.testing.assert_array_equal(near["body"].pixels, [32**2, 12**2])  # without the band
    assert near["whole"].epe == pytest.approx(np.array([4 * 40**2, 4 * 20**2]) / SIZE**2)
    for values in ("epe_sum", "squared_sum", "pixels"):
        parts = sum(getattr(near[name], values) for name in list(near)[1:])
        np.testing.assert_allclose(getattr(near["whole"], values), parts)


def test_errors_are_lengths_in_pixels_whatever_the_number_type():
    truth = square_scenes(40)
    wrong = (truth + np.float32([3, -4])[:, None, None]).astype(np.float16)
    whole = evaluation.nearness(wrong, truth, {})["whole"]
    assert (whole.epe.item(), whole.squared.item()) == (5, 25)


def test_a_frame_without_a_body_has_no_error_there_and_does_not_weigh():
    truth = square_scenes(0, 40, 20)
    truth[2] /= 2  # errs by 2 px
    body = evaluation.nearness(0 * truth, truth, evaluation.region_masks(truth))["body"]
    np.testing.assert_array_equal(body.epe, [np.nan, 4, 2])
    two_seeds = evaluation.Nearness(*(np.stack([v, v]) for v in vars(body).values()))
    np.testing.assert_array_equal(two_seeds.epe[1], body.epe)
    mean, low, high = evaluation.ratio_interval(body.epe_sum, body.pixels, np.arange(3))
    # A mean over pixels: the larger body has 1024 of them, the smaller 144.
    assert mean == pytest.approx((4 * 1024 + 2 * 144) / (1024 + 144))
    assert (low, high) == (2, 4)


def test_nearness_refuses_what_does_not_belong_together():
    truth = square_scenes(40)
    with pytest.raises(ValueError, match=r"flow of \(1, 2, 96, 96\)"):
        evaluation.nearness(truth[:, :, 1:], truth, {})
    with pytest.raises(ValueError, match=r"'body': \(96, 96\)"):
        evaluation.nearness(truth, truth, {"body": np.ones((SIZE, SIZE), bool)})


def blockiness(fields, *, grid_px):
    """Of whole pictures with blocks of this side."""
    height, width = fields.shape[2:]
    return evaluation.blockiness(fields, np.arange(height) // grid_px, np.arange(width) // grid_px)


def test_blocks_show_their_own_grid_and_no_other():
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(3, 2, 6, 6)).repeat(16, axis=2).repeat(16, axis=3)
    # Nothing changes but across the 5 grid lines: 95 neighbours share what 5 have.
    assert blockiness(blocks, grid_px=16) == pytest.approx(95 / 5)
    assert (blockiness(blocks, grid_px=7) < 1).all()
    noisy = blocks + rng.normal(size=blocks.shape)
    assert (blockiness(noisy, grid_px=16) > 1.5).all()


@pytest.mark.parametrize("grid_px", [12, 16])
def test_a_smooth_field_and_a_constant_one_show_no_grid(grid_px):
    y, x = np.indices((SIZE, SIZE), float)
    ramp, waves = np.stack([x + y, 2 * x]), np.stack([np.sin(x / 3), np.cos(y / 4)])
    assert blockiness(ramp[None], grid_px=grid_px) == pytest.approx(1)
    assert blockiness(waves[None], grid_px=grid_px) == pytest.approx(1, abs=0.2)
    assert blockiness(np.ones((1, 2, 48, 48)), grid_px=grid_px) == 1
