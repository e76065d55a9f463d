import os
import random
from collections import Counter
from contextlib import contextmanager

import pytest

from dmclib.data import corpora, lists
from dmclib.data.corpora import (
    HMDB51,
    UCF101,
    KineticsN50,
    UTInteraction,
    VideoFolder,
    VideoFolds,
    Weizmann,
)
from dmclib.errors import DatasetError


class Tree:
    """Empty videos, hard links of one file, and lists; what a test changes is put back."""

    def __init__(self, root):
        self.root = root
        root.mkdir(exist_ok=True)
        (root / "one").write_bytes(b"")

    def videos(self, names):
        for folder in {name.rpartition("/")[0] for name in names}:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            os.link(self.root / "one", self.root / name)

    def write(self, name, lines):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text("".join(f"{line}\n" for line in lines))

    @contextmanager
    def renamed(self, old, new):
        (self.root / new).parent.mkdir(exist_ok=True)
        (self.root / old).rename(self.root / new)
        try:
            yield
        finally:
            (self.root / new).rename(self.root / old)

    @contextmanager
    def rewritten(self, name, change):
        file = self.root / name
        before = file.read_bytes()
        file.write_bytes(change(before))
        try:
            yield
        finally:
            file.write_bytes(before)


def shares(total, parts):
    """``total`` in as equal parts as can be."""
    return [total // parts + (k < total % parts) for k in range(parts)]


@pytest.fixture(scope="module")
def ucf(tmp_path_factory):
    """All 13,320 names in 101 classes, in splits of the published sizes."""
    tree = Tree(tmp_path_factory.mktemp("ucf"))
    classes = [f"Class{k:03d}" for k in range(101)]
    names = [
        f"{label}/v_{label}_g{k + 1:02d}_c01.avi"  # each a group: the splits are drawn
        for label, count in zip(classes, shares(13_320, 101), strict=True)
        for k in range(count)
    ]
    tree.videos([f"UCF-101/{name}" for name in names])
    tree.write("ucfTrainTestlist/classInd.txt", [f"{k} {c}" for k, c in enumerate(classes, 1)])
    number = {label: k for k, label in enumerate(classes, 1)}
    for split, count in ((1, 3_783), (2, 3_734), (3, 3_696)):
        test = set(random.Random(split).sample(names, count))
        train = [f"{name} {number[name.split('/')[0]]}" for name in names if name not in test]
        tree.write(f"ucfTrainTestlist/trainlist0{split}.txt", train)
        # the published lists end their lines as Windows does
        tree.write(f"ucfTrainTestlist/testlist0{split}.txt", [f"{name}\r" for name in sorted(test)])
    return tree


@pytest.fixture(scope="module")
def hmdb(tmp_path_factory):
    """All 6,766 names in 51 classes, with the characters that HMDB-51's names have."""
    tree = Tree(tmp_path_factory.mktemp("hmdb"))
    classes = [f"action_{k:02d}" for k in range(51)]
    for label, count in zip(classes, shares(6_766, 51), strict=True):
        films = ("#20_[NEW]_Best!!!", "(HQ)_Tom_&_Ann's", "a b;c=1+1 2", "-A_Sørensen", "1996")
        names = [
            f"{films[k % 5]}_{label}_f_nm_np1_ba_med_{k // 5}.avi"  # clips of one film, numbered
            for k in range(count)
        ]
        tree.videos([f"{label}/{name}" for name in names])
        for split in (1, 2, 3):
            turned = names[split:] + names[:split]
            marks = [1] * 70 + [2] * 30 + [0] * (count - 100)
            tree.write(
                f"testTrainMulti_7030_splits/{label}_test_split{split}.txt",
                [f"{name} {mark} " for name, mark in zip(turned, marks, strict=True)],
            )
    return tree


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory):
    """Classes with 31 of 33 training rows' videos and 21 of 22 validation rows' videos.

    They are 20 and not 400, for the time that 20,800 files take.
    """
    tree = Tree(tmp_path_factory.mktemp("kinetics"))
    labels = [f"massaging person's head {k:03d} (in game)" for k in range(20)]
    head = "label,youtube_id,time_start,time_end,split,is_cc"
    for split, rows, there in (("train", 33, 31), ("val", 22, 21)):
        lines, videos = [head], []
        for label in labels:
            number = label[-13:-10]
            for k in range(rows):
                video = f"-{split}_{number}_{k:02d}"
                lines.append(f'"{label}",{video},{7 * k},{7 * k + 10},{split},0')
                if k < there:
                    stem = f"{video}_{7 * k:06d}_{7 * k + 10:06d}"
                    folder = label.replace(" ", "_").replace("'", "")
                    videos.append(f"{split}/{folder}/{stem}.mp4")
        tree.write(f"annotations/{split}.csv", lines)
        tree.videos(videos)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KineticsN50, "CLASSES", 20)
        patch.setattr(KineticsN50, "SPLITS", {1: (600, 400)})
        yield tree


