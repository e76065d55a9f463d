import math

import numpy as np
import pytest

from dmclib import evaluation


def test_a_clips_score_is_the_mean_of_its_segments():
    scores = np.float32([[1, 0], [10, 20], [3, 2], [5, 4]])
    video = evaluation.video_scores(scores, np.array([0, 1, 0, 0]))
    assert video.dtype == np.float32
    np.testing.assert_array_equal(video, [[3, 2], [10, 20]])


def test_a_clip_without_segments_is_refused():
    with pytest.raises(ValueError, match="Clip 1 has no segment"):
        evaluation.video_scores(np.zeros((2, 3)), np.array([0, 2]))


def test_fusion_adds_weighted_scores():
    i, mv = np.float32([[1, 0], [0, 1]]), np.float32([[0, 1.5], [0, 1]])
    fused = evaluation.fuse({"iframe": i, "mv": mv}, {"mv": 1, "iframe": 2})
    np.testing.assert_array_equal(fused, [[2, 1.5], [0, 3]])
    assert evaluation.top1(fused, np.array([0, 1])) == 1
    assert evaluation.top1(mv, np.array([0, 1])) == 0.5


def test_fusion_refuses_what_does_not_belong_together():
    with pytest.raises(ValueError, match="iframe"):
        evaluation.fuse({"iframe": np.zeros((2, 3))}, {"iframe": 2, "mv": 1})
    with pytest.raises(ValueError, match="differ"):
        evaluation.fuse({"a": np.zeros((2, 3)), "b": np.zeros((1, 3))}, {"a": 1, "b": 1})


def test_each_method_has_a_row_with_what_its_fusion_calls_right():
    scores = {"a": np.float32([[1, 0], [1, 0]]), "b": np.float32([[0, 2], [0, 2]])}
    methods = {"a": {"a": 1}, "b": {"b": 1}, "both": {"a": 3, "b": 1}}
    right = evaluation.called_right(scores, np.array([0, 0]), methods)
    assert {name: own.tolist() for name, own in right.items()} == {
        "a": [True, True],
        "b": [False, False],
        "both": [True, True],
    }
    rows = evaluation.accuracy_rows(right)
    assert [(row["variant"], row["accuracy"], row["n"]) for row in rows] == [
        ("a", 1.0, 2),
        ("b", 0.0, 2),
        ("both", 1.0, 2),
    ]
    assert (rows[1]["low"], rows[1]["high"]) == evaluation.wilson_interval(0, 2)


def test_videos_of_one_group_count_as_one_in_an_accuracys_interval():
    right = np.array([True, False, True, True])
    alone = evaluation.accuracy_rows({"a": right}, np.arange(4))[0]
    assert (alone["n"], alone["clusters"]) == (4, 4)
    assert (alone["low"], alone["high"]) == evaluation.wilson_interval(3, 4)
    copies = evaluation.accuracy_rows({"a": right.repeat(5)}, np.arange(4).repeat(5))[0]
    assert (copies["n"], copies["clusters"]) == (20, 4)
    once = evaluation.clustered_interval(right, np.arange(4))
    assert (copies["low"], copies["high"]) == pytest.approx(once)


def test_wilson_intervals_are_the_textbooks():
    # Newcombe 1998, Table I, score method: 81/263, 15/148, 0/20, 1/29.
    for correct, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert evaluation.wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)
    for correct, n in [(3, 2), (-1, 2), (0, 0)]:
        with pytest.raises(ValueError, match="must"):
            evaluation.wilson_interval(correct, n)


def test_copies_of_a_frame_do_not_narrow_the_interval():
    # 60 clips; then each frame ten times: no new information, so the interval must not move.
    rng = np.random.default_rng(0)
    correct, clip = rng.random(60) < 0.7, np.arange(60)

    once = evaluation.clustered_interval(correct, clip)
    ten_times = evaluation.clustered_interval(correct.repeat(10), clip.repeat(10))

    assert ten_times == pytest.approx(once)
    # With one frame a clip, frames are independent and Wilson's formula is about right.
    assert once == pytest.approx(evaluation.wilson_interval(correct.sum(), 60), abs=0.03)


