import pickle
import zipfile

import numpy as np
import pytest

from dmclib import errors, evaluation


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
        with pytest.raises(ValueError, match="no accuracy"):
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


# --- the authors' score files --------------------------------------------------------------------


def write_npy(archive, name, array):
    with archive.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, np.lib.format.header_data_from_array_1_0(array)
        )
        if array.dtype.hasobject:
            # Protocol 2 and the module's name of the time, as Python 2 and numpy 1 wrote it.
            content = pickle.dumps(array, protocol=2)
            content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            member.write(content)
        else:
            member.write(array.tobytes())


def write_scores(path, *, columns=2, cells=None, labels=(1, 0), names=("a/one", "b/two")):
    rows = np.empty((2, columns), dtype=object)
    for i in range(2):
        rows[i, 0] = np.float32([[0.25 + i, 1.5, -2.0]])
        rows[i, 1] = (1, 0)[i]
        if columns > 2:
            rows[i, 2] = np.zeros((25, 2), np.float32)
    with zipfile.ZipFile(path, "w") as archive:
        write_npy(archive, "scores", rows if cells is None else cells)
        write_npy(archive, "labels", np.array(labels, np.int64))
        write_npy(archive, "names", np.array(names))
    return path


@pytest.mark.parametrize("columns", [2, 3])
def test_score_files_with_and_without_discriminator_column_are_read(tmp_path, columns):
    released = evaluation.load_released_scores(
        write_scores(tmp_path / "scores.npz", columns=columns)
    )
    assert released.scores.dtype == np.float32
    np.testing.assert_array_equal(released.scores, [[0.25, 1.5, -2], [1.25, 1.5, -2]])
    assert released.labels.tolist() == [1, 0]
    assert released.names == ("a/one", "b/two")


class Touch:
    """Unpickled in the ordinary way, this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path):
    victim = tmp_path / "created"
    cells = np.empty((2, 2), dtype=object)
    cells[0, 0] = Touch(victim)
    path = write_scores(tmp_path / "hostile.npz", cells=cells)

    np.load(path, allow_pickle=True)["scores"]  # the trap is real ...
    assert victim.exists()
    victim.unlink()

    with pytest.raises(
        errors.ScoreFileError, match=r"hostile\.npz.*asks for (_?io|builtins)\.open"
    ):
        evaluation.load_released_scores(path)  # ... and does not snap
    assert not victim.exists()


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ({"labels": (0, 1)}, "labels beside its scores"),
        ({"names": ("only one",)}, "2 labels and 1 names"),
        ({"cells": np.array([[None, None, None, None]], dtype=object)}, "not \\(videos, 2 or 3\\)"),
        ({"cells": np.array([[None, 1], [None, 0]], dtype=object)}, "damaged"),
    ],
    ids=["other labels", "a name short", "four columns", "no scores"],
)
def test_parts_that_do_not_agree_are_refused(tmp_path, broken, found):
    path = write_scores(tmp_path / "scores.npz", **broken)
    with pytest.raises(errors.ScoreFileError, match=found):
        evaluation.load_released_scores(path)


def test_a_file_cut_short_is_named(tmp_path):
    path = write_scores(tmp_path / "scores.npz")
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(errors.ScoreFileError, match=r"scores\.npz.*damaged"):
            evaluation.load_released_scores(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(errors.ScoreFileError, match=r"nowhere\.npz: no such score file"):
        evaluation.load_released_scores(tmp_path / "nowhere.npz")


def test_a_file_that_unpacks_to_far_too_much_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scores.npy", bytes(evaluation.LARGEST_SCORE_FILE + 1))
    assert path.stat().st_size < 100_000
    with pytest.raises(errors.ScoreFileError, match="unpacks to"):
        evaluation.load_released_scores(path)


def test_a_shape_larger_than_the_file_is_refused(tmp_path):
    path = tmp_path / "shape.npz"
    huge = np.lib.stride_tricks.as_strided(np.int64(0), shape=(10**15,), strides=(0,))
    write_scores(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scores.npy", parts["scores.npy"])
        archive.writestr("names.npy", parts["names.npy"])
        with archive.open("labels.npy", "w") as member:
            header = np.lib.format.header_data_from_array_1_0(huge)
            np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(errors.ScoreFileError, match="damaged"):
        evaluation.load_released_scores(path)