def test_kinetics_n50_is_thirty_and_twenty_videos_of_400_classes():
    assert (KineticsN50.CLASSES, KineticsN50.TAKEN) == (400, {"train": 30, "test": 20})
    assert KineticsN50.SPLITS == {1: (12_000, 8_000)}


def test_ucf101_as_published_is_read_whole(ucf):
    corpus = UCF101(ucf.root)
    assert (len(corpus.videos), len(corpus.classes), corpus.missing) == (13_320, 101, ())
    assert corpus.shortfall == ""
    counts = {n: (len(parts["train"]), len(parts["test"])) for n, parts in corpus.lists.items()}
    assert counts == {1: (9_537, 3_783), 2: (9_586, 3_734), 3: (9_624, 3_696)}
    video = corpus.videos[200]
    assert video.label == 1
    assert video.source == ucf.root / "UCF-101" / video.name
    assert [v.name for v in corpus.videos] == sorted(v.name for v in corpus.videos)


def test_hmdb51_as_published_is_read_whole(hmdb):
    corpus = HMDB51(hmdb.root)
    assert (len(corpus.videos), len(corpus.classes), corpus.missing) == (6_766, 51, ())
    for parts in corpus.lists.values():
        assert (len(parts["train"]), len(parts["test"])) == (3_570, 1_530)
    assert any("Ann's" in name for name in corpus.lists[2]["test"])
    assert set(corpus.lists[1]["train"]) != set(corpus.lists[2]["train"])


def test_hmdb51_may_lie_one_folder_deeper(hmdb, tmp_path):
    (tmp_path / "hmdb51_org").symlink_to(hmdb.root)
    (tmp_path / "test_train_splits").symlink_to(hmdb.root)
    assert len(HMDB51(tmp_path).videos) == 6_766


def test_kinetics_n50_draws_thirty_and_twenty_a_class(kinetics):
    corpus = KineticsN50(kinetics.root)
    assert (len(corpus.videos), len(corpus.classes)) == (1_000, 20)
    assert {side: len(names) for side, names in corpus.lists[1].items()} == {
        "train": 600,
        "test": 400,
    }
    assert all(video.source.is_file() for video in corpus.videos)
    video = corpus.videos[0]
    assert video.name.startswith("massaging person's head 000 (in game)/-")  # as the rows spell it
    again = KineticsN50(kinetics.root)
    assert again.lists == corpus.lists
    assert KineticsN50(kinetics.root, seed=1).lists != corpus.lists


def test_a_lost_kinetics_video_is_replaced_and_no_other(kinetics):
    before = KineticsN50(kinetics.root)
    lost = before.videos[0]
    place = lost.source.relative_to(kinetics.root)
    with kinetics.renamed(place, f"{place}.lost"):
        after = KineticsN50(kinetics.root)
    assert len({v.name for v in after.videos} & {v.name for v in before.videos}) == 999


def test_written_lists_make_a_second_machine_take_the_same_videos(kinetics, tmp_path):
    drawn = KineticsN50(kinetics.root, seed=5)
    for folder in ("train", "val"):
        (tmp_path / folder).symlink_to(kinetics.root / folder)
    lists.write(tmp_path / "lists", drawn.classes, drawn.lists)
    followed = KineticsN50(tmp_path, seed=6)  # no rows here, and another seed
    assert (followed.lists, followed.classes) == (drawn.lists, drawn.classes)
    place = drawn.videos[0].source.relative_to(kinetics.root)
    with (
        kinetics.renamed(place, f"{place}.lost"),
        pytest.raises(DatasetError, match=r"1 listed videos are missing, as massaging.* 000"),
    ):
        KineticsN50(tmp_path)


def test_kinetics_videos_may_lie_without_class_folders(kinetics, tmp_path):
    tree = Tree(tmp_path)
    (tmp_path / "annotations").symlink_to(kinetics.root / "annotations")
    for folder in ("train", "val"):
        tree.videos([f"{folder}/{file.name}" for file in (kinetics.root / folder).rglob("*.mp4")])
    flat = KineticsN50(tmp_path)
    assert flat.lists == KineticsN50(kinetics.root).lists


ADAPTERS = {"ucf": UCF101, "hmdb": HMDB51, "kinetics": KineticsN50}
FOLDER = "train/massaging_persons_head_007_(in_game)"
VIDEO = f"{FOLDER}/-train_007_03_000021_000031.mp4"


