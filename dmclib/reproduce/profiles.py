"""What a profile may say, checked before anything runs.

The parameters cell of each notebook holds its defaults, which together are the profile ``smoke``. A
file in ``notebooks/profiles`` only overrides them: a parameter's name at the top level speaks to
every notebook that has it; a notebook's number or stem holds settings for that notebook alone;
``notebooks`` lists those it runs; a parameter without a value must come from the command line.
A misspelled word must not cost a night of the wrong training, so an unknown name or a value of
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
from functools import cache
from pathlib import Path

import nbformat
import yaml

from dmclib import paths
from dmclib.data import corpora, folder_digest, manifest
from dmclib.errors import DMCError, ProfileError
from dmclib.files import PACKAGE

Settings = dict[str, dict]  # "" (every notebook) or a notebook's number -> parameter -> value
MAX_PROFILE_BYTES = 100_000  # a profile is a page; whatever is larger is another file
# Where the videos are, and how a profile that asks for them is given them.
PLACES = {
    "data_folder": "--data FOLDER",
    "prepared_folder": "--set prepared_folder=FOLDER, a folder that dmc prepare made",
}
TRAINING = "04"  # the notebook that trains every stream and stage of one seed


@dataclass(frozen=True)
class Step:
    """One notebook with the parameters it is to run with."""

    notebook: Path
    parameters: dict
    fingerprint: str  # SHA-256 of its code cells, its parameters, dmclib's source and its videos
    seed: int | None = None  # which of a grid's seeds it trains

    @property
    def name(self) -> str:
        """The notebook's stem, such as ``06_ablations``; in a grid ``04_training-seed1``."""
        stem = self.notebook.stem
        return stem if self.seed is None else f"{stem}-seed{self.seed}"

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
    split: int | None = None,
    seeds: Sequence[int] = (),
    dry: bool = False,
) -> list[Step]:
    """Check everything that can be checked before a run, and say what would run with what.

    Args:
        profile: ``"smoke"`` (the notebooks' own defaults) or a file of ``notebooks/profiles``.
        only: numbers or stems of the notebooks to run; empty for all that the profile runs.
        settings: ``"parameter=value"`` for every notebook that has it, or
            ``"06.parameter=value"`` for one; values are YAML and go before the profile's.
        data: folder of real videos, given to the notebooks as ``data_folder``.
        split: official split, before the profile's own.
        seeds: of a grid: the training notebook runs once for each, the others with all of them
            (``seeds``) or, after the training, with the first (``seed``).
        dry: nothing will run, so a data set whose counts are published need not be at hand.

    Raises:
        ProfileError: on a profile, notebook or parameter that does not exist, or a value of
            another type than the notebook's default has.
        DMCError: if the data folder is not there, or the prepared folder is not one.

    The official splits of a data set have results of their own (:func:`results_name`), and so have
    a grid's trainings of other seeds than the notebook's own: ``ucf101-split2-seed1``.
    """
    sources = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not sources:
        raise ProfileError(f"there are no notebooks in {paths.NOTEBOOKS}.")
    known_in = {path: defaults(path) for path in sources}
    source = _profile_path(profile)
    from_profile, wanted = _read_profile(source, known_in) if source else ({}, None)
    from_line = _read_settings(settings, known_in)
    if data is not None:
        if not Path(data).is_dir():
            raise DMCError(f"{data} is not a folder: --data needs the folder of the real videos.")
        from_line.setdefault("", {})["data_folder"] = str(Path(data).resolve())

    running = {path: known for path, known in known_in.items() if wanted is None or path in wanted}
    _check(from_profile, running, place=str(source))
    chosen = [_find(word, running, place="--only") for word in only]
    running = {path: known for path, known in running.items() if not only or path in chosen}
    _check(from_line, running, place="the command line")
    settings = from_profile.get("", {}) | from_line.get("", {})
    published = getattr(corpora.ADAPTERS.get(settings.get("corpus")), "SPLITS", None)
    _check_given(profile, from_profile, from_line, running, at_hand=not (dry and published))

    named = results_name(profile, split or settings.get("split_number", 1))
    library = _library_hash()
    steps = []
    for path, known in running.items():
        parameters = {"profile": named} if "profile" in known else {}
        for given in (from_profile, from_line):
            for scope in ("", path.stem[:2]):
                for key, value in given.get(scope, {}).items():
                    if key in known and value is not None:
                        parameters[key] = _fit(value, known[key], f"{path.stem}.{key}")
        if split is not None and "split_number" in known:
            parameters["split_number"] = split
        for place in PLACES.keys() & parameters.keys():
            if parameters[place]:  # a kernel runs elsewhere
                parameters[place] = str(Path(parameters[place]).resolve())
        content = _videos(parameters)
        for seed, given in _of_seeds(path, known, parameters, seeds):
            steps.append(Step(path, given, _fingerprint(path, given, library + content), seed))
    return steps


