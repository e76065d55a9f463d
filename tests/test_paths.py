import pytest

from dmclib import paths


def test_the_score_files_are_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DMC_RELEASED_SCORES", str(tmp_path))
    assert paths.released_scores() == tmp_path
    monkeypatch.setenv("DMC_RELEASED_SCORES", str(tmp_path / "absent"))
    assert paths.released_scores() is None


@pytest.mark.parametrize("made", [True, False])
def test_without_the_variable_they_are_looked_for_among_the_real_clips(tmp_path, monkeypatch, made):
    monkeypatch.delenv("DMC_RELEASED_SCORES", raising=False)
    monkeypatch.setenv("DMC_SHARED_DATA", str(tmp_path))
    folder = tmp_path / "released_scores" / "exp_my"
    if made:
        folder.mkdir(parents=True)
    assert paths.released_scores() == (folder if made else None)