@pytest.mark.parametrize(
    ("which", "old", "new", "named"),
    [
        (
            "ucf",
            "UCF-101/Class007/v_Class007_g01_c01.avi",
            "UCF-101/Class007/v_CIass007_g01_c01.avi",
            r"v_CIass007_g01_c01\.avi; is it Class007/v_Class007_g01_c01\.avi, which is missing",
        ),
        (
            "hmdb",
            "action_07/1996_action_07_f_nm_np1_ba_med_0.avi",
            "action_07/1997_action_07_f_nm_np1_ba_med_0.avi",
            r"does not name .*1997_action_07.*is it action_07/1996_action_07",
        ),
        (
            "kinetics",
            VIDEO,
            f"{FOLDER}/-train_007_03_000021_000099.mp4",
            r"no train row names .*000021_000099\.mp4",
        ),
        (
            "kinetics",
            VIDEO,
            VIDEO.replace("head_007", "head_008"),
            r"head_008_\(in_game\)/-train_007_03.* is \"massaging person's head 007 \(in game\)\"",
        ),
        (
            "ucf",
            "UCF-101/Class007/v_Class007_g01_c01.avi",
            "UCF-101/CLASS007/v_Class007_g01_c01.avi",
            r"CLASS007/.*is it Class007/v_Class007_g01_c01\.avi, which is missing",
        ),
        (
            "ucf",
            "UCF-101/Class007/v_Class007_g01_c01.avi",
            "UCF-101/Class999/v_Class007_g01_c01.avi",
            r"does not name .*Class999/v_Class007_g01_c01\.avi",
        ),
    ],
)
def test_a_file_under_a_wrong_name_is_named(request, which, old, new, named):
    tree = request.getfixturevalue(which)
    with tree.renamed(old, new), pytest.raises(DatasetError, match=named):
        ADAPTERS[which](tree.root)
    if not os.listdir((tree.root / new).parent):
        (tree.root / new).parent.rmdir()


def double_line(text):
    lines = text.splitlines(keepends=True)
    return b"".join([*lines, lines[5]])


@pytest.mark.parametrize(
    ("which", "file"),
    [
        ("ucf", "ucfTrainTestlist/testlist02.txt"),
        ("hmdb", "testTrainMulti_7030_splits/action_07_test_split2.txt"),
        ("kinetics", "annotations/val.csv"),
    ],
)
def test_a_double_line_and_a_list_that_is_gone_are_named(request, which, file):
    tree = request.getfixturevalue(which)
    double = tree.root.joinpath(file).read_bytes().splitlines()[5].decode()
    said = {"ucf": double, "hmdb": double[:-3], "kinetics": "-val_000_04_000028_000038"}[which]
    with (
        tree.rewritten(file, double_line),
        pytest.raises(DatasetError, match="listed twice") as e,
    ):
        ADAPTERS[which](tree.root)
    assert said in str(e.value)
    with (
        tree.renamed(file, f"{file}.away"),
        pytest.raises(DatasetError, match=f"{os.path.basename(file)} is not there"),
    ):
        ADAPTERS[which](tree.root, allow_partial=True)


def test_a_copy_that_lacks_one_video_is_refused_with_its_name(ucf):
    lost = "UCF-101/Class007/v_Class007_g01_c01.avi"
    said = r"13,319 of 13,320 videos, 101 of 101.*1 listed videos are missing, as Class007/v_Class"
    with ucf.renamed(lost, f"{lost}.lost"):
        with pytest.raises(DatasetError, match=said + ".*--allow-partial"):
            UCF101(ucf.root)
        corpus = UCF101(ucf.root, allow_partial=True)
    assert corpus.missing == ("Class007/v_Class007_g01_c01.avi",)
    assert "13,319 of 13,320" in corpus.shortfall


def test_a_class_without_a_folder_is_named_and_left_out_of_a_partial_copy(hmdb):
    # what lies in a folder of no class is not left out in silence
    unknown = pytest.raises(DatasetError, match=r"does not name .*gone_07/")
    with hmdb.renamed("action_07", "gone_07"), unknown:
        HMDB51(hmdb.root, allow_partial=True)
    with hmdb.renamed("action_07", ".action_07"):
        with pytest.raises(DatasetError, match="50 of 51 classes; no video of action_07;"):
            HMDB51(hmdb.root)
        corpus = HMDB51(hmdb.root, allow_partial=True)
    assert len(corpus.classes) == 50
    assert {corpus.classes[video.label] for video in corpus.videos} == set(corpus.classes)


def test_kinetics_with_too_few_videos_of_a_class_says_which(kinetics):
    with kinetics.renamed(FOLDER, f"{FOLDER}.d/x"):
        with pytest.raises(DatasetError, match=r"0 of 30 train videos of massaging .* 007"):
            KineticsN50(kinetics.root)
        corpus = KineticsN50(kinetics.root, allow_partial=True)
    os.rmdir(kinetics.root / f"{FOLDER}.d")
    assert len(corpus.lists[1]["train"]) == 600 - 30