def test_clustered_interval_covers_the_truth_about_as_often_as_it_says():
    # Clips differ in difficulty: 40 clips x 25 frames, accuracy of a clip uniform in 0..1.
    rng = np.random.default_rng(1)
    clip = np.arange(40).repeat(25)
    covered = wilson_covered = 0
    for _ in range(200):
        correct = rng.random(1000) < rng.random(40)[clip]
        low, high = evaluation.clustered_interval(correct, clip, resamples=300)
        covered += low <= 0.5 <= high
        low, high = evaluation.wilson_interval(int(correct.sum()), 1000)
        wilson_covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.99
    assert wilson_covered / 200 < 0.6  # what taking frames for independent would give


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(0)
    clip = np.arange(500)
    alike = rng.random((3, 500)) < 0.6
    apart = rng.random((3, 500)) < np.array([[0.4], [0.6], [0.8]])

    def width(correct):
        low, high = evaluation.clustered_interval(correct, clip)
        return high - low

    assert width(apart) > 2 * width(alike)


def test_intervals_repeat_with_their_seed_and_need_two_clips():
    correct, clip = np.array([1, 0, 1, 1, 0, 1]), np.array([7, 7, 9, 9, 3, 3])
    first = evaluation.clustered_interval(correct, clip, seed=5)
    assert first == evaluation.clustered_interval(correct, clip, seed=5)
    assert 0 <= first[0] < 4 / 6 < first[1] <= 1
    with pytest.raises(ValueError, match="at least two"):
        evaluation.clustered_interval(correct, np.zeros(6, int))
    with pytest.raises(ValueError, match="6 frames, but 5"):
        evaluation.clustered_interval(correct, clip[:5])


def test_pairing_finds_a_difference_that_separate_intervals_hide():
    # b is right wherever a is, except on 5 of 100 clips of two frames.
    rng = np.random.default_rng(0)
    clip = np.arange(100).repeat(2)
    a = (rng.random(100) < 0.6).repeat(2)
    b = a.copy()
    b[np.flatnonzero(a)[:10]] = False

    difference, low, high = evaluation.paired_difference(a, b, clip)

    assert difference == pytest.approx(0.05)
    assert 0 < low < difference < high
    assert (
        evaluation.clustered_interval(a, clip)[0] < evaluation.clustered_interval(b, clip)[1]
    )  # separate intervals overlap
    back = evaluation.paired_difference(b, a, clip)
    assert back[0] == -difference
    assert evaluation.paired_difference(a, a, clip) == (0, 0, 0)
    with pytest.raises(ValueError, match="same frames"):
        evaluation.paired_difference(a, b[:50], clip)


def test_metadata_baseline_finds_a_leak_and_only_a_leak():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    leak = np.stack([1e6 + 1e5 * labels + 1e4 * rng.normal(size=300), np.ones(300)], axis=1)
    noise = rng.normal(size=(300, 2))

    def accuracy(features):
        return evaluation.metadata_baseline(
            features[:200], labels[:200], features[200:], labels[200:]
        ).mean()

    assert accuracy(leak) > 0.95
    assert accuracy(noise) < 0.5
    assert accuracy(noise) == accuracy(noise)


