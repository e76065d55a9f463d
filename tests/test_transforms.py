import numpy as np
import pytest
import torch

from dmclib import flow, transforms
from dmclib.transforms import Sample
from tests import close


def sample(items=1, height=32, width=48, *, with_flow=True):
    def field(channels, scale):
        return torch.randn(items, channels, height, width) * scale

    return Sample(field(2, 5.0), field(3, 50.0), field(2, 5.0) if with_flow else None)


def translating(dx, dy, *, items=1, height=32, width=48):
    """A field that moves as one, and a residual that says where each pixel was: row, column."""
    motion = torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(items, 2, height, width)
    rows, columns = torch.meshgrid(
        torch.arange(float(height)), torch.arange(float(width)), indexing="ij"
    )
    place = torch.stack([rows, columns, rows + columns]).expand(items, 3, height, width)
    return Sample(motion, place, motion)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_same(a: Sample, b: Sample):
    for name in ("motion", "residual", "flow"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)


def test_what_moved_right_moves_left_in_the_mirror():
    flipped = transforms.flip(translating(4.0, 1.0))
    assert (flipped.motion[:, 0] == -4).all()
    assert (flipped.motion[:, 1] == 1).all()
    assert (flipped.flow == flipped.motion).all()
    assert (flipped.residual[0, 1, 0] == torch.arange(47.0, -1, -1)).all()  # columns, mirrored


def test_flipping_twice_changes_nothing():
    original = sample()
    assert_same(transforms.flip(transforms.flip(original)), original)


def test_warping_the_mirrored_picture_is_mirroring_the_warped_picture():
    # Holds only if dx changes sign together with the columns.
    original = sample()
    image = np.random.default_rng(0).uniform(size=(32, 48))
    flipped = transforms.flip(original)

    warp_then_flip = flow.warp(image, original.motion[0].numpy())[:, ::-1]
    flip_then_warp = flow.warp(image[:, ::-1], flipped.motion[0].numpy())

    np.testing.assert_allclose(flip_then_warp, warp_then_flip, **close.FLOAT32)


def test_estimating_flow_on_mirrored_frames_is_flipping_the_flow():
    pytest.importorskip("cv2.optflow")
    rng = np.random.default_rng(0)
    first = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    second = np.roll(first, 2, axis=1)

    def teacher(a, b):
        return torch.from_numpy(flow.estimate(a, b, method="tvl1"))[None]

    straight = Sample(teacher(first, second), torch.zeros(1, 3, 48, 64))
    mirrored = teacher(first[:, ::-1].copy(), second[:, ::-1].copy())

    # TV-L1 walks its image in one direction, so it is mirror symmetric only nearly.
    error = (transforms.flip(straight).motion - mirrored)[..., 8:-8, 8:-8].norm(dim=1)
    assert error.median() < 0.1


def test_crop_keeps_values():
    original = sample()
    part = transforms.crop(original, top=3, left=5, height=20, width=30)
    assert part.motion.shape[-2:] == part.residual.shape[-2:] == part.flow.shape[-2:] == (20, 30)
    assert (part.motion == original.motion[..., 3:23, 5:35]).all()
    assert (part.flow == original.flow[..., 3:23, 5:35]).all()
    assert (part.residual == original.residual[..., 3:23, 5:35]).all()


@pytest.mark.parametrize("window", [(-1, 0, 8, 8), (0, 0, 33, 8), (0, 41, 8, 8), (4, 4, -2, 8)])
def test_a_crop_outside_the_frame_is_refused(window):
    with pytest.raises(ValueError, match="leaves the 32 x 48 frame"):
        transforms.crop(sample(), *window)


def test_resizing_a_moving_picture_resizes_its_motion_per_axis():
    # Half as high, twice as wide: 4 px right become 8, 2 px up become 1.
    resized = transforms.resize(translating(4.0, -2.0), (16, 96))
    assert resized.residual.shape == (1, 3, 16, 96)
    torch.testing.assert_close(resized.motion[:, 0], torch.full((1, 16, 96), 8.0))
    torch.testing.assert_close(resized.motion[:, 1], torch.full((1, 16, 96), -1.0))
    torch.testing.assert_close(resized.flow, resized.motion)
    # The residual is a picture: its values stay. The middle of rows 0 and 1 is row 0.5.
    torch.testing.assert_close(resized.residual[0, 0, 0], torch.full((96,), 0.5))


