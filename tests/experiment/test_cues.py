from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dmclib import codec, evaluation, experiment, training, transforms
from dmclib.data import DataConfig
from dmclib.evaluation import WHOLE
from dmclib.experiment import MOTION, MSE, cues
from dmclib.training import TrainConfig, fitting
from dmclib.transforms import Sample

SIZE, FRAMES, CLIPS = 48, 6, 3


class Network:
    """Gives the share ``sees`` of the flow."""

    def __init__(self, sees):
        self.sees = sees

    def field(self, sample):
        return self.sees * sample.flow


class Batches:
    """Test frames in which a square moves by 4 px, two frames a clip, two batches."""

    def all(self):
        flow = torch.zeros(FRAMES, 2, SIZE, SIZE)
        flow[:, 0, 12:36, 12:36] = 4
        sample = Sample(torch.zeros_like(flow), torch.zeros(FRAMES, 3, SIZE, SIZE), flow)
        sample = transforms.normalize(sample)
        clip = torch.arange(CLIPS).repeat_interleave(FRAMES // CLIPS)
        for part in (slice(0, 4), slice(4, 6)):
            yield sample[part], clip[part], clip[part]


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """A training's network sees as much of the flow as its seed says, in quarters."""
    monkeypatch.setattr(training, "load_networks", lambda config: Network(config.seed / 4))
    monkeypatch.setattr(fitting, "batches", lambda *args, **more: Batches())
    clips = [SimpleNamespace(name=f"clip {n}", path="") for n in range(CLIPS)]
    dataset = SimpleNamespace(clips=lambda split: clips)
    monkeypatch.setattr(DataConfig, "open", lambda config: dataset)
    monkeypatch.setattr(codec, "probe", lambda path: SimpleNamespace(width=128, height=128))


def trained(quarters):
    return TrainConfig("motion", DataConfig(), epochs=1, seed=quarters, size=SIZE)


def test_errors_are_of_regions_and_beside_the_vectors():
    runs = {MOTION: [trained(0), trained(0)], MSE: [trained(2), trained(3)]}
    rows = {(row["variant"], row["region"]): row for row in experiment.measure(runs, MOTION)}
    assert list(rows)[:4] == [(MOTION, r) for r in (WHOLE, "background", "body", "boundary")]
    body = rows[MOTION, "body"]
    assert (body["epe_px"], body["squared"]) == pytest.approx((4, 16))
    assert rows[MOTION, "background"]["epe_px"] == 0
    assert rows[MSE, "body"]["epe_px"] == pytest.approx((2 + 1) / 2)
    assert rows[MSE, WHOLE]["epe_ratio"] == pytest.approx(3 / 8)
    assert rows[MSE, "boundary"]["squared_ratio"] == pytest.approx((1 / 4 + 1 / 16) / 2)
    for (variant, region), row in rows.items():
        assert (row["frames"], row["clips"], row["seeds"]) == (FRAMES, CLIPS, 2)
        if variant == MOTION and region != "background":
            assert row["epe_ratio"] == row["epe_ratio_low"] == row["epe_ratio_high"] == 1
    shares = [row["share"] for row in rows.values() if row["variant"] == MSE]
    assert shares[0] == 1
    assert sum(shares[1:]) == pytest.approx(1)


def test_intervals_are_over_seeds_too():
    runs = {MOTION: [trained(0), trained(0)], MSE: [trained(2), trained(3)]}
    whole = experiment.measure(runs, MOTION)[4]
    assert (whole["variant"], whole["region"]) == (MSE, WHOLE)
    assert whole["epe_ratio_low"] == pytest.approx(1 / 4)
    assert whole["epe_ratio_high"] == pytest.approx(1 / 2)


def test_a_variant_of_fewer_seeds_is_measured_over_its_own():
    runs = {MOTION: [trained(0), trained(0)], MSE: [trained(2)]}
    whole = experiment.measure(runs, MOTION)[4]
    assert whole["seeds"] == 1
    assert whole["epe_ratio"] == pytest.approx(1 / 2)


def test_splits_are_pooled_and_their_clips_kept_apart():
    runs = {MOTION: [(trained(0), trained(0))], MSE: [(trained(2), trained(3))]}
    whole = experiment.measure(runs, MOTION)[4]
    assert (whole["frames"], whole["clips"], whole["clusters"]) == (2 * FRAMES, 2 * CLIPS, CLIPS)
    assert whole["epe_ratio"] == pytest.approx(3 / 8)


def test_a_network_of_other_clips_is_measured_on_the_vectors_test_frames(monkeypatch):
    seen = []
    monkeypatch.setattr(
        fitting, "batches", lambda config, *args, **more: seen.append(config) or Batches()
    )
    vectors, abroad = [(trained(0), trained(0))] * 2, [(trained(2), trained(3))]
    rows = experiment.measure({MOTION: vectors}, MOTION, {"as it is": abroad})
    whole = next(row for row in rows if (row["variant"], row["region"]) == ("as it is", WHOLE))
    assert (whole["frames"], whole["seeds"]) == (2 * FRAMES, 1)
    assert whole["epe_ratio"] == pytest.approx(3 / 8)
    assert set(seen) == {trained(0)}


def test_blockiness_is_of_the_whole_picture_alone():
    rows = experiment.measure({MOTION: [trained(1)]}, MOTION)
    assert ["blockiness" in row for row in rows] == [True, False, False, False]
    assert np.isfinite(rows[0]["blockiness"])


def test_macroblocks_are_found_where_the_test_crop_has_put_them():
    rows, columns = cues.macroblocks(trained(1))
    np.testing.assert_array_equal(rows, columns)  # of a square picture
    # The middle 112 of 128 px begin 8 px into a macroblock; 48 px show seven of them, and a half
    # at either end.
    sides = np.unique(rows, return_counts=True)[1]
    assert len(sides) == 8
    assert sides.sum() == SIZE
    assert (sides[1:-1] >= 6).all()
    assert (sides[[0, -1]] <= 4).all()
    vectors = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).repeat(16, 2).repeat(16, 3)
    sample = Sample(torch.tensor(vectors).float(), torch.zeros(1, 3, 128, 128))
    field = transforms.center_crop(sample, (SIZE, SIZE)).motion.numpy()
    seen = evaluation.blockiness(field, rows, columns)
    for shift in (2, 3, 4):
        assert seen > 1.3 * evaluation.blockiness(
            field, np.roll(rows, shift), np.roll(columns, shift)
        )
    wrong = np.arange(SIZE) // round(16 * SIZE / 128)  # as if the crop began at a line
    assert seen > 1.3 * evaluation.blockiness(field, wrong, wrong)


def test_a_picture_that_was_halved_has_macroblocks_of_half_the_side(monkeypatch):
    clips = [SimpleNamespace(name=f"clip {n}", path="") for n in range(CLIPS)]
    dataset = SimpleNamespace(clips=lambda split: clips)
    monkeypatch.setattr(DataConfig, "open", lambda config: dataset)
    monkeypatch.setattr(codec, "probe", lambda path: SimpleNamespace(width=340, height=256))
    rows, _ = cues.macroblocks(trained(1))
    assert len(np.unique(rows)) == 14  # the middle 112 px begin at a block of 8