@pytest.fixture
def small(tmp_path):
    """Two classes of UCF-101's form."""
    tree = Tree(tmp_path)
    names = [f"{c}/v_{c}_g0{k}_c01.avi" for c in ("Fall", "Rise") for k in range(4)]
    tree.videos([f"videos/{name}" for name in names])
    tree.write("ucfTrainTestlist/classInd.txt", ["1 Fall", "2 Rise"])
    for split in (1, 2, 3):
        train = [f"{name} {1 + (name[0] == 'R')}" for name in names if "g00" not in name]
        tree.write(f"ucfTrainTestlist/trainlist0{split}.txt", train)
        test = [name for name in names if "g00" in name]
        tree.write(f"ucfTrainTestlist/testlist0{split}.txt", test)
    return tree


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("trainlist01", lambda t: t + b"Rise/../../etc/passwd 2\n", "'Rise/../../etc/passwd' is"),
        ("trainlist01", lambda t: t + b"/etc/passwd 2\n", "'/etc/passwd' is not"),
        ("trainlist01", lambda t: t + b"Rise/.. 2\n", "'Rise/..' is not"),
        ("testlist03", lambda t: t + b"Jump/v_Jump_g01_c01.avi\n", "class of Jump/v_Jump_g01_c01"),
        ("testlist03", lambda t: t + b"Fall/v_Fall_g01_c01.avi\n", "in train and in test"),
        ("trainlist01", lambda t: t + b"Fall/v_Rise_g01_c01.avi 1\n", "one video in two classes"),
        (
            "testlist01",
            lambda t: t + b"Fall/v_Fall_g01_c02.avi\n",
            "split 1: Fall/g01 would be in train and in test",
        ),
        ("trainlist02", lambda t: t.replace(b"c01.avi 2", b"c01.avi 3"), "label 3, and .* says 2"),
        ("trainlist02", lambda t: b"\xff\xfe" + t, "cannot be read as UTF-8"),
        ("classInd", lambda t: t + b"2 Jump\n", "'2 Jump' is not a new"),
        ("classInd", lambda t: t + b"3 Fall\n", "'3 Fall' is not a new"),
        ("classInd", lambda t: t + b"Jump\n", "'Jump' is not"),
        ("classInd", lambda t: t + b"3 ../Jump\n", "'3 ../Jump' is not"),
        ("testlist01", lambda t: b"", "split 1, does not name .*g00_c01.avi"),
    ],
)
def test_a_list_that_cannot_be_right_is_refused_even_for_a_partial_copy(small, file, change, said):
    file = f"ucfTrainTestlist/{file}.txt"
    with small.rewritten(file, change), pytest.raises(DatasetError, match=said) as refusal:
        UCF101(small.root, allow_partial=True)
    assert "ucfTrainTestlist" in str(refusal.value)


def test_a_huge_list_is_not_read(small, monkeypatch):
    monkeypatch.setattr(lists, "MAX_BYTES", 100)
    with pytest.raises(DatasetError, match=r"trainlist01\.txt is larger than a list can be"):
        UCF101(small.root, allow_partial=True)


