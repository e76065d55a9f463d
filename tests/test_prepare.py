import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from distributed import LocalCluster
from typer.testing import CliRunner

from dmclib import cli, cluster, codec, files, flow, paths
from dmclib.data import corpora, manifest
from dmclib.data.corpus import Video
from dmclib.errors import DatasetError, DMCError
from dmclib.flow import store
from dmclib.prepare import corpus as preparation
from dmclib.prepare import video
from tests import sabotage


@pytest.fixture(scope="module", autouse=True)
def scheduler():
    """Two workers for this file, each of which takes seconds to start."""
    with cluster.workers(2) as started:
        SETTINGS["scheduler"] = started.address
        yield started.address


SETTINGS = {"flow": "none"}  # of ``run``


def pictures(count=4, *, seed=0, height=32, width=48):
    """A textured square that moves 2 px to the right a frame."""
    room = width + 2 * count
    texture = np.random.default_rng(seed).integers(0, 255, (height, room, 3), dtype=np.uint8)
    smooth = (texture[:, :-1] // 2 + texture[:, 1:] // 2).astype(np.uint8)
    return [np.ascontiguousarray(smooth[:, -width - 2 * n : -2 * n or None]) for n in range(count)]


def videos(folder, classes=2, each=2, count=4):
    """A folder of tiny videos, ``<class>/<number>.mp4``."""
    for label in range(classes):
        for number in range(each):
            target = folder / f"class{label}" / f"{number}.mp4"
            codec.encode(pictures(count, seed=10 * label + number), target)
    return folder


def run(root, out, **settings):
    return preparation.prepare(corpora.VideoFolder(root), out, **SETTINGS | settings)


def places(out, name):
    return video.places(out, name)


def stamps(out):
    """Which file is which: a file that is made again is another one."""
    return {
        path.relative_to(out).as_posix(): path.stat().st_ino
        for part in ("clips", "flow")
        for path in sorted((out / part).rglob("*.*"))
        if path.is_file()
    }


def records(out):
    """Names of the videos that are done."""
    found = (path.relative_to(out / "records").as_posix() for path in out.glob("records/*/*.json"))
    return {name.removesuffix(".json") for name in found if "/." not in name}


def quarantine(out):
    return json.loads((out / "quarantine.json").read_text())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Four videos and their folder, prepared without disturbance, not to be changed."""
    folder = tmp_path_factory.mktemp("original")
    root, out = videos(folder / "videos"), folder / "out"
    run(root, out, flow="dis", jobs=2, scheduler=None)
    return root, out


@pytest.fixture
def copied(original, tmp_path):
    """A copy of the prepared folder, to be changed, and of its videos; the times are kept."""
    root, out = tmp_path / "videos", tmp_path / "out"
    for source, target in zip(original, (root, out), strict=True):
        shutil.copytree(source, target)
    return root, out


def test_a_prepared_video_is_what_the_codec_and_flow_make_of_it(original, tmp_path):
    root, out = original
    codec.transcode(root / "class1" / "0.mp4", tmp_path / "clip.mp4")
    clip, fields, _ = places(out, "class1/0.mp4")
    assert clip.read_bytes() == (tmp_path / "clip.mp4").read_bytes()
    # Flow is between the frames that a training sees, those of the prepared clip.
    seen = list(codec.decode_rgb(clip))
    assert seen[0].shape == (256, 340, 3)
    assert codec.probe(fields).frames == len(seen) - 1 == 3
    for n in range(1, 4):
        wanted = flow.estimate(seen[n - 1], seen[n], method="dis").clip(-20, 20)
        stored = store.read(fields, [n])[0]
        assert abs(stored - wanted).max() <= store.ERROR_PX


def test_the_manifest_names_files_and_settings_and_verifies(original):
    _, out = original
    found = manifest.read(out)
    assert found.classes == ("class0", "class1")
    assert list(found.entries) == ["class0/0.mp4", "class0/1.mp4", "class1/0.mp4", "class1/1.mp4"]
    entry = found.entries["class1/0.mp4"]
    assert (entry.label, entry.width, entry.height, entry.frames) == (1, 340, 256, 4)
    assert entry.clip_sha256 == manifest.sha256(out / entry.clip)
    assert (found.codec["gop"], found.codec["quantizer"]) == (12, 1)
    assert found.flow["method"] == "dis"
    assert found.codec["tools"]["av"] == av.__version__
    assert str(out.parent) not in (out / manifest.FILE).read_text()
    assert manifest.verify(out) == []


def test_where_it_was_made_does_not_show(original, tmp_path):
    root, out = original
    report = run(root, tmp_path / "out", flow="dis")  # on a scheduler's workers; there, on our own
    assert (report.made, report.kept) == (4, 0)
    assert (tmp_path / "out" / manifest.FILE).read_bytes() == (out / manifest.FILE).read_bytes()


def test_what_is_done_is_not_done_again(copied, monkeypatch):
    root, out = copied
    before, text = stamps(out), (out / manifest.FILE).read_bytes()
    monkeypatch.setattr(cluster, "workers", None)  # nothing is left for a worker to do
    report = run(root, out, flow="dis")
    assert (report.made, report.kept) == (0, 4)
    assert stamps(out) == before
    assert (out / manifest.FILE).read_bytes() == text


def test_another_time_alone_makes_nothing_new_and_another_content_does(copied):
    root, out = copied
    before, text = stamps(out), (out / manifest.FILE).read_bytes()
    os.utime(root / "class0" / "0.mp4")
    assert run(root, out, flow="dis").made == 0
    assert stamps(out) == before
    assert (out / manifest.FILE).read_bytes() == text

    codec.encode(pictures(5, seed=99), root / "class0" / "0.mp4")
    report = run(root, out, flow="dis")
    assert (report.made, report.kept) == (1, 3)
    changed = {path for path, inode in stamps(out).items() if before[path] != inode}
    assert changed == {"clips/class0/0.mp4.mp4", f"flow/class0/0.mp4{store.SUFFIX}"}
    assert manifest.read(out).entries["class0/0.mp4"].frames == 5


def test_flow_is_kept_and_never_mixed_with_another_method_s(copied):
    root, out = copied
    before = stamps(out)
    for other in ("farneback", "none"):
        with pytest.raises(DatasetError, match=rf"holds flow by dis, not {other}. Go on with that"):
            run(root, out, flow=other)
    assert run(root, out, flow=None).made == 0  # goes on with what the folder holds
    assert stamps(out) == before
    assert manifest.read(out).flow["method"] == "dis"


def test_flow_may_be_added_to_clips_without(tmp_path):
    root, out = videos(tmp_path / "videos", each=1), tmp_path / "out"
    run(root, out, flow="none")
    before = stamps(out)
    run(root, out, flow="farneback")
    assert manifest.read(out).flow["method"] == "farneback"
    assert all(stamps(out)[path] == inode for path, inode in before.items() if "clips/" in path)


def test_another_codec_setting_makes_everything_again(copied, monkeypatch):
    root, out = copied
    before = stamps(out)
    monkeypatch.setattr(video, "QUANTIZER", 8)
    assert run(root, out, flow="dis").made == 4
    assert not before.items() & stamps(out).items()
    assert manifest.read(out).codec["quantizer"] == 8


def test_a_corpus_may_have_its_videos_letterboxed_and_then_the_manifest_says_so(
    copied, tmp_path, scheduler
):
    root, out = copied
    assert "letterbox" not in manifest.read(out).codec  # so that folders from before stay valid
    before = stamps(out)
    corpus = corpora.VideoFolder(root)
    corpus.letterbox = True
    report = preparation.prepare(corpus, out, scheduler=scheduler)
    assert report.made == 4
    assert not before.items() & stamps(out).items()
    assert manifest.read(out).codec["letterbox"] is True
    clip = out / manifest.read(out).entries["class0/1.mp4"].clip
    codec.transcode(root / "class0" / "1.mp4", tmp_path / "clip.mp4", letterbox=True)
    assert clip.read_bytes() == (tmp_path / "clip.mp4").read_bytes()
    assert preparation.prepare(corpus, out).made == 0


def test_the_same_clip_from_a_newer_encoder_keeps_its_flow(copied):
    root, out = copied
    before = stamps(out)
    for record in (out / "records").rglob("*.json"):
        content = json.loads(record.read_text())
        content["clip"]["made"]["tools"]["av"] = "0.1"
        record.write_text(json.dumps(content))
    run(root, out, flow="dis")
    kept = {path for path, inode in stamps(out).items() if before[path] == inode}
    assert kept == {path for path in before if path.startswith("flow/")}


def test_a_folder_of_the_older_format_keeps_its_clips_and_has_its_flow_made_anew(copied):
    root, out = copied
    text, before = (out / manifest.FILE).read_text(), stamps(out)
    for record in (out / "records").rglob("*.json"):
        content = json.loads(record.read_text())
        content["flow"]["made"]["stored_as"] = ".flow"
        record.write_text(json.dumps(content))
    for path in (out / "flow").rglob(f"*{store.SUFFIX}"):
        path.rename(path.with_suffix(".flow"))
    (out / manifest.FILE).write_text(text.replace(f'"format": {manifest.FORMAT}', '"format": 1', 1))
    with pytest.raises(DatasetError, match=r"run `dmc prepare DATASET --root \.\.\. --out .*again"):
        manifest.read(out)
    assert run(root, out, flow=None).made == 4  # flow by the method that the folder names
    assert manifest.verify(out) == []
    assert (out / manifest.FILE).read_text() == text
    after = stamps(out)
    assert all(after[path] == before[path] for path in before if path.startswith("clips/"))


def test_a_file_that_is_gone_or_cut_short_is_made_again(copied):
    root, out = copied
    text = (out / manifest.FILE).read_bytes()
    for place, number in enumerate(("class0/0.mp4", "class0/1.mp4", "class1/0.mp4")):
        path = places(out, number)[place]  # of the first its clip, of the next its flow, a record
        path.write_bytes(path.read_bytes()[:100])
    places(out, "class1/1.mp4")[0].unlink()
    assert run(root, out, flow="dis").made == 4
    assert (out / manifest.FILE).read_bytes() == text
    assert manifest.verify(out) == []


def test_what_a_killed_run_left_half_written_goes_and_nothing_else(copied):
    root, out = copied
    left = [
        out / "clips" / "class0" / ".0.mp4.4711.partial.mp4",
        out / "flow" / "class0" / ".0.mp4.4711.partial.flow",
        out / "records" / "class0" / ".0.mp4.4711.partial.json",
        out / ".manifest.4711.partial.json",
    ]
    others = [out / "notes" / ".a.4711.partial.mp4", out / "clips" / "class0" / ".partial.mp4"]
    for path in left + others:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    run(root, out, flow="dis")
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


# --- places and names ---------------------------------------------------------------------------


def test_folders_inside_each_other_are_refused(tmp_path):
    root = videos(tmp_path / "videos", each=1)
    for out in (root, root / "out", tmp_path, root / "class0" / ".." / "out"):
        with pytest.raises(DatasetError, match="must not be, or lie in, one another"):
            run(root, out)
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(DatasetError, match="one another"):
        run(root, tmp_path / "link" / "out")
    assert sorted(path.name for path in root.iterdir()) == ["class0", "class1"]


def test_a_folder_with_other_things_is_left_alone(original, tmp_path):
    root, out = original
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DatasetError, match="holds other things"):
        run(root, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    other = corpora.VideoFolder(root)
    other.name = "HMDB51"
    with pytest.raises(DatasetError, match="holds prepared videos of 'VideoFolder', not of HMDB51"):
        preparation.prepare(other, out)


def test_a_second_run_on_the_same_folder_is_told(copied):
    root, out = copied
    with (
        files.held(out / video.LOCK),
        pytest.raises(DatasetError, match="Another `dmc prepare` is at work"),
    ):
        run(root, out, flow="dis")
    assert run(root, out, flow="dis").kept == 4


@pytest.mark.parametrize("part", ["clips", "flow/class0", "records", "lists"])
def test_a_link_in_the_output_is_not_followed(copied, tmp_path, part):
    root, out = copied
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(out / part)
    (out / part).symlink_to(elsewhere)
    with pytest.raises(DMCError, match=r"nothing is written outside .* Remove the link"):
        run(root, out, flow="dis")
    assert list(elsewhere.iterdir()) == []
    assert not (out / manifest.FILE).exists() or part == "lists"


def test_a_link_in_the_place_of_the_lock_is_not_followed(original, tmp_path):
    (tmp_path / "precious").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / video.LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(DMCError, match="cannot be written"):
        run(original[0], tmp_path / "out")
    assert (tmp_path / "precious").read_bytes() == b""


def test_a_link_in_the_place_of_a_clip_is_replaced_and_not_followed(copied, tmp_path):
    root, out = copied
    clip = places(out, "class0/0.mp4")[0]
    content = clip.read_bytes()
    clip.unlink()
    (tmp_path / "precious").write_bytes(content)
    clip.symlink_to(tmp_path / "precious")
    run(root, out, flow="dis")
    assert not clip.is_symlink()
    assert (tmp_path / "precious").read_bytes() == content


@pytest.mark.parametrize("name", ["../a.mp4", "a/../b.mp4", "/a.mp4", "a/", "a", "a/..", "./a.mp4"])
def test_a_name_that_leads_elsewhere_is_refused(original, tmp_path, name):
    corpus = corpora.VideoFolder(original[0])
    corpus.videos = (Video(name, 0, corpus.videos[0].source),)
    with pytest.raises(DatasetError, match="is not '<class>/<file>'"):
        preparation.prepare(corpus, tmp_path / "out", flow="none")
    assert not (tmp_path / "out").exists()


def test_odd_names_are_names_like_others(tmp_path):
    names = [
        "-rf.mp4",
        'it\'s "quoted".mp4',
        "$(touch pwned);.mp4",
        "%03d *?.mp4",
        "a..mp4",
        "\u00e9t\u00e9 \u96ea.mp4",
        "http:x.mp4",
        "x.mp4.mp4",
        "x.mp4",
    ]
    root = videos(tmp_path / "videos", each=1)
    for name in names:
        shutil.copy(root / "class1" / "0.mp4", root / "class0" / name)
    (root / "class1").rename(root / "-- class 'one'")
    report = run(root, tmp_path / "out")
    assert report.made == len(names) + 2
    assert {f"class0/{name}" for name in names} < set(manifest.read(report.folder).entries)
    assert manifest.verify(report.folder) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "videos"]


# --- bad videos ---------------------------------------------------------------------------------


def write(path, frames, *, codec_name, pix_fmt="yuv420p", times=None, **options):
    """A video as others make it; ``times`` are in hundredths of a second."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec_name, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 100)
        for n, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (times or range(0, 400, 4))[n], Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def test_bad_videos_are_quarantined_with_a_sentence_and_good_ones_prepared(tmp_path):
    root = videos(tmp_path / "videos", each=1)
    folder = root / "class0"
    good = (folder / "0.mp4").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "noise.avi").write_bytes(random.Random(0).randbytes(5000))
    (folder / "cut.mp4").write_bytes(good[: len(good) * 2 // 3])
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    codec.encode(pictures(1), folder / "one.mp4")
    long = f"{'n' * 245}.mp4"  # 255 bytes are allowed, and it would get more
    shutil.copy(folder / "0.mp4", folder / long)
    (folder / "linked.mp4").symlink_to(folder / "0.mp4")
    with pytest.raises(preparation.Quarantined, match="6 could not be prepared") as caught:
        run(root, tmp_path / "out")
    out = tmp_path / "out"
    reasons = quarantine(out)
    assert caught.value.report.quarantined == reasons
    assert sorted(reasons) == [
        f"class0/{name}"
        for name in ("cut.mp4", "empty.mp4", "list.mp4", long, "noise.avi", "one.mp4")
    ]
    assert "has one frame, and so no motion" in reasons["class0/one.mp4"]
    assert "its name is too long" in reasons[f"class0/{long}"]
    for name, reason in reasons.items():
        assert reason.startswith(f"{name}: ")
        assert reason.endswith(".")
        assert str(tmp_path) not in reason
    found = manifest.read(out)
    assert list(found.entries) == ["class0/0.mp4", "class0/linked.mp4", "class1/0.mp4"]
    assert found.quarantined == tuple(sorted(reasons))
    assert manifest.verify(out) == []


def test_a_video_that_goes_bad_leaves_no_old_clip(copied):
    root, out = copied
    (root / "class0" / "1.mp4").write_bytes(b"gone")
    assert list(run(root, out, flow="dis", keep_going=True).quarantined) == ["class0/1.mp4"]
    assert not any(path.exists() for path in places(out, "class0/1.mp4"))
    assert manifest.verify(out) == []


def test_odd_sizes_times_and_codecs_are_prepared(tmp_path):
    root = videos(tmp_path / "videos", each=1)
    folder, frames = root / "class0", pictures(6, height=64, width=64)
    write(folder / "odd.avi", pictures(6, height=45, width=33), codec_name="ffv1")
    write(folder / "tiny.mkv", pictures(6, height=2, width=2), codec_name="ffv1")
    write(folder / "times.mp4", frames, codec_name="mpeg4", times=[0, 4, 30, 31, 32, 90])
    write(folder / "h264.mp4", frames, codec_name="libx264", bf="2")
    write(folder / "h264_10.mkv", frames, codec_name="libx264", pix_fmt="yuv420p10le")
    write(folder / "hevc.mp4", frames, codec_name="libx265", **{"x265-params": "log-level=-1"})
    write(folder / "av1.mkv", frames, codec_name="libsvtav1")
    assert run(root, tmp_path / "out").made == 9
    entries = manifest.read(tmp_path / "out").entries
    for name in ("odd.avi", "tiny.mkv", "times.mp4", "h264.mp4", "h264_10.mkv", "hevc.mp4"):
        assert entries[f"class0/{name}"].frames == 6  # each once, whenever it is to be shown
    truth = np.stack(frames).mean((1, 2, 3))
    for name in ("times.mp4", "h264.mp4", "h264_10.mkv", "hevc.mp4", "av1.mkv"):
        shown = np.stack(list(codec.decode_rgb(tmp_path / "out" / entries[f"class0/{name}"].clip)))
        assert abs(shown.mean((1, 2, 3)) - truth).max() < 6  # lossy codecs; noise is far off


# Of the nasty files, those that can be prepared, with their frames; and why others cannot.
PREPARED = {
    **{f"decord_video_{turn}.mov": 3 for turn in (0, 90, 180, 270)},
    "mp4parse_white.mp4": 300,
    "torchcodec_av1_video.mkv": 125,
    "torchcodec_h264_10bits.mp4": 30,
    "torchcodec_h265_video.mp4": 10,
}
REASONS = {
    "decord_corrupted": "damaged",
    "cenc-audioinit": "no video",
    "cbcs_audio": "no video",
    "cenc": "encrypted",
    "cbcs": "encrypted",
    "audio_only": "no video",
    "audioinit": "no video",
    "aac": "no video",
    "nonfragment_header": "no frames",
    "no_timescale": "corrupt",
}


@pytest.mark.data
def test_nasty_files_are_prepared_or_quarantined_for_the_right_reason(shared_data, tmp_path):
    sources = sorted((shared_data / "nasty").iterdir())
    corpus = corpora.VideoFolder(videos(tmp_path / "videos", each=1))
    corpus.videos = tuple(Video(f"class0/{path.name}", 0, path) for path in sources)
    corpus.lists = {}
    report = preparation.prepare(corpus, tmp_path / "out", keep_going=True, **SETTINGS)
    entries = manifest.read(report.folder).entries
    assert {*entries, *report.quarantined} == {video.name for video in corpus.videos}
    for source in sources:
        name = f"class0/{source.name}"
        if "colr_nclx" in name:
            assert entries[name].frames == 3
        elif source.name in PREPARED:
            assert entries[name].frames == PREPARED[source.name]
        else:
            words = [word for key, word in REASONS.items() if key in name]
            assert (words or ["one frame"])[0] in report.quarantined[name]
    for turn, quarters in ((0, 0), (90, -1), (180, 2), (270, 1)):  # as they lie in the file
        with av.open(str(shared_data / "nasty" / f"decord_video_{turn}.mov")) as container:
            stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
        shown = next(codec.decode_rgb(places(report.folder, f"class0/decord_video_{turn}.mov")[0]))
        wanted = coarse(np.rot90(stored, quarters))
        assert abs(coarse(shown) - wanted).max() < 4  # scaled twice; turned otherwise it is > 40


def coarse(picture):
    """Mean colours on an 8x8 grid, whatever the picture's size."""
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1).float()
    return torch.nn.functional.adaptive_avg_pool2d(pixels, 8)


# --- workers that crash, hang or cannot write ---------------------------------------------------


LOST = "the process that prepared it was lost, twice: it crashed, ran out of memory, or did nothing"


def test_a_worker_that_is_lost_costs_one_video(tmp_path, monkeypatch):
    root, mark = videos(tmp_path / "videos", classes=2, each=1), tmp_path / "mark"
    acts = {
        "ends": "os._exit(0)",
        "fails": "raise KeyError('x')",
        "hangs_in_c": "import ctypes; ctypes.PyDLL(None).sleep(600)",  # and holds the interpreter
        "ends_once": f"os.path.exists({str(mark)!r}) or [open({str(mark)!r}, 'w'), os.abort()]",
    }
    for name in acts:
        shutil.copy(root / "class0" / "0.mp4", root / "class0" / f"{name}.mp4")
    monkeypatch.setattr(video, "make", partial(sabotage.make, acts))
    monkeypatch.setattr(preparation, "PATIENCE_SECONDS", 3)
    with pytest.raises(preparation.Quarantined, match=r"3 videos prepared.* 3 could not") as caught:
        run(root, tmp_path / "out")
    reasons = caught.value.report.quarantined
    assert reasons.pop("class0/fails.mp4").endswith("cannot be prepared (KeyError: 'x').")
    lost = [f"class0/{name}.mp4" for name in ("ends", "hangs_in_c")]
    assert reasons == {name: f"{name}: {LOST} for 3 seconds." for name in lost}
    assert mark.exists()


def test_every_task_is_answered_once_while_workers_die_one_after_another(scheduler):
    signals = [0, signal.SIGKILL, 0, signal.SIGSEGV, 0, signal.SIGABRT]  # 0 does nothing
    code = "__import__('signal').raise_signal({}) or {}"
    jobs = [(code.format(int(each), n),) for n, each in enumerate(signals)]
    with cluster.workers(scheduler=scheduler) as workers:
        answers = list(workers.each(eval, jobs))
    assert len(answers) == len(jobs)
    wanted = [n if each == 0 else cluster.LOST for n, each in enumerate(signals)]
    assert dict(answers) == dict(zip(jobs, wanted, strict=True))


def test_a_cluster_that_has_no_worker_for_long_ends_the_run(original, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "NO_WORKER_SECONDS", 0.5)
    how = {"n_workers": 0, "dashboard_address": ":0", "silence_logs": 50}
    with (
        LocalCluster(**how) as empty,
        pytest.raises(DMCError, match=r"The cluster at tcp://\S+ has had no worker for .* minutes"),
    ):
        run(original[0], tmp_path / "out", scheduler=empty.scheduler_address)


def test_workers_that_do_not_start_stop_the_run(original, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_DEAF", "raise RuntimeError")
    with pytest.raises(DMCError, match=r"Worker processes do not start here .* `dmc doctor`"):
        run(original[0], tmp_path / "out", jobs=1, scheduler=None)
    assert not (tmp_path / "out" / manifest.FILE).exists()


# What a full disk does, at the clip or at the flow. A limit of the whole process would hit the
# worker's own files too.
FULL = f"raise OSError({errno.EFBIG}, os.strerror({errno.EFBIG}))"
FULL_LATER = f"""
from dmclib.flow import store
write = store.write
def full(*arguments):
    store.write = write
    {FULL}
store.write = full
"""


@pytest.mark.parametrize("limit", [FULL, FULL_LATER], ids=["clip", "flow"])
def test_a_full_disk_stops_the_run_and_the_next_one_goes_on(original, tmp_path, limit):
    root, out = original
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "make", partial(sabotage.make, {"0": limit, "1": limit}))
        with pytest.raises(DMCError, match=rf"cannot be written \({os.strerror(errno.EFBIG)}\)"):
            run(root, tmp_path / "out", flow="dis", jobs=1, scheduler=None)
    left = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left <= {".lock", ".mp4"}  # whole clips perhaps, no record, nothing half-written
    assert not list((tmp_path / "out").rglob("*partial*"))
    assert run(root, tmp_path / "out", flow="dis").made == 4
    assert (tmp_path / "out" / manifest.FILE).read_bytes() == (out / manifest.FILE).read_bytes()


def test_an_encoder_on_a_full_disk_says_so_and_leaves_nothing(tmp_path):
    code = """
import sys
import numpy as np
from dmclib import codec, errors
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
try:
    noise = np.random.default_rng(0).integers(0, 255, (9, 128, 128, 3), dtype=np.uint8)
    codec.encode(iter(noise), "clip.mp4")
except errors.OutputError as error:
    sys.exit(f"said: {error}")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.startswith("said: clip.mp4: cannot be written (File too large). Make room")
    assert list(tmp_path.iterdir()) == []


# --- the command, interrupted -------------------------------------------------------------------


def start(root, out, *more):
    command = "from dmclib.cli import main; main()"
    arguments = ["prepare", "folder", f"--root={root}", f"--out={out}", "--jobs=2", *more]
    return subprocess.Popen(
        [sys.executable, "-c", command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background jobs, and so a test run among them, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,  # Ctrl-C is for this process and all that it starts
    )


def wait_until(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def invoke(root, out, *more):
    words = [f"--root={root}", f"--out={out}", *(f"--{k}={v}" for k, v in SETTINGS.items()), *more]
    return CliRunner().invoke(cli.app, ["prepare", "folder", *words])


def test_the_command_says_how_it_went_and_exits_accordingly(tmp_path):
    root, out = videos(tmp_path / "videos", each=1), tmp_path / "out"
    (root / "class0" / "bad.mp4").write_bytes(b"bad")
    failure = invoke(root, out).exception  # main prints it and ends with its exit code
    assert failure.exit_code == 1
    assert "2 videos prepared" in str(failure)
    assert "1 could not be prepared" in str(failure)
    assert "class0/bad.mp4: is not a readable video" in str(failure)
    before = [(out / name).read_bytes() for name in (manifest.FILE, "quarantine.json")]
    assert invoke(root, out, "--keep-going").exit_code == 0  # it tried again, to the same end
    assert [(out / name).read_bytes() for name in (manifest.FILE, "quarantine.json")] == before
    done = CliRunner().invoke(cli.app, ["prepare", "folder", f"--out={out}", "--verify"])
    assert (done.exit_code, "every file is as the manifest says" in done.output) == (0, True)
    places(out, "class0/0.mp4")[0].unlink()
    done = invoke(root, out, "--verify")
    assert done.exit_code == 1
    assert "'clips/class0/0.mp4.mp4' is missing." in done.output
    assert not places(out, "class0/0.mp4")[0].exists()  # it only looks


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sports1m", "--root=."], "no data set 'sports1m'; there are ucf101, hmdb51"),
        (["folder"], "Say with --root"),
        (["folder", "--root={root}", "--flow=magic"], "no flow 'magic'; choose tvl1"),
        (["folder", "--root={root}", "--jobs=0"], "0 jobs at once do nothing"),
        (["folder", "--verify"], "has no manifest.json"),
    ],
)
def test_a_wrong_setting_is_a_sentence(original, tmp_path, words, sentence):
    words = [word.format(root=original[0]) for word in words]
    done = CliRunner().invoke(cli.app, ["prepare", *words, f"--out={tmp_path / 'out'}"])
    assert isinstance(done.exception, DMCError)  # main makes it exit 2 and one sentence
    assert sentence in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_stops_in_a_sentence_and_the_next_run_goes_on(tmp_path):
    root, out = videos(tmp_path / "videos", each=6, count=13), tmp_path / "out"
    process = start(root, out)
    wait_until(lambda: records(out))
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "dmc: stopped; the same command goes on from here." in said
    assert "Traceback" not in said
    assert not (out / manifest.FILE).exists()
    finished, before = records(out), stamps(out)
    report = run(root, out, flow="dis")
    assert report.kept == len(finished) < 12
    after = stamps(out)
    assert all(after[f"clips/{name}.mp4"] == before[f"clips/{name}.mp4"] for name in finished)


@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_kills_at_any_moment_leave_no_trace_in_the_manifest(tmp_path, kills):
    root = videos(tmp_path / "videos", each=2 + 2 * kills, count=13)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    run(root, undisturbed, flow="dis")
    moment, made = random.Random(5), {}
    for kill in range(kills):
        process, before = start(root, out), len(records(out))
        # The first time before anything is done, then when one more is, and somewhat later.
        wait_until(lambda n=before + (kill > 0): len(records(out)) >= n)
        time.sleep(moment.uniform(0, 0.2 if kill else 1))
        process.kill()
        process.communicate()
        wait_until(lambda: not _in_use(out))  # its children follow it
        found = stamps(out)
        assert all(found[path] == inode for path, inode in made.items())  # none was made again
        made = {
            path: found[path]
            for name in records(out)
            for path in (f"clips/{name}.mp4", f"flow/{name}{store.SUFFIX}")
        }
    assert not (out / manifest.FILE).exists()  # it was always killed before the end
    process = start(root, out)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert all(stamps(out)[path] == inode for path, inode in made.items())
    assert (out / manifest.FILE).read_bytes() == (undisturbed / manifest.FILE).read_bytes()
    assert stamps(out).keys() == stamps(undisturbed).keys()
    assert manifest.verify(out) == []


HANGS = """
import ctypes
from dmclib import codec
def hang(source, *rest, transcode=codec.transcode, **settings):
    if "hangs" in str(source):
        ctypes.PyDLL(None).sleep(600)  # in C, holding the interpreter
    transcode(source, *rest, **settings)
codec.transcode = hang
"""


@pytest.mark.slow
def test_neither_a_killed_worker_nor_a_file_that_hangs_shows_in_the_manifest(tmp_path, monkeypatch):
    root = videos(tmp_path / "videos", each=10, count=13)
    unreadable = root / "class0" / "hangs.mp4"
    unreadable.write_bytes(b"noise")
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    run(root, undisturbed, flow="dis", keep_going=True)
    shutil.copy(root / "class0" / "0.mp4", unreadable)  # readable now, but for what HANGS does
    monkeypatch.setattr(preparation, "PATIENCE_SECONDS", 3)
    how = {"flow": "dis", "keep_going": True}
    with dask_cluster(tmp_path, 2, HANGS) as (address, workers), ThreadPoolExecutor(1) as thread:
        report = thread.submit(run, root, out, **how, scheduler=address)
        wait_until(lambda: len(records(out)) >= 6 or report.done())
        assert not report.done()
        workers[0].kill()
        report = report.result(900)
    assert list(report.quarantined) == ["class0/hangs.mp4"]
    assert quarantine(out) == {"class0/hangs.mp4": f"class0/hangs.mp4: {LOST} for 3 seconds."}
    assert (out / manifest.FILE).read_bytes() == (undisturbed / manifest.FILE).read_bytes()
    assert manifest.verify(out) == []


@contextmanager
def dask_cluster(tmp_path, workers, preload):
    """A scheduler and workers as a user starts them, on the loopback interface."""
    file = tmp_path / "scheduler.json"
    (tmp_path / "preload.py").write_text(preload)
    own = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}  # to be quicker

    def begin(*words):
        command = [sys.executable, "-m", "dask", *words, "--host=127.0.0.1", "--no-dashboard"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=paths.ROOT, env=os.environ | own, **quiet)

    started = [begin("scheduler", "--port=0", f"--scheduler-file={file}")]
    try:
        wait_until(lambda: file.exists() and file.stat().st_size)
        address = json.loads(file.read_text())["address"]
        for number in range(workers):
            one = ["--nthreads=1", f"--name={number}", f"--preload={tmp_path}/preload.py"]
            started.append(begin("worker", address, *one, f"--local-directory={tmp_path}/{number}"))
        yield address, started[1:]
    finally:
        for process in started:
            process.kill()  # their workers follow them
            process.wait()


def test_a_scheduler_that_does_not_answer_or_cannot_be_asked_is_a_sentence(
    original, tmp_path, monkeypatch
):
    with socket.socket() as held:  # bound and not listening: nobody else can answer there
        held.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
        with pytest.raises(DMCError, match=f"No Dask scheduler answers at '{address}'"):
            run(original[0], tmp_path / "out", scheduler=address)
    for address in ("nonsense", "tcp://", "http://127.0.0.1:1", ""):
        with pytest.raises(DMCError, match="No Dask scheduler answers"):
            run(original[0], tmp_path / "out", scheduler=address)


def _in_use(out):
    """Whether a process still has a file open in the folder."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(out) in os.readlink(link):
                return True
        except OSError:
            continue
    return False
