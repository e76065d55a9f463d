"""What a profile may say, checked before anything runs.

The parameters cells of the notebooks hold the defaults, which are the profile ``laptop``. A file in
``notebooks/profiles`` overrides them in every notebook that has such a parameter. It is flat, so
that ``papermill -f`` reads it too. A parameter without a value must come from the command line. A
misspelled word must not cost a night of the wrong training, so an unknown name or a value of
another type is an error here.
"""

import ast
import difflib
import hashlib
import json
import math
import re
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

from dmclib import paths
from dmclib.data import corpora, folder_digest, manifest
from dmclib.data.corpus import Counts
from dmclib.errors import DMCError, ProfileError
from dmclib.files import PACKAGE

Settings = dict[str, dict]  # "" (every notebook) or a notebook's number -> parameter -> value
Known = dict[Path, dict]  # notebook -> its parameters and their defaults
MAX_PROFILE_BYTES = 100_000  # a profile is a page; whatever is larger is another file
# Parameters that name a file or folder; of each the words that are no path.
_PATHS = {
    **dict.fromkeys(("data_folder", "prepared_folder"), ()),
    **dict.fromkeys(("video", "raft_weights", "scores_folder"), ()),
    "imagenet": ("none", "auto"),
}
# Where the videos are, and how a profile that asks for them is given them.
PLACES = {
    "data_folder": "--data FOLDER",
    "prepared_folder": "--set prepared_folder=FOLDER, a folder that dmc prepare made",
}


@dataclass(frozen=True)
class Step:
    """One notebook with the parameters it is to run with."""

    notebook: Path
    parameters: dict
    fingerprint: str  # SHA-256 of its code cells, its parameters, dmclib's source and its videos

    @property
    def name(self) -> str:
        """The notebook's stem, such as ``06_ablations``."""
        return self.notebook.stem

    @property
    def every(self) -> dict:
        """All parameters of the notebook, those left at their defaults too."""
        return defaults(self.notebook) | self.parameters


def plan(
    profile: str = "laptop",
    *,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    data: str | Path | None = None,
    seeds: Sequence[int] = (),
    splits: Sequence[int] = (),
    dry: bool = False,
) -> list[Step]:
    """Check everything that can be checked before a run, and say what would run with what.

    One official split has results of its own: those of split 2 are ``ucf101-split2``.

    Args:
        profile: stem of a file of ``notebooks/profiles``.
        only: numbers or stems of the notebooks to run; empty for all that the profile runs.
        settings: ``"parameter=value"`` for every notebook that has it, or
            ``"06.parameter=value"`` for one; values are YAML and go before the profile's.
        data: folder of real videos, given to the notebooks as ``data_folder``.
        seeds: given as ``seeds``; the first one to notebooks that have one ``seed``.
        splits: official splits, likewise as ``splits`` and ``split_number``.
        dry: nothing will run, so a data set whose counts are published need not be at hand.

    Raises:
        ProfileError: a profile, notebook, parameter or split does not exist, or a value is of
            another type than the notebook's default.
        DMCError: the data folder is not there, or the prepared folder is not one.
    """
    sources = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not sources:
        raise ProfileError(f"there are no notebooks in {paths.NOTEBOOKS}.")
    known_in = {path: defaults(path) for path in sources}
    from_profile, wanted = _read_profile(profile, known_in)
    from_line = _read_settings(settings, known_in)
    if data is not None:
        if not Path(data).is_dir():
            raise DMCError(f"{data} is not a folder: --data needs the folder of the real videos.")
        from_line.setdefault("", {})["data_folder"] = str(Path(data))
    for given in (from_profile, *from_line.values()):
        _resolve_paths(given)

    running = {path: known for path, known in known_in.items() if wanted is None or path in wanted}
    _check({"": from_profile}, running, place=f"{paths.PROFILES / profile}.yaml")
    chosen = [_find(word, running, place="--only") for word in only]
    running = {path: known for path, known in running.items() if not only or path in chosen}
    _check(from_line, running, place="the command line")
    _add_numbers(from_line, running, "--seeds", seeds, "seeds", "seed")
    _add_numbers(from_line, running, "--splits", splits, "splits", "split_number")
    every = from_profile | from_line.get("", {})
    at_hand = not (dry and published(every))
    _check_given(profile, from_profile, from_line, running, at_hand=at_hand)
    known = _splits(profile, every) if splits else ()
    for split in splits:
        if split not in known:
            there = ", ".join(map(str, known))
            raise ProfileError(f"--splits: there is no split {split}; there are {there}.")

    split = every.get("split_number", 1)
    named = profile if split == 1 or len(splits) > 1 else f"{profile}-split{split}"
    library = _library_hash()
    steps = []
    for path, known in running.items():
        parameters = {"profile": named} if "profile" in known else {}
        for given in (from_profile, from_line.get("", {}), from_line.get(path.stem[:2], {})):
            for key, value in given.items():
                if key in known and value is not None:
                    parameters[key] = _fit(value, known[key], f"{path.stem}.{key}")
        content = _videos(parameters)
        steps.append(Step(path, parameters, _fingerprint(path, parameters, library + content)))
    return steps


