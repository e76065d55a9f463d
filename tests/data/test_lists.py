"""Lists as people's editors and spreadsheets save them."""

import pytest

from dmclib.data import lists
from dmclib.errors import DatasetError

MARK = b"\xef\xbb\xbf"  # UTF-8's byte-order mark
PLAIN = {
    "classInd.txt": ["1 Fall", "2 Rise"],
    "trainlist01.txt": ["Fall/a.avi 1", "Rise/a.avi 2"],
    "testlist01.txt": ["Fall/b.avi", "Rise/b.avi"],
}
ROWS = ["label,youtube_id,time_start,time_end,split", "riding a bike,{split}_id,0,10,{split}"]

SAVED = {
    "plain": lambda rows: "".join(f"{row}\n" for row in rows).encode(),
    "Windows line ends": lambda rows: "".join(f"{row}\r\n" for row in rows).encode(),
    "old Macintosh line ends": lambda rows: "\r".join(rows).encode(),
    "byte-order mark": lambda rows: MARK + "\r\n".join(rows).encode(),
    "two files with marks in one": lambda rows: b"\n".join(MARK + row.encode() for row in rows),
    "blank lines": lambda rows: "\n \n".join(["", *rows, "", ""]).encode(),
    "spaces around": lambda rows: "".join(f"  {row} \t\n" for row in rows).encode(),
}
saved = pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)


@pytest.fixture
def folder(tmp_path):
    for name, rows in PLAIN.items():
        (tmp_path / name).write_bytes(SAVED["plain"](rows))
    return tmp_path


@saved
@pytest.mark.parametrize("indexed", [True, False])
def test_lists_are_read_however_they_were_saved(folder, save, indexed):
    for name, rows in PLAIN.items():
        (folder / name).write_bytes(save(rows))
    classes = lists.read_classes(folder)
    assert classes == {"Fall": 1, "Rise": 2}
    listed = lists.read(folder, [1], classes if indexed else None)
    expected = {"train": {"Fall/a.avi", "Rise/a.avi"}, "test": {"Fall/b.avi", "Rise/b.avi"}}
    assert listed == {1: expected}
    assert lists.all_names(listed) == expected["train"] | expected["test"]


@saved
def test_rows_are_read_however_they_were_saved(tmp_path, save):
    for split in ("train", "val"):
        rows = [row.format(split=split) for row in ROWS]
        (tmp_path / f"{split}.csv").write_bytes(save(rows))
    rows = lists.read_kinetics(tmp_path, {"train": ["train.csv"], "test": ["val.csv"]})
    name = "riding a bike/{}_id_000000_000010.mp4"
    assert rows == {"train": {name.format("train")}, "test": {name.format("val")}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("# my split", "'# my split' is not '<class>/<file>'; remove it, comments too"),
        ("# Fall/c.avi 1", "the class of # Fall/c.avi is not in classInd"),
        ("Fall\\c.avi 1", r"'Fall\\\\c.avi' is not '<class>/<file>'"),
    ],
)
def test_a_line_that_is_no_entry_is_refused_with_its_words(folder, line, said):
    with (folder / "trainlist01.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DatasetError, match=said):
        lists.read(folder, [1], lists.read_classes(folder))


def test_a_list_in_another_encoding_is_refused(folder):
    (folder / "testlist01.txt").write_text("Fall/b.avi\n", encoding="utf-16")
    with pytest.raises(DatasetError, match=r"testlist01\.txt cannot be read as UTF-8 text"):
        lists.read(folder, [1], None)


def test_clusters_are_numbered_as_they_appear_and_one_alone_gives_no_interval():
    names = ["run/lena_run.avi", "run/ido_run.avi", "walk/lena_walk.avi", "walk/a.avi"]
    assert lists.clusters(names).tolist() == [0, 1, 0, 2]
    with pytest.raises(DatasetError, match=r"every test clip is of person lena.*--splits 1,2,3"):
        lists.clusters(["run/lena_run.avi", "walk/lena_walk.avi"])