def results_name(profile: str, split: int) -> str:
    """The folder of results, and the notebooks' ``profile``: of split 2 ``ucf101-split2``."""
    return profile if split == 1 else f"{profile}-split{split}"


def _of_seeds(
    path: Path, known: dict, parameters: dict, seeds: Sequence[int]
) -> list[tuple[int | None, dict]]:
    """A notebook's parameters in a grid: for the training a seed and those for it, each."""
    if not seeds:
        return [(None, parameters)]
    if path.stem[:2] != TRAINING:
        given = {"seeds": list(seeds)} if "seeds" in known else {}
        if "seed" in known and path.stem[:2] > TRAINING:
            given["seed"] = seeds[0]
        return [(None, parameters | given)]
    if "seed" not in known or "profile" not in known:
        raise ProfileError(f"{path} has no seed and profile to set, so there is no grid of it.")
    own, name = parameters.get("seed", known["seed"]), parameters["profile"]
    names = {seed: name if seed == own else f"{name}-seed{seed}" for seed in seeds}
    return [(seed, parameters | {"seed": seed, "profile": names[seed]}) for seed in seeds]


def defaults(notebook: Path) -> dict:
    """The parameters of a notebook and their default values, from its cell tagged ``parameters``.

    Raises:
        ProfileError: if the file is no notebook or that cell holds more than literals.
    """
    try:
        tagged = [source for source, tags in _code_cells(notebook) if "parameters" in tags]
        lines = ast.parse("\n".join(tagged)).body
        return {
            (line.target if isinstance(line, ast.AnnAssign) else line.targets[0]).id: (
                ast.literal_eval(line.value)
            )
            for line in lines
        }
    except (ValueError, SyntaxError, AttributeError) as error:
        raise ProfileError(f"{notebook}: its parameters cannot be read ({error}).") from None


def _code_cells(notebook: Path) -> list[tuple[str, list[str]]]:
    """Source and tags of each code cell."""
    stat = notebook.stat()
    return _read_code_cells(notebook, stat.st_mtime_ns, stat.st_size)


@cache  # a grid plans the same notebooks for every split, and their pictures make them large
def _read_code_cells(notebook: Path, changed: int, size: int) -> list[tuple[str, list[str]]]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [(c.source, c.metadata.get("tags", [])) for c in cells if c.cell_type == "code"]


def _profile_path(profile: str) -> Path | None:
    known = {path.stem: path for path in paths.PROFILES.glob("*.yaml")}
    if profile == "smoke":
        return None
    if profile not in known or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", profile):
        raise ProfileError(
            f"there is no profile {profile!r}{_close(profile, ['smoke', *known])}; "
            f"there are {', '.join(sorted(['smoke', *known]))}."
        )
    return known[profile]


def _read_profile(source: Path, known_in: dict[Path, dict]) -> tuple[Settings, list[Path] | None]:
    """The settings in a profile's file, and the notebooks it runs (None: all of them)."""
    if source.stat().st_size > MAX_PROFILE_BYTES:
        raise ProfileError(f"{source} is larger than a profile can be; is it another file?")
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ProfileError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ProfileError(f"{source} holds no 'parameter: value' lines.")

    wanted = content.pop("notebooks", None)
    if wanted is not None:
        if not isinstance(wanted, list):
            raise ProfileError(f'{source}, notebooks: write a list such as ["00", "06"].')
        wanted = [_find(word, known_in, place=f"{source}, notebooks") for word in wanted]
    settings: Settings = {}
    for key, value in content.items():
        if isinstance(value, dict):
            settings[_find(key, known_in, place=str(source)).stem[:2]] = value
        else:
            settings.setdefault("", {})[key] = value
    return settings, wanted


def _read_settings(lines: Sequence[str], known_in: dict[Path, dict]) -> Settings:
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


def _find(word: object, notebooks: dict[Path, dict], *, place: str) -> Path:
    """The notebook that a number (YAML reads 06 as 6) or a stem means."""
    name = f"{word:02d}" if isinstance(word, int) else str(word)
    for path in notebooks:
        if name in (path.stem, path.stem[:2]):
            return path
    stems = [path.stem for path in notebooks]
    known = ", ".join(stems)
    raise ProfileError(
        f"{place}: there is no notebook {name!r}{_close(name, stems)}; there are {known}."
    )


def _check(settings: Settings, notebooks: dict[Path, dict], *, place: str) -> None:
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
    profile: str,
    from_profile: Settings,
    from_line: Settings,
    running: dict[Path, dict],
    *,
    at_hand: bool,
) -> None:
    """Hold a profile to its own data, since its results and figures are kept under its name.

    Without ``at_hand`` the videos need not be there.
    """
    given = from_line.get("", {})
    asked = {name for known in running.values() for name in known}
    needed = [k for k, value in from_profile.get("", {}).items() if value is None and k in asked]
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
    code = [source for source, _ in _code_cells(notebook)]
    text = json.dumps([code, parameters, library], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
