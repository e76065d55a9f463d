import json
from dataclasses import replace

import pytest

from dmclib.data import manifest
from dmclib.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    """A prepared folder of two videos, one of them with an odd name."""
    entries = {}
    for label, name in enumerate(("Punch/b.avi", "Clap/it's \u00e9, -x.avi")):
        clip, flow = f"clips/{name}.mp4", f"flow/{name}.avi"
        for path in (clip, flow):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(path.encode())
        entries[name] = manifest.Entry(
            name=name,
            label=label,
            clip=clip,
            flow=flow,
            width=340,
            height=256,
            frames=2,
            source_bytes=1,
            source_sha256="0",
            clip_bytes=len(clip.encode()),
            clip_sha256=manifest.sha256(tmp_path / clip),
            flow_bytes=len(flow.encode()),
            flow_sha256=manifest.sha256(tmp_path / flow),
        )
    names = tuple(sorted(entries))
    made = manifest.Manifest(
        dataset="VideoFolder",
        classes=("Punch", "Clap"),
        missing=3,
        quarantined=("Clap/empty.avi",),
        codec={"gop": 12},
        flow={"method": "dis"},
        lists={2: {"train": names[:1], "test": names[1:]}, 1: {"train": names, "test": ()}},
        entries=entries,
    )
    manifest.write(tmp_path, made)
    return tmp_path


def test_what_is_written_is_read(folder):
    found = manifest.read(folder)
    assert found.entries["Punch/b.avi"].clip == "clips/Punch/b.avi.mp4"
    assert list(found.entries) == ["Clap/it's \u00e9, -x.avi", "Punch/b.avi"]  # sorted
    assert found.lists[2]["test"] == ("Punch/b.avi",)
    assert found.missing == 3
    before = (folder / manifest.FILE).read_bytes()
    manifest.write(folder, found)
    assert (folder / manifest.FILE).read_bytes() == before


def test_the_order_of_what_is_in_it_does_not_show(folder):
    found, before = manifest.read(folder), (folder / manifest.FILE).read_bytes()
    turned = dict(reversed(found.entries.items()))
    lists = {
        number: {side: tuple(reversed(names)) for side, names in reversed(sides.items())}
        for number, sides in reversed(found.lists.items())
    }
    manifest.write(folder, replace(found, entries=turned, lists=lists))
    assert (folder / manifest.FILE).read_bytes() == before


def test_a_folder_without_one_is_not_prepared(tmp_path):
    with pytest.raises(DatasetError, match="not a prepared folder, or its preparation has not"):
        manifest.read(tmp_path)


def test_another_format_says_so(folder):
    (folder / manifest.FILE).write_text('{"format": 99}')
    with pytest.raises(
        DatasetError, match=r"is of format 99, .* reads 2: run `dmc prepare DATASET --root"
    ):
        manifest.read(folder)


def _spoil(key, value):
    def spoil(content):
        content["entries"][0][key] = value

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("classes"),
        lambda content: content.update(entries=None),
        lambda content: content["entries"].append(content["entries"][0]),
        lambda content: content["lists"]["1"]["train"].append("Punch/absent.avi"),
        lambda content: content.update(lists={"one": {}}),
        _spoil("clip", "/etc/passwd"),
        _spoil("clip", "clips/../../passwd"),
        _spoil("flow", "../flow"),
        _spoil("label", 2),
        _spoil("label", "0"),
        _spoil("frames", 1),
        _spoil("name", ["a"]),
        _spoil("surplus", 0),
    ],
)
def test_a_damaged_one_is_refused(folder, spoil):
    path = folder / manifest.FILE
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"manifest\.json is damaged"):
        manifest.read(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 2}', "[" * 100_000, "\0\xff"])
def test_what_is_not_a_manifest_is_refused(folder, text):
    (folder / manifest.FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=r"damaged|format"):
        manifest.read(folder)


def test_a_whole_folder_verifies(folder):
    assert manifest.verify(folder) == []


def test_every_difference_is_named(folder):
    clips = folder / "clips"
    changed = clips / "Punch" / "b.avi.mp4"
    changed.write_bytes(changed.read_bytes()[:-1] + b"5")  # as long as before
    (folder / "flow" / "Punch" / "b.avi.avi").write_bytes(b"short")
    (clips / "Clap" / "it's \u00e9, -x.avi.mp4").unlink()
    (clips / "Clap" / "more.mp4").touch()
    linked = folder / "flow" / "elsewhere"
    linked.symlink_to(folder / "clips")
    assert manifest.verify(folder) == [
        '"clips/Clap/it\'s \u00e9, -x.avi.mp4" is missing.',
        "'clips/Punch/b.avi.mp4' has changed: other content.",
        "'flow/Punch/b.avi.avi' has 5 bytes instead of 20.",
        "'clips/Clap/more.mp4' is extra: the manifest does not name it.",
        "'flow/elsewhere' is extra: the manifest does not name it.",
    ]


def test_a_link_in_the_place_of_a_file_is_a_missing_file(folder):
    clip = folder / "clips" / "Punch" / "b.avi.mp4"
    clip.rename(folder / "moved")
    clip.symlink_to(folder / "moved")
    assert manifest.verify(folder) == ["'clips/Punch/b.avi.mp4' is missing."]
