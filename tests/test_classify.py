import csv
import os
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from dmclib import (
    classify,
    cli,
    cluster,
    codec,
    demo,
    machine,
    paths,
    recognition,
    training,
    weights,
)
from dmclib.errors import CheckpointError, DatasetError, OutputError, ScoreFileError
from dmclib.fast import fused
from tests.close import FLOAT32


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The training that notebook 06 shows at its defaults, as if it were done; 3 frames of 25."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("DMC_CACHE", str(tmp_path / "cache"))  # for workers
    monkeypatch.setattr(recognition, "FRAMES", 3)
    monkeypatch.setattr(machine, "has_bf16", lambda *_: False)
    config = demo._config("smoke")
    networks = training.build_networks(config, 10)
    torch.nn.init.normal_(networks.classifier.fc.weight)  # scores that tell clips apart
    weights.save(networks, config.folder / "weights.safetensors")
    frame = {"logits": torch.zeros(1, 10), "epe_px": torch.zeros(1)}
    frame |= {name: torch.zeros(1, dtype=torch.int64) for name in ("label", "clip")}
    weights.write(frame, config.folder / "scores.safetensors")
    classify._fast_networks.cache_clear()
    yield config
    classify._fast_networks.cache_clear()


@pytest.fixture
def here(monkeypatch):
    """Does tasks in this process, and notes of what; those whose path is in ``lost`` are lost."""

    class Here(cluster.Workers):
        asked, lost = (), []

        def __init__(self):
            pass

        def each(self, function, jobs, *, patience_seconds):
            for job in jobs:
                Here.asked += (os.path.basename(job[0]),)
                if job[0] in Here.lost:
                    Here.lost.remove(job[0])
                    yield job, cluster.LOST
                else:
                    yield job, function(*job)

    @contextmanager
    def workers(count, *, scheduler):
        yield Here()

    monkeypatch.setattr(cluster, "workers", workers)
    return Here


def drifting(step, frames=14):
    coarse = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    return (np.roll(texture, step * n, axis=1) for n in range(frames))


@pytest.fixture
def videos(tmp_path):
    """Two clips of ours, a file that is none, and what is passed over."""
    folder = tmp_path / "videos"
    codec.encode(drifting(2), folder / "a.mp4")
    codec.encode(drifting(-3), folder / "inner" / "b.mp4")
    (folder / "inner" / "b.mp4").rename(folder / "inner" / "b.AVI")
    (folder / "c.mp4").write_bytes(b"not a video" * 100)
    (folder / "notes.txt").write_text("no video")
    (folder / ".hidden.mp4").write_bytes(b"nothing")
    return folder


def rows_of(path):
    with open(path, newline="") as handle:
        header, *rows = csv.reader(handle)
    return header, {os.path.basename(row[0]): row for row in rows}


def test_a_folder_is_scored_by_the_protocol_and_a_bad_file_is_named(config, here, videos, tmp_path):
    out = tmp_path / "scores.csv"
    report = classify.classify([videos, videos / "a.mp4"], out, profile="smoke")
    assert here.asked == ("a.mp4", "c.mp4", "b.AVI")
    header, rows = rows_of(out)
    assert header == ["video", "label", "networks", *config.data.open().classes]
    assert set(rows) == {"a.mp4", "b.AVI"}
    expected = recognition.recognise(
        videos / "a.mp4", training.load_networks(config), size=config.size, height=128
    )
    found = torch.tensor([float(score) for score in rows["a.mp4"][3:]])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    assert rows["a.mp4"][1] == config.data.open().classes[expected.argmax()]
    assert rows["a.mp4"][3:] != rows["b.AVI"][3:]
    (sentence,) = report.failed.values()
    assert "c.mp4" in sentence
    assert "2 videos labelled" in str(report)
    assert "1 failed" in str(report)
    assert [s.split(": ")[0] for s in report.sentences] == list(report.scores)
    assert os.listdir(tmp_path / "videos" / "inner") == ["b.AVI"]


def test_another_codec_is_re_encoded_and_scored_as_the_clip_it_becomes(config, videos, tmp_path):
    networks = classify._fast_networks(config)
    codec.encode(drifting(2), tmp_path / "other.mp4", gop=5)
    codec.transcode(tmp_path / "other.mp4", tmp_path / "clip.mp4")
    scores = classify.score(str(tmp_path / "other.mp4"), config)
    clip = recognition.recognise(tmp_path / "clip.mp4", networks, size=config.size, height=128)
    torch.testing.assert_close(torch.tensor(scores), clip, **FLOAT32)