def test_a_folder_that_is_not_the_data_set_says_what_was_expected(tmp_path):
    with pytest.raises(DatasetError, match="UCF-101 or videos"):
        UCF101(tmp_path)
    with pytest.raises(DatasetError, match="testTrainMulti_7030_splits"):
        HMDB51(tmp_path)
    with pytest.raises(DatasetError, match="train or train_256"):
        KineticsN50(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        VideoFolder(tmp_path / "absent")
    with pytest.raises(DatasetError, match=r"ucf101, hmdb51, .*, weizmann, folder, folds"):
        corpora.open_corpus("ucf", tmp_path)


@pytest.mark.parametrize("name", ["a\nb.avi", "a\udcff.avi"])
def test_a_file_name_that_no_list_could_hold_is_refused(small, name):
    (small.root / "videos" / "Fall" / name).touch()
    with pytest.raises(DatasetError, match="rename"):
        VideoFolder(small.root / "videos")


def test_a_folder_takes_the_lists_beside_it(small):
    (small.root / "videos" / "Fall" / "._v_Fall_g01_c01.avi").touch()  # left by macOS
    (small.root / "videos" / "Fall" / "readme.txt").touch()
    corpus = VideoFolder(small.root / "videos")
    assert len(corpus.videos) == 8
    assert corpus.lists[3]["test"] == ("Fall/v_Fall_g00_c01.avi", "Rise/v_Rise_g00_c01.avi")
    (small.root / "ucfTrainTestlist" / "testlist02.txt").unlink()
    with pytest.raises(DatasetError, match=r"testlist02\.txt is not there"):
        VideoFolder(small.root / "videos")


@pytest.fixture
def two(tmp_path):
    """Two classes of two videos each, and nothing else."""
    tree = Tree(tmp_path / "set")
    tree.videos([f"{c}/{k}.avi" for c in ("fall", "rise") for k in "ab"])
    (tree.root / "one").unlink()
    return tree


def test_where_all_is_read_nothing_is_passed_over(two):
    corpus = VideoFolder(two.root)
    assert corpus.passed_over == ""
    assert corpus.summary() == ["VideoFolder: 4 videos of 2 classes (fall, rise)."]


@pytest.mark.parametrize(
    "name", ["c.AVI", "c.MP4", "c.mov", "c.MOV", "c.webm", "c.WebM", "c.mpg", "c.wmv", "c d.e.mkv"]
)
def test_videos_of_many_endings_are_read_however_they_are_spelled(two, name):
    (two.root / "rise" / name).touch()
    corpus = VideoFolder(two.root)
    assert f"rise/{name}" in [video.name for video in corpus.videos]
    assert corpus.passed_over == ""


def touch(path):
    path.touch()


def link(target):
    return lambda path: path.symlink_to(target)


def holding(name):
    def make(path):
        (path / name).parent.mkdir(parents=True)
        (path / name).touch()

    return make


@pytest.mark.parametrize(
    ("path", "make", "kind"),
    [
        ("rise/readme.TXT", touch, ".txt files"),
        ("rise/Thumbs.db", touch, ".db files"),
        ("rise/LICENSE", touch, "files without an ending"),
        ("notes.txt", touch, ".txt files"),
        ("loose.avi", touch, "videos outside of class folders"),
        ("rise/c.avi", link("absent.avi"), "links that lead nowhere"),
        ("rise/c.avi", link("c.avi"), "links that lead nowhere"),
        ("jump", link("absent"), "links that lead nowhere"),
        ("rise/._a.avi", touch, "hidden files and folders"),
        (".git", holding("config"), "hidden files and folders"),
        ("__MACOSX", holding("rise/._a.avi"), "__MACOSX folders"),
        ("rise/c.avi", os.mkfifo, "devices and pipes"),
        ("empty", os.mkdir, "folders without videos"),
        ("rise/rise", holding("c.avi"), "other folders with videos"),
        ("rise/a", holding("img_00001.jpg"), "folders of extracted frames"),
        ("rise/other", holding("deep/c.txt"), "other folders"),
    ],
)
def test_what_is_not_read_is_said_by_kind_and_count(two, path, make, kind):
    before = VideoFolder(two.root)
    make(two.root / path)
    corpus = VideoFolder(two.root)
    assert corpus.videos == before.videos
    assert corpus.passed_over == f"Passed over in {two.root}: {kind} (1, as {path})."
    assert corpus.summary()[1:] == [corpus.passed_over]


def test_kinds_are_counted_and_the_rarest_of_many_are_added_up(two):
    for k in range(12):
        for n in range(k + 1):
            (two.root / "rise" / f"{n}.kind{k}").touch()
    said = VideoFolder(two.root).passed_over
    assert said.startswith(f"Passed over in {two.root}: .kind11 files (12, as rise/0.kind11), ")
    assert said.endswith(", others (10).")  # 4 + 3 + 2 + 1


def test_a_link_to_a_folder_is_a_folder_even_where_it_leads_back(two):
    (two.root / "jump").symlink_to(two.root / "rise")
    (two.root / "fall" / "up").symlink_to(two.root)
    corpus = VideoFolder(two.root)
    assert corpus.classes == ("fall", "jump", "rise")
    assert "other folders with videos (1, as fall/up)" in corpus.passed_over


def test_a_folder_without_any_video_is_refused_with_what_it_holds(two):
    said = r"0 folders with videos.*expected <root>/<class>/<video>.*\(2, as fall/a.avi.part\)"
    for file in two.root.glob("*/*.avi"):
        file.rename(f"{file}.part")
    (two.root / "rise" / "a.avi.part").unlink()
    (two.root / "rise" / "b.avi.part").unlink()
    with pytest.raises(DatasetError, match=said):
        VideoFolder(two.root)


@pytest.mark.parametrize("allow_partial", [False, True])
@pytest.mark.parametrize("adapter", [UCF101, HMDB51, UTInteraction])
def test_no_video_at_all_is_an_error_whatever_is_allowed(small, adapter, allow_partial):
    lists_of_hmdb = small.root / "testTrainMulti_7030_splits"
    lists_of_hmdb.mkdir()
    for split in (1, 2, 3):
        (lists_of_hmdb / f"Fall_test_split{split}.txt").write_text("a.avi 1\n")
    for file in small.root.glob("videos/*/*.avi"):
        file.rename(f"{file}.part")
    with pytest.raises(DatasetError, match=r"holds no video of .*Passed over in .* files"):
        adapter(small.root, allow_partial=allow_partial)


def test_a_folder_that_cannot_be_read_is_an_error(two, monkeypatch):
    scandir = os.scandir

    def forbidden(folder):
        if str(folder).endswith("rise"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(DatasetError, match=r"rise cannot be read \(Permission denied\)"):
        VideoFolder(two.root)


def hmdb_of_two(root, videos):
    """HMDB-51's layout with two classes of one video each, in folders as ``videos`` has them."""
    tree = Tree(root)
    (root / "one").unlink()
    for label in ("hug", "kick"):
        file = f"film_{label}_f_nm_np1_ba_med_0.avi"
        path = root / videos.format(label=label) / file
        path.parent.mkdir(parents=True)
        path.touch()
        for split in (1, 2, 3):
            tree.write(f"testTrainMulti_7030_splits/{label}_test_split{split}.txt", [f"{file} 1"])
    return root


def test_extracted_frames_beside_hmdb51_are_not_taken_for_its_videos(tmp_path):
    root = hmdb_of_two(tmp_path / "hmdb", "videos/{label}")
    for label in ("hug", "kick"):
        holding("film/img_00001.jpg")(root / "rawframes" / label)
    (root / "hug.rar").touch()
    holding("._hug_test_split1.txt")(root / "__MACOSX")
    (root / "testTrainMulti_7030_splits" / "._hug_test_split1.txt").touch()
    corpus = HMDB51(root, allow_partial=True)
    assert [video.source.parent.parent.name for video in corpus.videos] == ["videos", "videos"]
    assert corpus.classes == ("hug", "kick")
    for kind in (
        "folders of extracted frames (1, as rawframes)",
        ".rar files (1, as hug.rar)",
        "__MACOSX folders (1, as __MACOSX)",
    ):
        assert kind in corpus.passed_over
    with pytest.raises(DatasetError, match=r"--allow-partial.*Passed over.*rawframes"):
        HMDB51(root)


def test_classes_inside_class_folders_are_refused_and_named(tmp_path):
    root = hmdb_of_two(tmp_path / "hmdb", "{label}/{label}")
    with pytest.raises(DatasetError, match=r"no video of HMDB51.*with videos \(2, as hug/hug\)"):
        HMDB51(root, allow_partial=True)


def test_kinetics_videos_that_no_row_names_are_refused_or_counted(kinetics):
    extra = kinetics.root / "train" / "extra_000001_000011.mp4"
    extra.touch()
    try:
        with pytest.raises(DatasetError, match=r"no train row names .*extra.*--allow-partial"):
            KineticsN50(kinetics.root)
        said = KineticsN50(kinetics.root, allow_partial=True).passed_over
    finally:
        extra.unlink()
    assert "train videos that no row names (1, as train/extra_000001_000011.mp4)" in said
    assert "train videos that were not chosen (20, " in said
    assert "test videos that were not chosen (20, " in said


def test_a_video_that_no_list_names_is_said(small):
    (small.root / "videos" / "Fall" / "new.avi").touch()
    (small.root / "videos" / "Rise" / "v_Rise_g00_c01.avi").unlink()
    corpus = VideoFolder(small.root / "videos")
    assert "videos that no list names (1, as Fall/new.avi)" in corpus.passed_over
    assert "1 videos that" in corpus.shortfall
    assert "missing, as Rise/v_Rise_g00_c01.avi" in corpus.shortfall


def test_names_as_ut_interactions_give_its_leave_one_sequence_out_lists(tmp_path):
    names = [
        f"{c}/{9 * s + k}_{s}_{k}.avi" for k, c in enumerate(("hug", "kick")) for s in (1, 2, 10)
    ]
    Tree(tmp_path).videos([f"ut/{name}" for name in names])
    corpus = VideoFolder(tmp_path / "ut")
    assert corpus.lists[3]["test"] == ("hug/90_10_0.avi", "kick/91_10_1.avi")
    for parts in corpus.lists.values():
        sides = [{lists.scene(name) for name in parts[side]} for side in lists.SIDES]
        assert sides[0].isdisjoint(sides[1])
    # A label that says another class than the folder: no such data set, so no lists.
    (tmp_path / "ut" / "hug" / "9_1_0.avi").rename(tmp_path / "ut" / "hug" / "9_1_1.avi")
    assert VideoFolder(tmp_path / "ut").lists == {}


def interactions():
    """UT-Interaction's 60 file names with their classes; sequence 8 has the punch that 6 lacks."""
    classes = ("handshake", "hug", "kick", "point", "punch", "push")
    sequences = [(s, k) for s in range(1, 11) for k in range(6)]
    sequences = sorted((8, 4) if pair == (6, 4) else pair for pair in sequences)
    return [(classes[k], f"{n}_{s}_{k}.avi") for n, (s, k) in enumerate(sequences)]


@pytest.mark.parametrize("place", ["{1}", "segmented_set1/{1}", "{0}/{1}"])
def test_ut_interaction_is_read_as_published_or_from_class_folders(tmp_path, place):
    Tree(tmp_path).videos([place.format(*one) for one in interactions()])
    corpus = corpora.open_corpus("ut-interaction", tmp_path)
    assert corpus.classes == ("handshake", "hug", "kick", "point", "punch", "push")
    assert [video.name for video in corpus.videos] == sorted(map("/".join, interactions()))
    assert all(corpus.classes[video.label] in video.name for video in corpus.videos)
    assert (corpus.shortfall, corpus.missing, corpus.letterbox) == ("", (), True)
    assert VideoFolder.letterbox is False
    for number, parts in corpus.lists.items():
        assert {lists.scene(name) for name in parts["test"]} == {f"sequence {number}"}
        assert sorted(parts["train"] + parts["test"]) == [video.name for video in corpus.videos]
    tests = [len(parts["test"]) for parts in corpus.lists.values()]
    assert tests == [6, 6, 6, 6, 6, 5, 6, 7, 6, 6]


def test_a_partial_ut_interaction_keeps_the_numbers_of_its_sequences(tmp_path):
    there = [one for one in interactions() if "_3_" not in one[1]]
    Tree(tmp_path).videos(["/".join(one) for one in there])
    with pytest.raises(DatasetError, match=r"54 of 60 videos.*split 3 54 of 54 \+ 0 of 6"):
        UTInteraction(tmp_path)
    corpus = UTInteraction(tmp_path, allow_partial=True)
    assert corpus.lists[3]["test"] == ()
    assert {lists.scene(name) for name in corpus.lists[4]["test"]} == {"sequence 4"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hug/1_1_1.avi", "hug/1_11_1.avi", "1_11_1.avi is not .*sequence 1 to 10.*Set 2"),
        ("hug/1_1_1.avi", "hug/1_1_6.avi", "1_1_6.avi is not .*label 0 to 5"),
        ("hug/1_1_1.avi", "hug/best.avi", "best.avi is not"),
        ("hug/1_1_1.avi", "kick/1_1_1.avi", "kick/1_1_1.avi is 'hug'"),
    ],
)
def test_a_file_that_is_not_ut_interactions_is_named(tmp_path, old, new, said):
    Tree(tmp_path).videos(["/".join(one) for one in interactions()])
    (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(DatasetError, match=said):
        UTInteraction(tmp_path, allow_partial=True)


WEIZMANN = [f"{label}/{person}_{label}.avi" for label in lists.ACTIONS for person in lists.PERSONS]


@pytest.mark.parametrize("place", ["{0}/{1}", "videos/{0}/{1}", "videos/{1}"])
def test_weizmann_leaves_one_person_out(tmp_path, place):
    Tree(tmp_path).videos([place.format(*name.split("/")) for name in WEIZMANN])
    (tmp_path / "one").unlink()
    corpus = corpora.open_corpus("weizmann", tmp_path)
    assert corpus.classes == lists.ACTIONS
    assert [video.name for video in corpus.videos] == sorted(WEIZMANN)
    assert (corpus.shortfall, corpus.passed_over, corpus.letterbox) == ("", "", False)
    for number, person in enumerate(lists.PERSONS, 1):
        test = tuple(sorted(name for name in WEIZMANN if f"/{person}_" in name))
        rest = tuple(sorted(set(WEIZMANN) - set(test)))
        assert (len(test), len(rest)) == (10, 80)
        assert corpus.lists[number] == {"train": rest, "test": test}


def test_of_two_videos_of_one_persons_action_the_second_is_passed_over(tmp_path):
    lena = "run/lena_run.avi"
    Tree(tmp_path).videos([name for name in WEIZMANN if name != lena])
    Tree(tmp_path / "more").videos(["lena_run1.avi", "lena_run2.avi"])
    for number in (1, 2):
        (tmp_path / "more" / f"lena_run{number}.avi").rename(tmp_path / f"run/lena_run{number}.avi")
    corpus = Weizmann(tmp_path)
    assert "run/lena_run1.avi" in corpus.lists[6]["test"]
    assert "second videos of one person's action (1, as run/lena_run2.avi)" in corpus.passed_over


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("run/ido_run.avi", "run/run.avi", "run/run.avi is not '<person>_<class>', one of daria,"),
        ("run/ido_run.avi", "run/bob_run.avi", "bob_run.avi is not"),
        ("run/ido_run.avi", "run/ido_fly.avi", "ido_fly.avi is not .*, wave2; rename or remove"),
        ("run/ido_run.avi", "walk/ido_run.avi", "ido_run.avi is 'run'; it lies in another class's"),
    ],
)
def test_a_file_that_is_not_weizmanns_is_named(tmp_path, old, new, said):
    Tree(tmp_path).videos(WEIZMANN)
    (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(DatasetError, match=said):
        Weizmann(tmp_path, allow_partial=True)


def test_a_class_that_a_split_of_a_partial_copy_does_not_test_is_named(tmp_path):
    Tree(tmp_path).videos([name for name in WEIZMANN if name != "jack/eli_jack.avi"])
    with pytest.raises(
        DatasetError, match=r"89 of 90 videos.*split 3 80 of 80 \+ 9 of 10 with no test of jack"
    ):
        Weizmann(tmp_path)


def test_folds_hold_whole_groups_and_test_every_video_once(tmp_path):
    groups = [f"g{k:02d}_c0{copy}" for k in range(1, 26) for copy in (1, 2)]
    names = [f"{c}/v_{c}_{group}.avi" for c in ("Punch", "YoYo") for group in groups]
    Tree(tmp_path / "set").videos(names)
    corpus = corpora.open_corpus("folds", tmp_path / "set")
    assert (corpus.name, corpus.shortfall, list(corpus.lists)) == (
        "VideoFolds",
        "",
        [1, 2, 3, 4, 5],
    )
    tests = [name for parts in corpus.lists.values() for name in parts["test"]]
    assert sorted(tests) == sorted(names)
    six_to_ten = {f"{c}/g{k:02d}" for c in ("Punch", "YoYo") for k in range(6, 11)}
    assert {lists.scene(name) for name in corpus.lists[2]["test"]} == six_to_ten
    for parts in corpus.lists.values():
        lists.check_apart(parts, "a fold")  # finds no group on both sides


def test_folds_keep_a_person_on_one_side_in_every_class(tmp_path):
    Tree(tmp_path / "set").videos([n for n in WEIZMANN if n != "jack/daria_jack.avi"])
    for parts in VideoFolds(tmp_path / "set").lists.values():
        lists.check_apart(parts, "a fold")


def test_a_class_with_too_few_videos_for_five_folds_is_named(tmp_path):
    names = [f"rise/{k}.avi" for k in range(5)] + ["fall/a.avi", "fall/b.avi", "fall/c.avi"]
    Tree(tmp_path / "set").videos(names)
    said = VideoFolds(tmp_path / "set").shortfall
    assert said.count("tests no fall: too few groups") == 2
    assert "rise" not in said


def test_persons_are_not_dealt_by_chance(tmp_path):
    with pytest.raises(DatasetError, match="by chance: person daria would be in train and in test"):
        lists.split_by_scene(sorted(WEIZMANN), None, seed=0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Punch/v_Punch_g01_c01.avi", "Punch/v_Punch_g01_c02.avi", True),
        ("Punch/v_Punch_g01_c01.avi", "PushUps/v_PushUps_g01_c02.avi", False),
        ("run/A_B_run_f_cm_np1_ba_med_0.avi", "run/A_B_run_l_nm_np2_fr_goo_11.avi", True),
        ("run/A_B_run_f_cm_np1_ba_med_0.avi", "run/A_C_run_f_cm_np1_ba_med_0.avi", False),
        ("hug/9_1_0.avi", "kick/10_1_1.avi", True),
        ("hug/a.avi", "kick/a.avi", False),
        ("run/lena_run1.avi", "wave1/lena_wave1.avi", True),
        ("run/lena_run.avi", "run/lyova_run.avi", False),
    ],
)
def test_what_was_cut_from_one_take_is_one_scene(one, other, same):
    assert (lists.scene(one) == lists.scene(other)) is same


