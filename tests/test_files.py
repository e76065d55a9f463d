import pytest

from dmclib import files


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with files.whole(target) as partial:
        partial.write_text("whole")
        assert not target.exists()
        assert partial.suffix == ".txt"
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")

    def stopped_half_way():
        with files.whole(target) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ("# a comment\nx = 1\ndef f():\n    return x\n", True),
        ('"""Words."""\nx = 1\ndef f():\n    """More words."""\n    return x\n', True),
        ("x = 2\ndef f():\n    return x\n", False),
    ],
    ids=["comment", "docstring", "value"],
)
def test_the_digest_follows_the_code_and_not_its_words(tmp_path, monkeypatch, code, same):
    def digest(text, name):
        (tmp_path / f"{name}.py").write_text(text)
        return files.code_digest(name)

    monkeypatch.setattr(files, "PACKAGE", tmp_path)
    # A name of its own for each test, since digests are remembered by name.
    plain, other = f"plain{len(code)}", f"other{len(code)}"
    expected = digest("x = 1\ndef f():\n    return x\n", plain)
    assert (digest(code, other) == expected) is same
