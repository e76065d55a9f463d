import numpy as np
import pytest

from dmclib import errors, released
from tests.score_maker import write_scores

NAMES = (
    "run/A_film!_run_f_cm_np1_fr_goo_0.avi",
    "run/A_film!_run_f_cm_np1_ba_med_1.avi",
    "wave/Other_wave_u_nm_np12_le_bad_0.avi",
)
LABELS = (1, 1, 0)  # the authors' numbers do not follow the alphabet


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two streams of three videos a split; the files agree in everything."""
    files = {"iframe": "coviar/split{}/iframe.npz", "mv": "coviar/split{}/mv.npz"}
    tiny = released.scores.Release("Tiny", files, {"CoViAR": {"iframe": 2, "mv": 1}}, "mv")
    monkeypatch.setitem(released.RELEASES, "tiny", tiny)
    for split in released.SPLITS:
        for name in files:
            write(tmp_path, name, split)
    return tmp_path


def write(folder, stream, split, *, names=NAMES, labels=LABELS):
    path = folder / f"coviar/split{split}/{stream}.npz"
    scores = [[split, k] for k in range(len(names))]
    return write_scores(path, scores=scores, labels=labels, names=names)


def test_splits_follow_each_other_and_rows_know_their_film(folder):
    write(folder, "iframe", 2, names=[name.replace("film", "show") for name in NAMES])
    write(folder, "mv", 2, names=[name.replace("film", "show") for name in NAMES])
    scores = released.load("tiny", folder)

    assert scores.split.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert scores.streams["mv"].tolist()[3:6] == [[2, 0], [2, 1], [2, 2]]
    assert scores.labels.tolist() == [1, 1, 0] * 3
    assert scores.classes == ("wave", "run")
    film, other, show = scores.source[[0, 2, 3]]
    assert scores.source.tolist() == [film, film, other, show, show, other, film, film, other]
    assert len({film, other, show}) == 3
    assert scores.videos == 5
    assert (scores.respelled, scores.misplaced) == (0, 0)


def test_clips_of_one_group_of_ucf_are_one_source(folder):
    names = ("Run/v_Run_g01_c01.avi", "Run/v_Run_g01_c02.avi", "Wave/v_wave_g01_c01.avi")
    for split in released.SPLITS:
        for stream in ("iframe", "mv"):
            write(folder, stream, split, names=names)
    a, b, c = released.load("tiny", folder).source[:3]
    assert a == b != c


def test_other_signs_in_a_name_are_counted_and_so_are_rows_of_another_video(folder):
    respelled = [name.replace("!", "_") for name in NAMES]
    write(folder, "mv", 1, names=respelled)
    scores = released.load("tiny", folder)
    assert (scores.respelled, scores.misplaced) == (2, 0)

    write(folder, "mv", 1, names=[respelled[1], respelled[0], respelled[2]])
    scores = released.load("tiny", folder)
    assert (scores.respelled, scores.misplaced) == (2, 2)
    assert scores.by_name["mv"].tolist() == [1, 0, 2, 3, 4, 5, 6, 7, 8]
    assert scores.by_name["iframe"].tolist() == list(range(9))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"labels": (1, 0, 0)}, "its labels differ"),
        ({"names": ("run/another.avi", *NAMES[1:])}, "its names differ"),
    ],
    ids=["labels", "names"],
)
def test_a_stream_of_other_videos_is_named(folder, changes, found):
    write(folder, "mv", 3, **changes)
    with pytest.raises(errors.ScoreFileError, match=rf"split3.mv\.npz lists other.*{found}"):
        released.load("tiny", folder)


def test_a_missing_and_a_truncated_file_are_named(folder):
    path = folder / "coviar/split2/mv.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(errors.ScoreFileError, match=r"split2.mv\.npz.*damaged"):
        released.load("tiny", folder)
    path.unlink()
    with pytest.raises(errors.ScoreFileError, match=r"split2.mv\.npz: no such score file"):
        released.load("tiny", folder)


@pytest.mark.parametrize("word", ["hmdb51", "ucf101"])
def test_a_folder_without_the_files_names_the_first_that_is_missing(word, tmp_path):
    with pytest.raises(ValueError, match=r"iframe_score_model_best\.npz"):
        released.load(word, tmp_path)


@pytest.mark.data
def test_the_authors_files_are_as_they_are_known(shared_data):
    folder = shared_data / "released_scores" / "exp_my"
    hmdb = released.load("hmdb51", folder)
    assert np.bincount(hmdb.split).tolist() == [0, 1530, 1530, 1530]
    assert (hmdb.respelled, hmdb.misplaced) == (351, 15)
    assert hmdb.videos == 4243  # of 4590 rows: the three test lists share some
    assert len(hmdb.classes) == 51
    ucf = released.load("ucf101", folder)
    assert np.bincount(ucf.split).tolist() == [0, 3783, 3734, 3696]
    assert (ucf.respelled, ucf.misplaced, ucf.videos) == (0, 0, 11213)
    assert ucf.source.max() + 1 == 101 * 21  # test groups 1 to 21 of each class