def test_what_is_in_the_file_is_not_scored_again(config, here, videos, tmp_path):
    out = tmp_path / "scores.csv"
    classify.classify([videos / "a.mp4"], out, profile="smoke")
    first = out.read_text()
    report = classify.classify([videos], out, profile="smoke")
    assert here.asked == ("a.mp4", "c.mp4", "b.AVI")
    assert report.kept == 1
    assert out.read_text().startswith(first)
    assert set(rows_of(out)[1]) == {"a.mp4", "b.AVI"}
    again = classify.classify([videos / "a.mp4"], out, profile="smoke")
    assert str(again) == "0 videos labelled, 1 already were."


def test_a_stopped_run_keeps_its_rows(config, here, videos, tmp_path, monkeypatch):
    score = classify.score

    def stopped(path, config):
        if path.endswith("c.mp4"):
            raise KeyboardInterrupt
        return score(path, config)

    monkeypatch.setattr(classify, "score", stopped)
    with pytest.raises(KeyboardInterrupt):
        classify.classify([videos], tmp_path / "out" / "scores.csv", profile="smoke")
    assert set(rows_of(tmp_path / "out" / "scores.csv")[1]) == {"a.mp4"}
    assert os.listdir(tmp_path / "out") == ["scores.csv"]


def test_a_lost_worker_costs_a_second_try_and_then_its_video_alone(config, here, videos):
    a, b = (str(videos / name) for name in ("a.mp4", "inner/b.AVI"))
    here.lost = [a, b, b]
    report = classify.classify([a, b], profile="smoke")
    assert here.asked == ("a.mp4", "b.AVI", "a.mp4", "b.AVI")
    assert list(report.scores) == [a]
    assert "was lost, twice" in report.failed[b]


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"video,label\n", b'"', b"a" * 200_000],
    ids=["empty", "binary", "another header", "open quote", "long field"],
)
def test_another_file_is_never_written_over(config, here, videos, tmp_path, content):
    out = tmp_path / "out.csv"
    out.write_bytes(content)
    with pytest.raises(ScoreFileError, match=r"out\.csv does not hold scores of these networks"):
        classify.classify([videos], out, profile="smoke")
    assert out.read_bytes() == content


def test_scores_of_other_networks_are_not_mixed(config, here, videos, tmp_path):
    out = tmp_path / "out.csv"
    classify.classify([videos / "a.mp4"], out, profile="smoke")
    out.write_text(out.read_text().replace(config.key, "0123456789abcdef"))
    with pytest.raises(ScoreFileError, match="of these networks"):
        classify.classify([videos], out, profile="smoke")


def test_strange_names_come_back_from_the_file(config, here, videos, tmp_path):
    strange = videos / 'x,"\n\udcff.mp4'
    (videos / "a.mp4").rename(strange)
    for _ in "ab":
        report = classify.classify([strange], tmp_path / "out.csv", profile="smoke")
    assert report.kept == 1
    assert classify._shown(str(strange)).isprintable()


def test_what_cannot_be_done_is_a_sentence(config, here, videos, tmp_path):
    with pytest.raises(DatasetError, match="no video is there"):
        classify.classify([tmp_path / "cache"], profile="smoke")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"out\.csv: cannot be written"):
        classify.classify([videos], tmp_path / "file" / "out.csv", profile="smoke")
    (config.folder / "scores.safetensors").unlink()
    with pytest.raises(CheckpointError, match="dmc reproduce laptop --only 06"):
        classify.classify([videos], profile="laptop")


def test_the_command_prints_labels_and_ends_with_1_if_a_file_failed(
    config, here, videos, monkeypatch, capsys
):
    line = ["dmc", "classify", "--profile", "smoke"]
    monkeypatch.setattr("sys.argv", [*line, str(videos)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    said = capsys.readouterr()
    assert "a.mp4: " in said.out
    assert "frames per second" in said.out
    assert "c.mp4" in said.err.splitlines()[-1]
    monkeypatch.setattr("sys.argv", [*line, str(videos / "a.mp4")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code


@pytest.mark.slow
def test_workers_of_this_machine_give_the_same_scores(config, videos, monkeypatch):
    monkeypatch.setattr(recognition, "FRAMES", 25)  # as a worker has it
    a = str(videos / "a.mp4")
    report = classify.classify([a], profile="smoke")
    expected = recognition.recognise(
        a, training.load_networks(config), size=config.size, height=128
    )
    assert report.failed == {}
    gap = (torch.tensor(report.scores[a]) - expected).abs().max() / expected.abs().max()
    assert gap < fused.TOLERANCES[torch.bfloat16]  # a worker may have the instructions for it
