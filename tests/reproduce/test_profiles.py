import re

import pytest

from dmclib import paths
from dmclib.data import manifest
from dmclib.errors import DatasetError, DMCError, ProfileError
from dmclib.reproduce.profiles import numbers, plan
from tests.notebook_maker import use_folder, write

TRAINING = """
profile: str = "laptop"  # names the results
epochs: int = 1  # passes over the clips
"""
PREPARED = """
data_folder: str = ""  # real videos
prepared_folder: str = ""  # prepared ones
corpus: str = "folder"  # their kind
split_number: int = 1  # of its lists
"""
ABLATIONS = f"""{TRAINING}{PREPARED}
lr: float = 0.1  # learning rate
seeds: list = [0]  # one run each
toy: bool = True  # small networks
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """Two notebooks that share ``epochs``; only the second one has a learning rate and seeds."""
    use_folder(monkeypatch, tmp_path)
    write(paths.NOTEBOOKS, "04_training", TRAINING)
    write(paths.NOTEBOOKS, "06_ablations", ABLATIONS)
    return tmp_path


def write_profile(text, name="night"):
    (paths.PROFILES / f"{name}.yaml").write_text(f"profile: {name}\n{text}")
    return name


def parameters(*arguments, **keywords):
    return {step.name: step.parameters for step in plan(*arguments, **keywords)}


def test_what_a_profile_does_not_say_keeps_the_notebooks_defaults(suite):
    assert parameters("smoke") == {
        "04_training": {"profile": "smoke"},
        "06_ablations": {"profile": "smoke"},
    }


def test_the_more_particular_word_wins_and_the_command_line_over_the_file(suite):
    write_profile("epochs: 5\n")
    got = parameters("night")
    assert (got["04_training"]["epochs"], got["06_ablations"]["epochs"]) == (5, 5)
    got = parameters("night", settings=["epochs=2"])
    assert (got["04_training"]["epochs"], got["06_ablations"]["epochs"]) == (2, 2)
    got = parameters("night", settings=["06_ablations.epochs=3"])
    assert (got["04_training"]["epochs"], got["06_ablations"]["epochs"]) == (5, 3)


def test_a_float_may_be_written_in_any_way_yaml_knows_or_does_not(suite):
    # YAML 1.1 reads 1e-3 as a word and 1 as a whole number
    for text, value in (("1e-3", 0.001), ("1", 1.0), ("0.5", 0.5)):
        got = parameters("smoke", settings=[f"lr={text}"])["06_ablations"]["lr"]
        assert got == value
        assert type(got) is float


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=2", "'epoch' is no parameter of any notebook.*did you mean epochs"),
        ("04.lr=0.2", "'lr' is no parameter of notebook 04"),
        ("05.epochs=2", "no notebook '05'"),
        ("epochs=many", "epochs = 'many': int, as 1 is, was expected"),
        ("epochs=true", "epochs = True: int"),
        ("toy=1", "toy = 1: bool"),
        ("lr=.nan", "a finite number was expected"),
        ("seeds=3", "a list was expected"),
        ("seeds=[0, [1]]", r"seeds\[1\] = \[1\]"),
        ("epochs={a: 1}", "was expected"),
        ("profile=other", "'profile' is no parameter"),
        ("epochs", "write parameter=value"),
        ("epochs=[", "not a YAML value"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_by_name(suite, setting, message):
    with pytest.raises(ProfileError, match=message):
        plan("smoke", settings=[setting])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profile: night\nbatch: 3", "night.yaml: 'batch' is no parameter"),
        ("profile: night\n04: {epochs: 1}", "night.yaml: 4 is no parameter"),
        ("profile: night\nnotebooks: [4]\nlr: 0.2", "'lr' is no parameter of any notebook"),
        ("profile: night\nnotebooks: [7]", "no notebook '07'"),
        ("profile: night\nnotebooks: 4", "write a list"),
        ("epochs: 1", "night.yaml: write profile: night"),
        ("profile: laptop", "night.yaml: write profile: night"),
        ("- epochs", "no 'parameter: value' lines"),
        ("", "no 'parameter: value' lines"),
        ("a: [", "is not YAML"),
        ("x: !!python/object/apply:os.getpid []", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("#" * 200_000, "larger than a profile"),
    ],
    ids=lambda text: text[-20:],
)
def test_a_profile_that_does_not_fit_is_refused_before_anything_runs(suite, text, message):
    (paths.PROFILES / "night.yaml").write_text(text)
    with pytest.raises(ProfileError, match=message):
        plan("night")


def test_a_bomb_of_references_is_refused_and_not_unfolded(suite):
    # Nine levels of ten references each: written out, the last would be a billion numbers.
    levels = [f"  - &a{k} [{','.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10)]
    write_profile("\n".join(["lr:", "  - &a0 [0]", *levels]))
    with pytest.raises(ProfileError, match=r"float, as 0\.1 is, was expected") as refusal:
        plan("night")
    assert len(str(refusal.value)) < 1000


def test_only_and_notebooks_narrow_what_runs(suite):
    write_profile('notebooks: ["06"]\nlr: 0.2')
    assert list(parameters("night")) == ["06_ablations"]
    assert list(parameters("smoke", only=["04"])) == ["04_training"]
    with pytest.raises(ProfileError, match="no notebook '04'"):
        plan("night", only=["04"])


@pytest.mark.parametrize("name", ["nigth", "../night", "paper"])
def test_an_unknown_profile_is_refused_with_those_there_are(suite, name):
    write_profile("epochs: 1")
    with pytest.raises(ProfileError, match="there are night, smoke"):
        plan(name)


def test_a_data_folder_must_be_there(suite):
    assert parameters("smoke", data=suite)["06_ablations"]["data_folder"] == str(suite)
    with pytest.raises(DMCError, match="nowhere is not a folder"):
        plan("smoke", data=suite / "nowhere")


def test_a_fingerprint_follows_code_and_parameters_and_not_prose(suite):
    def fingerprint(**keywords):
        return plan("smoke", only=["04"], **keywords)[0].fingerprint

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(settings=["epochs=2"]) != first
    file = paths.NOTEBOOKS / "04_training.ipynb"
    file.write_text(file.read_text().replace("# 04_training", "# Training"))
    assert fingerprint() == first
    file.write_text(file.read_text().replace("epochs: int = 1", "epochs: int = 3"))
    assert fingerprint() != first


def test_a_parameter_without_a_value_must_be_given(suite):
    write_profile("data_folder:\nepochs: 4\n", "real")
    with pytest.raises(ProfileError, match=r"does not run without data_folder: add --data FOLDER"):
        plan("real")
    assert parameters("real", data=suite)["06_ablations"]["data_folder"] == str(suite)


def test_a_notebook_that_reads_no_videos_runs_without_the_folder(suite):
    write_profile("data_folder:\nepochs: 4\n", "real")
    assert list(parameters("real", only=["04"])) == ["04_training"]


def test_a_profile_of_drawn_clips_does_not_take_a_folder(suite):
    write_profile("epochs: 4\n")
    with pytest.raises(ProfileError, match="dmc reproduce real --data FOLDER"):
        plan("night", data=suite)


def test_other_videos_in_the_folder_are_another_run(suite):
    (suite / "videos" / "kick").mkdir(parents=True)
    before = [step.fingerprint for step in plan("smoke", data=suite / "videos")]
    (suite / "videos" / "kick" / "a.avi").write_bytes(b"one")
    assert [step.fingerprint for step in plan("smoke", data=suite / "videos")] != before


@pytest.fixture
def prepared(suite):
    """A folder that ``dmc prepare ucf101`` has ended, with nothing in it."""
    folder = suite / "prepared"
    empty = manifest.Manifest("UCF101", (), 0, (), {}, None, {}, {})
    manifest.write(folder, empty)
    return folder


def test_a_profile_of_prepared_clips_must_be_given_a_folder_of_them(suite, prepared, monkeypatch):
    write_profile("prepared_folder:\ncorpus: ucf101\n", "paper")
    with pytest.raises(ProfileError, match=r"without prepared_folder: add --set prepared_folder="):
        plan("paper")
    with pytest.raises(DatasetError, match="not a prepared folder"):
        plan("paper", settings=[f"prepared_folder={suite}"])
    with pytest.raises(ProfileError, match="was prepared from UCF101, and corpus is 'hmdb51'"):
        plan("paper", settings=[f"prepared_folder={prepared}", "corpus=hmdb51"])
    monkeypatch.chdir(suite)  # a kernel does not run where the command does
    got = parameters("paper", settings=["prepared_folder=prepared"])
    assert got["06_ablations"]["prepared_folder"] == str(prepared)


PLACED = """
video: str = ""  # one of your own
raft_weights: str = ""  # a file
scores_folder: str = ""  # the authors'
imagenet: str = "none"  # none, auto or a folder
"""


def test_paths_are_relative_to_where_the_user_stands(suite, monkeypatch):
    write(paths.NOTEBOOKS, "01_clip", PLACED)
    (suite / "clips").mkdir()
    monkeypatch.chdir(suite / "clips")
    monkeypatch.setenv("HOME", "/home/me")
    given = ["video=12:30.mp4", "raft_weights=../raft.pth", "01.scores_folder=~/exp_my"]
    got = parameters("smoke", settings=[*given, "imagenet=weights", "data_folder=."])
    assert got["01_clip"] == {
        "video": str(suite / "clips" / "12:30.mp4"),
        "raft_weights": str(suite / "raft.pth"),
        "scores_folder": "/home/me/exp_my",
        "imagenet": str(suite / "clips" / "weights"),
    }
    assert got["06_ablations"]["data_folder"] == str(suite / "clips")
    got = parameters("smoke", settings=["imagenet=auto", "video="])
    assert got["01_clip"] == {"imagenet": "auto"}


def test_a_prepared_folder_is_not_for_a_profile_of_other_videos(suite, prepared):
    write_profile("epochs: 4\n")
    given = [f"prepared_folder={prepared}"]
    with pytest.raises(ProfileError, match=r"night takes no prepared_folder.*dmc reproduce ucf101"):
        plan("night", settings=given)
    with pytest.raises(ProfileError, match="not both"):
        plan("smoke", settings=given, data=suite)


def test_another_preparation_is_another_run(suite, prepared):
    given = [f"prepared_folder={prepared}"]
    before = plan("smoke", settings=given)[1].fingerprint
    (prepared / "clips").mkdir()
    assert plan("smoke", settings=given)[1].fingerprint == before  # the manifest says it all
    file = prepared / manifest.FILE
    file.write_text(file.read_text().replace('"missing": 0', '"missing": 1'))
    assert plan("smoke", settings=given)[1].fingerprint != before


def test_each_split_has_results_of_its_own(suite):
    write_profile("epochs: 4\n")
    got = parameters("night", settings=["split_number=3"])
    assert {step["profile"] for step in got.values()} == {"night-split3"}
    assert parameters("night")["04_training"]["profile"] == "night"


# --- seeds and splits ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0,x", "0,,1", "-1", "1.5", "0;1", "²"])
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(ProfileError, match=re.escape(f"--seeds {text}: ") + ".*no whole number"):
        numbers(text, "--seeds")


def test_numbers_are_read_in_their_order_and_once():
    assert numbers("", "--seeds") == []
    assert numbers("2, 0,10", "--seeds") == [2, 0, 10]
    with pytest.raises(ProfileError, match="--splits 1,2,01: 1 comes twice"):
        numbers("1,2,01", "--splits")


@pytest.fixture
def of_two_splits(suite, prepared):
    """The settings of profile ``paper`` that give it a folder of two official splits."""
    write(paths.NOTEBOOKS, "04_training", f"{TRAINING}seed: int = 0\n{PREPARED}")
    write(paths.NOTEBOOKS, "06_ablations", f"{ABLATIONS}splits: list = []\n")
    write(paths.NOTEBOOKS, "08_figures", 'profile: str = "laptop"')
    write_profile("prepared_folder:\ncorpus: ucf101\nseeds: [5]\n", "paper")
    sides = {"train": (), "test": ()}
    empty = manifest.Manifest("UCF101", (), 0, (), {}, None, {1: sides, 2: sides}, {})
    manifest.write(prepared, empty)
    return [f"prepared_folder={prepared}"]


def test_a_notebook_is_given_all_seeds_and_splits_or_the_first_of_each(of_two_splits):
    got = parameters("paper", settings=of_two_splits, seeds=[3, 1], splits=[2, 1])
    one, all_of_them = got["04_training"], got["06_ablations"]
    assert (one["seed"], one["split_number"]) == (3, 2)
    assert (all_of_them["seeds"], all_of_them["splits"]) == ([3, 1], [2, 1])
    assert {step["profile"] for step in got.values()} == {"paper"}
    assert parameters("paper", settings=of_two_splits)["06_ablations"]["seeds"] == [5]
    got = parameters("paper", settings=of_two_splits, splits=[2])
    assert {step["profile"] for step in got.values()} == {"paper-split2"}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"splits": [1, 3]}, r"--splits: there is no split 3; there are 1, 2\."),
        ({"splits": [1], "settings": ["split_number=2"]}, "give --splits or --set split_number="),
        ({"seeds": [1], "settings": ["06.seeds=[2]"]}, "give --seeds or --set seeds="),
    ],
)
def test_seeds_and_splits_that_cannot_be_are_refused(of_two_splits, how, message):
    how = how | {"settings": [*how.get("settings", []), *of_two_splits]}
    with pytest.raises(ProfileError, match=message):
        plan("paper", **how)


def test_drawn_clips_have_no_splits_and_a_notebook_that_trains_nothing_no_seeds(of_two_splits):
    with pytest.raises(ProfileError, match="profile smoke draws its clips, which have no official"):
        plan("smoke", splits=[1])
    with pytest.raises(ProfileError, match="--seeds: no notebook that is run has seeds or seed"):
        plan("smoke", only=["08"], seeds=[1])