def numbers(text: str, option: str) -> list[int]:
    """What ``--seeds`` or ``--splits`` says, as ``0,1,2``; nothing for an empty text.

    Raises:
        ProfileError: something in it is no whole number, or comes twice.
    """
    found = []
    for word in map(str.strip, text.split(",") if text else ()):
        if not re.fullmatch(r"[0-9]{1,9}", word):
            raise ProfileError(f"{option} {text}: {word!r} is no whole number; write it as 0,1,2.")
        if int(word) in found:
            raise ProfileError(f"{option} {text}: {int(word)} comes twice.")
        found.append(int(word))
    return found


def published(parameters: dict) -> Counts:
    """Published counts of the data set that parameters name, by split: to train on and to test."""
    return getattr(corpora.ADAPTERS.get(parameters.get("corpus")), "SPLITS", {})


def defaults(notebook: Path) -> dict:
    """The parameters of a notebook and their default values, from its cell tagged ``parameters``.

    Raises:
        ProfileError: if the file is no notebook or that cell holds more than literals.
    """
    try:
        cells = [c for c in _code_cells(notebook) if "parameters" in c.metadata.get("tags", [])]
        found = {}
        for line in ast.parse("\n".join(cell.source for cell in cells)).body:
            target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            found[target.id] = ast.literal_eval(line.value)
        return found
    except (ValueError, SyntaxError, AttributeError) as error:
        raise ProfileError(f"{notebook}: its parameters cannot be read ({error}).") from None


def _code_cells(notebook: Path) -> list:
    return [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]


def _read_profile(profile: str, known_in: Known) -> tuple[dict, list[Path] | None]:
    """The parameters in a profile's file, and the notebooks it runs (None: all of them)."""
    known = {path.stem: path for path in paths.PROFILES.glob("*.yaml")}
    if profile not in known or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", profile):
        raise ProfileError(
            f"there is no profile {profile!r}{_close(profile, list(known))}; "
            f"there are {', '.join(sorted(known))}."
        )
    source = known[profile]
    if source.stat().st_size > MAX_PROFILE_BYTES:
        raise ProfileError(f"{source} is larger than a profile can be; is it another file?")
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ProfileError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ProfileError(f"{source} holds no 'parameter: value' lines.")
    if content.pop("profile", None) != profile:
        raise ProfileError(
            f"{source}: write profile: {profile}; else papermill, which does not know the file's "
            "name, writes over the results of laptop."
        )

    wanted = content.pop("notebooks", None)
    if wanted is not None:
        if not isinstance(wanted, list):
            raise ProfileError(f'{source}, notebooks: write a list such as ["00", "06"].')
        wanted = [_find(word, known_in, place=f"{source}, notebooks") for word in wanted]
    return content, wanted


def _read_settings(lines: Sequence[str], known_in: Known) -> Settings:
    settings: Settings = {}
    for line in lines:
        key, equals, text = line.partition("=")
        notebook, dot, parameter = key.strip().rpartition(".")
        if not equals or not parameter:
            raise ProfileError(f"--set {line}: write parameter=value or 06.parameter=value.")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError, ValueError):
            raise ProfileError(f"--set {line}: {text!r} is not a YAML value.") from None
        scope = _find(notebook, known_in, place=f"--set {line}").stem[:2] if dot else ""
        settings.setdefault(scope, {})[parameter] = value
    return settings


def _resolve_paths(given: dict) -> None:
    """Make paths absolute, from where the user stands: a kernel runs elsewhere."""
    for name, words in _PATHS.items():
        value = given.get(name)
        if value and isinstance(value, str) and value not in words:
            given[name] = str(Path(value).expanduser().resolve())


def _add_numbers(
    settings: Settings, running: Known, option: str, given: Sequence[int], several: str, one: str
) -> None:
    """Set the parameter of several numbers to all that are given, that of one to the first."""
    if not given:
        return
    values = {several: list(given), one: given[0]}
    for name in values:
        if any(name in of_notebook for of_notebook in settings.values()):
            raise ProfileError(f"give {option} or --set {name}=..., not both.")
    found = {name for known in running.values() for name in values.keys() & known.keys()}
    if not found:
        raise ProfileError(f"{option}: no notebook that is run has {several} or {one}.")
    settings.setdefault("", {}).update((name, values[name]) for name in found)