def test_a_height_keeps_the_shape_of_the_frame_and_none_the_sample():
    original = translating(4.0, -2.0)
    assert_same(transforms.to_height(original, 16), transforms.resize(original, (16, 24)))
    assert transforms.to_height(original, None) is original


def test_warping_then_halving_is_halving_then_warping():
    # A picture that is linear keeps being so under bilinear halving: the two orders agree exactly.
    y, x = np.mgrid[:32, :48].astype(np.float32)
    image = torch.from_numpy(np.stack([y, x, x + 2 * y]))[None]
    motion = translating(3.0, -5.0).motion
    half = transforms.resize(Sample(motion, image), (16, 24))

    def warp(picture, field):
        return flow.warp(picture[0].permute(1, 2, 0).numpy(), field[0].numpy())

    warped = torch.from_numpy(warp(image, motion)).permute(2, 0, 1)[None]
    halved_after = transforms.resize(Sample(motion, warped), (16, 24)).residual
    halved_before = warp(half.residual, half.motion)

    inside = np.s_[4:-4, 4:-4]  # border pixels are repeated, which is not linear
    np.testing.assert_allclose(
        halved_before[inside], halved_after[0].permute(1, 2, 0).numpy()[inside], **close.FLOAT32
    )


def test_normalized_motion_is_on_the_authors_scale_and_rest_is_zero():
    px = torch.tensor([0.0, 20, -20, 100, 5]).view(1, 1, 1, 5).expand(1, 2, 1, 5)
    out = transforms.normalize(Sample(px, torch.zeros(1, 3, 1, 5), px))

    end = 0.5 / 0.226
    expected = torch.tensor([0, end, -end, end, end / 4])
    torch.testing.assert_close(out.motion[0, 1, 0], expected)
    torch.testing.assert_close(out.flow, out.motion)
    assert out.motion[0, 0, 0, 0] == 0
    # The authors' way through bytes gives the same scale, half a step up and less than one down.
    by_bytes = (flow.quantize(px[0, 0].numpy()) / 255 - 0.5) / 0.226
    np.testing.assert_allclose(by_bytes[0], expected, atol=1 / 255 / 0.226)


def test_eight_bits_cut_motion_as_the_authors_do():
    px = torch.tensor([0.0, 1, -1, 3, 20, -20, 100]).view(1, 1, 1, 7).expand(1, 2, 1, 7)
    out = transforms.normalize(Sample(px, torch.zeros(1, 3, 1, 7), px), eight_bit=True)

    # 1 px is 6.375 steps and 3 px are 19.125: int() cuts both towards zero.
    levels = torch.tensor([128, 134, 122, 147, 255, 1, 255])
    torch.testing.assert_close(out.motion[0, 1, 0], (levels / 255 - 0.5) / 0.226)
    torch.testing.assert_close(out.flow, out.motion)