def binomial(only_a, only_b):
    """The two-sided exact binomial test at one half, by counting subsets."""
    n, most = only_a + only_b, max(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n
    return min(2 * tail, 1.0)


def answers(both, only_a, only_b, neither):
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(5, 0, 1 / 16), (4, 1, 3 / 8), (1, 9, 11 / 512), (3, 3, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_is_the_binomial_test_of_the_cases_that_differ(only_a, only_b, p):
    # 1/16: five coins alike, either side. 3/8: (1 + 5) * 2 of 32. 11/512: (1 + 10) * 2 of 1024.
    test = evaluation.mcnemar(*answers(20, only_a, only_b, 7))
    assert (test.only_a, test.only_b) == (only_a, only_b)
    assert test.p == pytest.approx(p, rel=1e-12)
    assert test.p == pytest.approx(binomial(only_a, only_b), rel=1e-12)


def test_mcnemar_stays_exact_for_many_cases_and_has_no_preferred_side():
    a, b = answers(1000, 260, 180, 500)
    test = evaluation.mcnemar(a, b)
    assert test.p == pytest.approx(binomial(260, 180), rel=1e-9)
    assert evaluation.mcnemar(b, a).p == test.p


def test_a_clip_counted_five_times_is_no_better_evidence_than_once():
    a, b = answers(3, 6, 1, 2)
    once = evaluation.mcnemar(a, b)
    copies = evaluation.mcnemar(a.repeat(5), b.repeat(5), np.arange(12).repeat(5))
    assert copies.p == pytest.approx(once.p)
    assert evaluation.mcnemar(a.repeat(5), b.repeat(5)).p < once.p / 100
    # Clips of net +2, +1 and -1: of the 8 ways to throw signs, 6 reach |2 + 1 - 1| = 2.
    mixed = evaluation.mcnemar([1, 1, 1, 0], [0, 0, 0, 1], [7, 7, 3, 9])
    assert mixed.p == pytest.approx(6 / 8)
    # A clip on which they win once each says nothing.
    assert evaluation.mcnemar([1, 0], [0, 1], [4, 4]).p == 1
    with pytest.raises(ValueError, match="same cases"):
        evaluation.mcnemar(a, b[:5])


def test_holm_raises_each_p_by_what_is_left_and_keeps_their_order():
    # Holm 1979's rule by hand: 4 * .01, 3 * .012, 2 * .03 and 1 * .04, none below the one before.
    raised = evaluation.holm([0.03, 0.01, 0.04, 0.012])
    assert raised == pytest.approx([0.06, 0.04, 0.06, 0.04])
    assert evaluation.holm([0.6, 0.7]) == [1, 1]
    assert evaluation.holm([]) == []


def test_equal_sums_have_the_ratio_one_exactly():
    rng = np.random.default_rng(0)
    a, clip = rng.random((3, 60)), np.arange(20).repeat(3)
    assert evaluation.ratio_interval(a, a, clip) == (1, 1, 1)
    # Sums that are small in the same clips cancel: 0.8 in every one of them leaves no doubt.
    assert evaluation.ratio_interval(0.8 * a, a, clip) == pytest.approx((0.8, 0.8, 0.8))


def test_a_mean_is_a_ratio_to_how_many_were_counted():
    rng = np.random.default_rng(0)
    correct, clip = rng.random((2, 60)) < 0.7, np.arange(20).repeat(3)
    mean, *interval = evaluation.ratio_interval(correct, np.ones(60), clip)
    assert mean == pytest.approx(correct.mean())
    assert tuple(interval) == evaluation.clustered_interval(correct, clip)


def test_ratio_intervals_cover_the_truth_about_as_often_as_they_say():
    # Errors of two methods share the clip's difficulty; the first's mean is 0.8 of the second's.
    rng = np.random.default_rng(1)
    clip, covered = np.arange(40).repeat(6), 0
    for _ in range(200):
        hard = rng.exponential(size=40)[clip]
        a, b = 0.8 * hard * rng.uniform(0.5, 1.5, 240), hard * rng.uniform(0.5, 1.5, 240)
        _, low, high = evaluation.ratio_interval(a, b, clip, resamples=300)
        covered += low <= 0.8 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_one_side_without_seeds_is_that_of_all_seeds():
    rng = np.random.default_rng(0)
    cue, vectors, clip = rng.random((3, 40)), rng.random(40), np.arange(40)
    same = evaluation.ratio_interval(cue, np.stack([vectors] * 3), clip)
    assert evaluation.ratio_interval(cue, vectors, clip) == pytest.approx(same)


def test_a_ratio_needs_something_below_the_line():
    with pytest.raises(ValueError, match="below the line are zero"):
        evaluation.ratio_interval(np.ones(4), np.zeros(4), np.arange(4))
    with pytest.raises(ValueError, match="4 frames, but 3"):
        evaluation.ratio_interval(np.ones(4), np.ones(4), np.arange(3))
    # Clips in which nothing was counted, drawn alone, say nothing.
    ratio = evaluation.ratio_interval(np.float64([0, 6]), np.float64([0, 2]), np.arange(2))
    assert ratio == (3, 3, 3)