@pytest.mark.data
def test_the_partial_copy_at_hand_is_counted_and_needs_leave(shared_data):
    with pytest.raises(DatasetError, match="200 of 13,320 videos, 4 of 101 classes"):
        UCF101(shared_data / "ucf101-4class")
    corpus = UCF101(shared_data / "ucf101-4class", allow_partial=True)
    assert corpus.classes == ("BabyCrawling", "Punch", "PushUps", "YoYo")
    assert (len(corpus.videos), len(corpus.missing)) == (200, 322)
    assert corpus.passed_over == ""


@pytest.mark.data
def test_the_real_weizmann_is_whole(shared_data):
    corpus = Weizmann(shared_data / "weizmann")
    assert Counter(video.label for video in corpus.videos) == dict.fromkeys(range(10), 9)
    assert corpus.passed_over == ""


@pytest.mark.data
def test_the_real_ut_interaction_is_whole(shared_data):
    corpus = UTInteraction(shared_data / "ut-interaction-set1")
    assert Counter(video.label for video in corpus.videos) == dict.fromkeys(range(6), 10)
    assert corpus.lists == VideoFolder(shared_data / "ut-interaction-set1").lists
    punches = [sum("punch/" in n for n in corpus.lists[k]["test"]) for k in range(1, 11)]
    assert punches == [1, 1, 1, 1, 1, 0, 1, 2, 1, 1]
