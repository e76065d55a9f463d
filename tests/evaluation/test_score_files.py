import codecs
import zipfile

import numpy as np
import pytest

from dmclib import errors, evaluation
from dmclib.evaluation import score_files
from tests.score_maker import write_scores


@pytest.mark.parametrize("columns", [2, 3])
def test_score_files_with_and_without_discriminator_column_are_read(tmp_path, columns):
    released = score_files.load_released_scores(
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
        errors.ScoreFileError, match=r"hostile\.npz.*asks for '(_?io|builtins)\.open"
    ):
        score_files.load_released_scores(path)  # ... and does not snap
    assert not victim.exists()


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ({"labels": (0, 1), "beside": (1, 0)}, "labels beside its scores"),
        ({"names": ("only one",)}, "2 labels and 1 names"),
        ({"cells": np.array([[None, None, None, None]], dtype=object)}, "not \\(videos, 2 or 3\\)"),
        ({"cells": np.array([[None, 1], [None, 0]], dtype=object)}, "damaged"),
    ],
    ids=["other labels", "a name short", "four columns", "no scores"],
)
def test_parts_that_do_not_agree_are_refused(tmp_path, broken, found):
    path = write_scores(tmp_path / "scores.npz", **broken)
    with pytest.raises(errors.ScoreFileError, match=found):
        score_files.load_released_scores(path)


def test_a_file_cut_short_is_named(tmp_path):
    path = write_scores(tmp_path / "scores.npz")
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(errors.ScoreFileError, match=r"scores\.npz.*damaged"):
            score_files.load_released_scores(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(errors.ScoreFileError, match=r"nowhere\.npz: no such score file"):
        score_files.load_released_scores(tmp_path / "nowhere.npz")


def test_a_file_that_unpacks_to_far_too_much_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scores.npy", bytes(score_files.LARGEST_SCORE_FILE + 1))
    assert path.stat().st_size < 100_000
    with pytest.raises(errors.ScoreFileError, match="unpacks to"):
        score_files.load_released_scores(path)


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
        score_files.load_released_scores(path)


def test_the_reader_is_evaluations_too():
    assert evaluation.load_released_scores is score_files.load_released_scores


@pytest.mark.parametrize(
    ("arguments", "found"),
    [(("x", "zlib"), "encodes as 'zlib'"), (("x" * 2000, "latin1"), "more bytes than it has")],
    ids=["another codec", "a text over and over"],
)
def test_the_one_function_that_a_pickle_may_call_is_on_a_lead(
    tmp_path, monkeypatch, arguments, found
):
    class Encodes:
        def __reduce__(self):
            return codecs.encode, arguments

    cells = np.empty((2, 2), dtype=object)
    cells[:] = [[Encodes(), 1], [Encodes(), 0]]
    path = write_scores(tmp_path / "scores.npz", cells=cells)
    monkeypatch.setattr(score_files, "LARGEST_SCORE_FILE", path.stat().st_size)
    with pytest.raises(errors.ScoreFileError, match=found):
        score_files.load_released_scores(path)