def _splits(profile: str, parameters: dict) -> list[int]:
    """The official splits of the videos that parameters name; 1 where clips are dealt by chance."""
    if folder := parameters.get("prepared_folder"):
        known = manifest.read(folder).lists
    elif folder := parameters.get("data_folder"):
        known = corpora.open_corpus(parameters.get("corpus", "folder"), folder).lists
    elif not (known := published(parameters)):
        raise ProfileError(
            f"profile {profile} draws its clips, which have no official splits: leave --splits out."
        )
    return sorted(known) or [1]


def _find(word: object, notebooks: Known, *, place: str) -> Path:
    """The notebook that a number (YAML reads 06 as 6) or a stem means."""
    name = f"{word:02d}" if isinstance(word, int) else str(word)
    for path in notebooks:
        if name in (path.stem, path.stem[:2]):
            return path
    stems = [path.stem for path in notebooks]
    raise ProfileError(
        f"{place}: there is no notebook {name!r}{_close(name, stems)}; there are "
        f"{', '.join(stems)}."
    )


def _check(settings: Settings, notebooks: Known, *, place: str) -> None:
    """Refuse a parameter that no notebook of its scope has."""
    for scope, given in settings.items():
        inside = [known for path, known in notebooks.items() if path.stem.startswith(scope)]
        names = sorted({name for known in inside for name in known} - {"profile"})
        where = f"notebook {scope}" if scope else "any notebook that is run"
        for key in given:
            if key not in names:
                raise ProfileError(
                    f"{place}: {key!r} is no parameter of {where}{_close(str(key), names)}; "
                    "nothing was run."
                )


def _check_given(
    profile: str, from_profile: dict, from_line: Settings, running: Known, *, at_hand: bool
) -> None:
    """Hold a profile to its own data, since its results and figures are kept under its name.

    Without ``at_hand`` the videos need not be there.
    """
    given = from_line.get("", {})
    asked = {name for known in running.values() for name in known}
    needed = [k for k, value in from_profile.items() if value is None and k in asked]
    for key in needed:
        if given.get(key) is None and (at_hand or key not in PLACES):
            how = PLACES.get(key, f"--set {key}=...")
            raise ProfileError(f"profile {profile} does not run without {key}: add {how}.")
    for key, other in (("data_folder", "real"), ("prepared_folder", "ucf101")):
        if given.get(key) and key not in needed and profile != "smoke":
            raise ProfileError(
                f"profile {profile} takes no {key}; one that does: dmc reproduce {other} "
                f"{PLACES[key]}."
            )
    if all(given.get(key) for key in PLACES):
        raise ProfileError("give a folder of videos or a prepared folder, not both.")


def _videos(parameters: dict) -> str:
    """What a step's videos are: the manifest says it of prepared ones."""
    prepared, folder = (parameters.get(place) for place in ("prepared_folder", "data_folder"))
    if prepared:
        word, dataset = parameters.get("corpus", "folder"), manifest.read(prepared).dataset
        if word != "folder" and dataset != getattr(corpora.ADAPTERS.get(word), "__name__", None):
            raise ProfileError(f"{prepared} was prepared from {dataset}, and corpus is {word!r}.")
        return manifest.sha256(Path(prepared) / manifest.FILE)
    return folder_digest(folder) if folder else ""


def _close(word: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(word, known, n=2)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def _fit(value: object, default: object, place: str) -> object:
    """The value as the notebook expects it: of its default's type, or a list of such."""
    if not isinstance(default, list | tuple):
        return _fit_scalar(value, default, place)
    if not isinstance(value, list):
        raise ProfileError(f"{place} = {reprlib.repr(value)[:80]}: a list was expected.")
    sample = default[0] if default else None
    return [_fit_scalar(item, sample, f"{place}[{k}]") for k, item in enumerate(value)]


def _fit_scalar(value: object, default: object, place: str) -> object:
    if isinstance(default, float) and type(value) in (int, str):
        with suppress(ValueError):
            value = float(value)  # YAML takes 1e-3 for a word
    fits = type(value) is type(default) or default is None
    if not fits or not isinstance(value, bool | int | float | str):
        kind = "one value" if default is None else f"{type(default).__name__}, as {default!r} is,"
        raise ProfileError(f"{place} = {reprlib.repr(value)[:80]}: {kind} was expected.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ProfileError(f"{place} = {value}: a finite number was expected.")
    return value


def _library_hash() -> str:
    """Of all code that a notebook may call: the package but for this wing, which runs them."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent != Path(__file__).parent:
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _fingerprint(notebook: Path, parameters: dict, library: str) -> str:
    code = [cell.source for cell in _code_cells(notebook)]
    text = json.dumps([code, parameters, library], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