def test_normalized_residual_is_the_authors_to_the_digit():
    grey = torch.tensor([0.0, 127, -128, 255, -255]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    out = transforms.normalize(Sample(torch.zeros(1, 2, 1, 5), grey)).residual[0, :, 0]

    for channel, std in enumerate([0.229, 0.224, 0.225]):
        by_hand = torch.tensor([0.5 / 255, 0.5, -0.5, 0.5, -0.5]) / std
        torch.testing.assert_close(out[channel], by_hand)
    assert out[0, 0].item() == pytest.approx(0.0086, abs=5e-5)  # a zero residual, as documented


def test_denormalize_motion_undoes_normalize():
    original = Sample(torch.rand(1, 2, 8, 8) * 40 - 20, torch.zeros(1, 3, 8, 8))
    back = transforms.denormalize_motion(transforms.normalize(original).motion)
    torch.testing.assert_close(back, original.motion)


def test_augment_scales_and_mirrors_motion_with_the_window():
    # The residual tells where each output pixel came from, so the window can be read off it.
    items, height, width, size = 64, 32, 48, (16, 16)
    out = transforms.augment(
        translating(4.0, -2.0, items=items, height=height, width=width), size, generator()
    )

    rows, columns = out.residual[:, 0], out.residual[:, 1]
    row_step = (rows[:, -1, 0] - rows[:, 0, 0]) / (size[0] - 1)
    column_step = (columns[:, 0, -1] - columns[:, 0, 0]) / (size[1] - 1)
    windows = set((row_step * 16).round().int().tolist())
    assert windows == {32, 28, 24}  # 1, 0.875 and 0.75 of the shorter side, all three drawn
    torch.testing.assert_close(column_step.abs(), row_step)  # square windows
    assert 16 < (column_step < 0).sum() < 48  # about half are mirrored
    # In output pixels the motion is that of the picture: px per step, sign with the columns.
    for field in (out.motion, out.flow):
        torch.testing.assert_close(
            field[:, 0], (4 / column_step).view(-1, 1, 1).expand(-1, *size), **close.FLOAT32
        )
        torch.testing.assert_close(
            field[:, 1], (-2 / row_step).view(-1, 1, 1).expand(-1, *size), **close.FLOAT32
        )
    assert len(set(columns[:, 0].mean(dim=1).tolist())) > 16  # each item its own place
    lowest, highest = columns.flatten(1).min(dim=1).values, columns.flatten(1).max(dim=1).values
    assert lowest.min() < 2  # windows reach both ends of the frame
    assert highest.max() > width - 3


def test_augment_draws_from_its_generator_only():
    batch = sample(items=8)
    global_state = torch.random.get_rng_state()

    first = transforms.augment(batch, (16, 16), generator(1))
    again = transforms.augment(batch, (16, 16), generator(1))
    other = transforms.augment(batch, (16, 16), generator(2))

    assert_same(first, again)
    assert not torch.equal(first.motion, other.motion)
    assert torch.equal(torch.random.get_rng_state(), global_state)


def test_without_flow_there_is_none_afterwards_and_nothing_else_changes():
    with_flow = sample(items=4)
    without = Sample(with_flow.motion, with_flow.residual)
    for operation in (
        transforms.flip,
        transforms.normalize,
        lambda s: transforms.crop(s, 0, 0, 8, 8),
        lambda s: transforms.resize(s, (8, 8)),
        lambda s: transforms.center_crop(s, (8, 8)),
        lambda s: transforms.augment(s, (8, 8), generator()),
    ):
        bare, full = operation(without), operation(with_flow)
        assert bare.flow is None
        assert torch.equal(bare.motion, full.motion)
        assert torch.equal(bare.residual, full.residual)


def test_the_papers_test_crop_is_the_middle_224_of_340x256():
    original = sample(height=256, width=340)
    middle = transforms.center_crop(original, (224, 224))
    assert_same(middle, transforms.crop(original, top=16, left=58, height=224, width=224))


def test_a_window_has_the_shape_of_the_size_asked_for():
    # 20 x 30 fits 32 x 48 exactly 1.6 times: with scale 1 nothing is cut and motion shrinks evenly.
    out = transforms.center_crop(translating(8.0, 8.0), (20, 30), scale=1)
    assert out.motion.shape[-2:] == (20, 30)
    torch.testing.assert_close(out.motion, torch.full((1, 2, 20, 30), 5.0))


def test_the_released_flip_leaves_dx_as_it_is():
    sample = Sample(torch.randn(1, 2, 4, 6), torch.randn(1, 3, 4, 6), torch.randn(1, 2, 4, 6))
    mirrored = transforms.flip(sample, keep_dx=True)
    assert torch.equal(mirrored.motion, sample.motion.flip(-1))
    assert torch.equal(mirrored.flow, sample.flow.flip(-1))


def test_a_sample_moves_to_another_device_whole():
    moved = Sample(torch.zeros(1, 2, 4, 6), torch.zeros(1, 3, 4, 6)).to("meta")
    assert (moved.motion.device.type, moved.residual.device.type, moved.flow) == (
        "meta",
        "meta",
        None,
    )


def test_items_of_one_moving_picture_share_crop_and_mirroring():
    frame = torch.randn(1, 2, 40, 48)
    still = Sample(frame.expand(12, -1, -1, -1), torch.randn(1, 3, 40, 48).expand(12, -1, -1, -1))
    dice = torch.Generator().manual_seed(0)
    drawn = transforms.augment(still, (32, 32), dice, together=4).motion.view(3, 4, 2, 32, 32)
    assert (drawn == drawn[:, :1]).all()
    assert not torch.equal(drawn[0, 0], drawn[1, 0])
