import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import flow as bench_flow
from dmclib import errors, flow
from dmclib.data import puppets
from dmclib.flow import tvl1


def smooth(height, width, *, seed=0):
    """A grey picture of soft blobs, 0 to 255, that repeats beyond its edges."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    y, x = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    blobs = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-150 * (x**2 + y**2))).real
    return torch.from_numpy(127 + 100 * blobs / np.abs(blobs).max()).float()


def test_a_picture_moved_right_and_up_has_positive_dx_and_negative_dy():
    still = smooth(80, 112)
    moved = torch.roll(still, (-3, 4), (0, 1))

    field = tvl1.estimate(still[None], moved[None])

    assert field.shape == (1, 2, 80, 112)
    assert field.dtype == torch.float32
    middle = field[0, :, 16:-16, 16:-16]
    torch.testing.assert_close(
        middle, torch.tensor([4.0, -3.0])[:, None, None].expand_as(middle), rtol=0, atol=0.2
    )


def test_it_finds_a_puppets_exact_motion_to_a_fifth_of_a_pixel():
    puppet = puppets.Puppet(puppets.Recipe("wave", "test", 1, size=96, frames=6))
    previous, current = list(puppet.frames())[4:]
    truth = puppet.motion(5)

    error = flow.endpoint_error(flow.estimate(previous, current, method="tvl1-torch"), truth)

    # The thin limbs that it misses are a small part of the picture.
    assert np.median(error) < 0.1
    assert error.mean() < 0.2 < np.hypot(*truth).mean()


def test_a_pairs_flow_does_not_depend_on_the_pairs_beside_it():
    stills = torch.stack([smooth(40, 56, seed=seed) for seed in range(3)])
    moved = torch.stack([torch.roll(s, k, 1) for k, s in enumerate(stills)])
    together = tvl1.estimate(stills, moved)
    for k in range(3):
        torch.testing.assert_close(
            together[k : k + 1], tvl1.estimate(stills[k:][:1], moved[k:][:1])
        )
    # The way that a GPU takes, all at once.
    at_once = -tvl1._coarse_to_fine(moved[:, None], stills[:, None])
    torch.testing.assert_close(at_once, together, rtol=0, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_processors_flow():
    stills = torch.stack([smooth(64, 80, seed=seed) for seed in range(3)])
    moved = torch.roll(stills, (1, -2), (1, 2))
    field = tvl1.estimate(stills.cuda(), moved.cuda()).cpu()
    torch.testing.assert_close(field, tvl1.estimate(stills, moved), rtol=0, atol=0.01)


def test_pictures_at_rest_and_pictures_without_texture_do_not_move():
    still, flat = smooth(40, 56), torch.full((40, 56), 90.0)
    field = tvl1.estimate(torch.stack([still, flat]), torch.stack([still, flat]))
    assert field.abs().max() < 1e-4  # px; warping by zero is exact up to rounding


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (15, 300), (17, 17)])
def test_odd_and_small_sizes_work(height, width):
    frames = torch.rand(1, height, width) * 255
    field = tvl1.estimate(frames, frames.flip(2))
    assert field.shape == (1, 2, height, width)
    assert field.isfinite().all()


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(errors.DMCError, match=r"\(2, 8, 8\) and \(1, 8, 8\)"):
        tvl1.estimate(torch.zeros(2, 8, 8), torch.zeros(1, 8, 8))
    with pytest.raises(errors.DMCError, match=r"grey frames"):
        tvl1.estimate(torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8, 3))


def test_the_median_is_the_thirteenth_of_the_twenty_five():
    planes = torch.randn(2, 2, 11, 13)
    planes[:, :, 4:8] = planes[:, :, 4:8].round()  # equal values too

    windows = F.pad(planes, (2, 2, 2, 2), mode="replicate").unfold(2, 5, 1).unfold(3, 5, 1)

    expected = windows.flatten(-2).sort(-1).values[..., 12]
    torch.testing.assert_close(tvl1.median_5x5(planes), expected, rtol=0, atol=0)


def test_the_median_is_right_for_every_sorted_input_of_zeros_and_ones():
    # Compare-and-exchange networks that are right on all zeros and ones are right on all numbers.
    # After the columns and rows are sorted, the ones of each row stand to its right, and a lower
    # row has as many or more.
    counts = [
        c
        for c in itertools.product(range(6), repeat=5)
        if all(a <= b for a, b in itertools.pairwise(c))
    ]
    places = torch.tensor([[[j >= 5 - c for j in range(5)] for c in row] for row in counts]).int()
    value = list(places.flatten(1).T)
    for a, b in tvl1._SELECT:
        value[a], value[b] = torch.minimum(value[a], value[b]), torch.maximum(value[a], value[b])

    assert len(counts) == 252
    torch.testing.assert_close(value[tvl1._MEDIAN], (places.sum((1, 2)) >= 13).int())


@pytest.mark.data
@pytest.mark.parametrize("pairs", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_it_agrees_with_opencvs_on_real_clips(shared_data, pairs):
    pytest.importorskip("cv2.optflow")
    found = bench_flow.agreement(pairs=pairs)
    assert found["median_px"] < 0.15
    assert found["worst_pair_px"] < 0.15
