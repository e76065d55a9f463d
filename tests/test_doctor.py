import numpy as np
import pytest

from dmclib import codec, doctor, paths


def test_a_working_installation_has_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    findings = list(doctor.examine())
    assert len(findings) == 11
    assert [finding.sentence for finding in findings if finding.state == "fail"] == []
    assert any("reads as dx = +4" in finding.sentence for finding in findings)
    assert not (tmp_path / "cache" / "doctor.txt").exists()


def test_vectors_of_the_wrong_sign_fail(monkeypatch):
    class Frame:
        is_key = False
        motion = np.full((2, 4, 4), -4, dtype=np.float32)

    monkeypatch.setattr(codec, "encode", lambda frames, clip: None)
    monkeypatch.setattr(codec, "read_frames", lambda clip: [Frame()])
    state, sentence = doctor._vectors()
    assert state == "fail"
    assert "4 px right reads as (-4, -4)" in sentence


def test_two_opencvs_that_overwrite_each_other_fail(monkeypatch):
    both = {"opencv-python": "4.1", "opencv-contrib-python-headless": "5.0"}
    monkeypatch.setattr(doctor, "_installed", lambda: both)
    state, sentence = doctor._tvl1()
    assert state == "fail"
    assert "opencv-python and opencv-contrib-python-headless overwrite each other" in sentence


def test_a_cache_that_cannot_be_written_fails(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(paths, "CACHE", tmp_path / "file")  # a file where the folder should be
    state, sentence = doctor._cache()
    assert state == "fail"
    assert "set DMC_CACHE" in sentence


def test_released_scores_and_weights_are_told_with_what_they_unlock(tmp_path, monkeypatch):
    monkeypatch.setenv("DMC_RELEASED_SCORES", str(tmp_path / "exp_my"))
    monkeypatch.setenv("DMC_RELEASED_WEIGHTS", str(tmp_path))
    scores, weights = doctor._scores(), doctor._weights()
    assert (scores.state, weights.state) == ("ok", "ok")
    assert "none, nothing needs them; clone facebookresearch/dmc-net" in scores.sentence
    assert "none, nothing needs them; put the authors' checkpoints into" in weights.sentence

    (tmp_path / "exp_my").mkdir()
    (tmp_path / "hmdb51" / "split2").mkdir(parents=True)
    (tmp_path / "hmdb51" / "split2" / "a.pth.tar").touch()
    found = f"released scores: in {tmp_path / 'exp_my'}; `dmc reproduce laptop --only 10` fuses"
    assert found in doctor._scores().sentence
    command = f"`dmc reproduce hmdb51 --released-weights {tmp_path / 'hmdb51'}` tests them."
    assert doctor._weights().sentence == f"released weights: in {tmp_path}; {command}"


@pytest.mark.parametrize(
    ("installed", "state", "words"),
    [("1.0", "ok", "1 installed packages are as"), ("1.1", "warn", r"numpy 1.1 (locked: 1.0)")],
)
def test_versions_are_compared_with_the_lock(tmp_path, monkeypatch, installed, state, words):
    (tmp_path / "requirements.lock").write_text(
        "numpy==1.0 \\\n    --hash=sha256:0\nother==2 ; x\n"
    )
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(doctor, "_installed", lambda: {"numpy": installed})
    assert doctor._lock()[0] == state
    assert words in doctor._lock().sentence


def test_a_part_that_does_not_load_is_a_finding(monkeypatch):
    def check():
        """The thing."""
        raise ImportError("no such library")

    assert doctor._safely(check).state == "fail"
    assert "The thing: ImportError: no such library" in doctor._safely(check).sentence
