import re
import tomllib

import pytest
import yaml

from dmclib.doctor import TORCHVISION_OF
from dmclib.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
# name, version, marker (or nothing), hashes: "name==1.0 ; marker \" and indented lines after it
PIN = r"^([a-z0-9.-]+)==(\S+)(?: ; ([^\\\n]+?))? ?((?:\\\n +\S+ ?)*)$"
PINS = re.findall(PIN, LOCK, re.MULTILINE)


def name_of(requirement):
    return re.match(r"[A-Za-z0-9.-]+", requirement)[0].lower()


def direct_dependencies():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {name_of(requirement) for each in lists for requirement in each} - {"dmclib"}


def environment():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    (from_pip,) = [item["pip"] for item in content["dependencies"] if isinstance(item, dict)]
    return content, dict(line.split("==") for line in from_pip if "==" in line)


def test_every_line_of_the_lock_belongs_to_a_pin_with_hashes():
    starts = [line for line in LOCK.splitlines() if not line.startswith(" ")]
    assert len(PINS) == len(starts) > 100
    for name, _, _, hashes in PINS:
        assert "--hash=sha256:" in hashes, name
    assert set(re.findall(r"^ +(\S{0,14})", LOCK, re.MULTILINE)) == {"--hash=sha256:"}


def test_the_lock_names_no_address():
    for word in ("://", "--index", "--extra-index", "--find-links", "@"):
        assert word not in LOCK


def test_the_lock_holds_every_direct_dependency():
    assert direct_dependencies() <= {name for name, *_ in PINS}


def test_the_conda_route_has_the_locks_versions_of_every_direct_dependency():
    content, pinned = environment()
    assert "python=3.11" in content["dependencies"]
    assert set(pinned) == direct_dependencies()
    for name, version in pinned.items():
        # numpy is locked twice, for Python 3.11 and for later ones
        markers = {v: marker for n, v, marker, _ in PINS if n == name}
        assert version in markers, name
        assert markers[version] in ("", "python_full_version < '3.12'"), name


def test_torch_and_torchvision_are_locked_as_a_pair():
    minor = {n: ".".join(v.split(".")[:2]) for n, v, *_ in PINS if n in ("torch", "torchvision")}
    assert TORCHVISION_OF[minor["torch"]] == minor["torchvision"]


WORKFLOWS = [f".github/workflows/{name}.yml" for name in ("test", "book")]


@pytest.mark.parametrize("file", ["Makefile", ".ci/run", *WORKFLOWS])
def test_the_commands_name_no_machine(file):
    text = (ROOT / file).read_text()
    for word in ("/home/", "/root/", "/work/", "http://", "https://"):
        assert word not in text


def test_the_test_command_of_ci_is_the_readers():
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make test"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_workflows_run_the_readers_commands():
    jobs = [yaml.safe_load((ROOT / file).read_text())["jobs"] for file in WORKFLOWS]
    steps = [step for each in jobs for job in each.values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == ["make test", "make book"]
    used = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used), used


def test_every_make_target_says_what_it_does():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()
    assert set(re.findall(r"^([a-z]+):.*## \S", makefile, re.MULTILINE)) == set(phony)
    assert makefile.index(".DEFAULT_GOAL := help") < makefile.index("help:")
