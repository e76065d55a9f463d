"""The tables of README and of results/README, from the committed results and nothing else.

``python -m dmclib.reproduce.readme`` (``make readme``) writes them anew between their marks; a
test holds both files to what the results give, so that no table can be older than they are.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from dmclib import claims, paths, results
from dmclib.errors import DMCError
from dmclib.experiment import AGAINST, FLOW, METADATA, MOTION, MSE
from dmclib.files import write_text

FILES = (paths.ROOT / "README.md", paths.RESULTS / "README.md")
REAL = ("weizmann", "real", "ut-interaction")  # profiles of real clips
# The differences on README's first screen, in its words.
SHOWN = {
    (MSE, MOTION): "the cue against the vectors that it is made from, single frames",
    (FLOW, MSE): "optical flow, which teaches it, against the cue, single frames",
    (f"CoViAR + {MSE}", "CoViAR: frame + vectors + residual"): (
        "CoViAR's three streams with the cue against the three alone, whole clips"
    ),
}


def tables() -> dict[str, str]:
    """Every table by the name that its marks carry, as markdown.

    Raises:
        DMCError: if a results file that one of them is made from is absent or damaged.
    """
    made = {profile: ablation(profile) for profile in ("laptop", *REAL)}
    claimed = claims.to_markdown(claims.table(claims.OURS))
    made |= {"ablations": changes("ablations"), "claims": claimed}
    return made | {"first": first("laptop"), "speed": speed("laptop")}


def first(profile: str) -> str:
    """Three differences of a profile's notebook 06, for README's first screen."""
    record = results.load("06_ablations", profile)
    found = {(row["a"], row["b"]): row for row in record.extra["differences"]}
    lines = ["| in points of top-1 accuracy | difference, 95 % interval | says |", "|---|---|---|"]
    lines += [
        f"| {words} | {_gain(found[pair])} | {found[pair]['says']} |"
        for pair, words in SHOWN.items()
    ]
    return "\n".join(lines)


def speed(profile: str) -> str:
    """The project's targets beside what ``dmc bench all`` last measured."""
    titles = ("suite", "what", "asked", "measured", "")
    lines = [f"| {' | '.join(titles)} |", "|---|---|---|---|---|"]
    for row in results.load("bench_targets", profile).rows.to_dict("records"):
        figure = "" if pd.isna(row["figure"]) else f"{row['figure']:.3g}"
        cells = (row["suite"], row["target"], row["bound"], figure, row["verdict"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ablation(profile: str) -> str:
    """Notebook 06 of a profile: accuracies and errors of every variant, then their differences."""
    record = results.load("06_ablations", profile)
    rows = record.rows.astype(object).where(record.rows.notna(), None)
    titles = ("what the classifier looks at", "single frames", "whole clips")
    lines = [f"| {' | '.join(titles)} | end-point error to flow, px |", "|---|---|---|---|"]
    for row in rows.to_dict("records"):
        # File metadata has one answer a clip, which is no answer to a frame.
        frames = "" if row["variant"] == METADATA else _share(row, "accuracy", "low", "high")
        clips = _share(row, "clip_accuracy", "clip_low", "clip_high")
        error = "" if row["epe_px"] is None else f"{row['epe_px']:.2f}"
        lines.append(f"| {row['variant']} | {frames} | {clips} | {error} |")
    differences = record.extra["differences"]
    for of in dict.fromkeys(row.get("of", "single frames") for row in differences):
        lines += ["", f"| difference, {of} | points | says |", "|---|---|---|"]
        for row in differences:
            if row.get("of", "single frames") == of:
                lines.append(f"| {row['a']} - {row['b']} | {_gain(row)} | {row['says']} |")
    return "\n".join(lines + _nearness(record))


def _nearness(record: results.Record) -> list[str]:
    """How near vectors and cues are to flow, region by region; nothing of an older record."""
    rows = record.extra.get("nearness", [])
    if not rows:
        return []
    abroad = (row for row in record.extra.get("travelled", []) if row["variant"] != MOTION)
    rows = [*rows, *abroad]  # the record stays as it was read
    regions = list(dict.fromkeys(row["region"] for row in rows))
    whole = regions[0]
    titles = (f"end-point, {whole}", *(f"squared, {region}" for region in regions), "blockiness")
    titles = ("error, share of the vectors'", *titles)
    lines = ["", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = {row["region"]: row for row in rows if row["variant"] == name}
        cells = [_ratio(own[whole], "epe_ratio")]
        cells += [_ratio(own[region], "squared_ratio") for region in regions]
        cells.append(_ratio(own[whole], "blockiness"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def changes(profile: str) -> str:
    """The further trainings of a profile's notebook 06, each beside the one that it changes."""
    record = results.load("06_ablations", profile)
    rows = record.rows.set_index("variant").to_dict("index")
    titles = ("one change", "against", "single frames", "points", "end-point error, px", "says")
    lines = [f"| {' | '.join(titles)} |", "|---|---|---|---|---|---|"]
    for row in record.extra["differences"]:
        if row["a"] in AGAINST:
            of = rows[row["a"]]
            frames, error = _share(of, "accuracy", "low", "high"), f"{of['epe_px']:.2f}"
            cells = (row["a"], row["b"], frames, _gain(row), error, row["says"])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def renewed(texts: Mapping[Path, str]) -> dict[Path, str]:
    """The files' texts with every table between its marks as the results give it now.

    Raises:
        DMCError: if the marks of a table are not there, once and in order.
    """
    new = dict(texts)
    for name, table in tables().items():
        begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        places = [path for path, text in new.items() if begin in text]
        before, *rest = new[places[0]].split(begin) if len(places) == 1 else ("",)
        if len(rest) != 1 or rest[0].count(end) != 1:
            raise DMCError(f"Table {name!r} has not one place in README: put in {begin} and {end}.")
        new[places[0]] = f"{before}{begin}\n{table}\n{end}{rest[0].split(end)[1]}"
    return new


def _gain(row: dict) -> str:
    gain, low, high = (f"{100 * row[key]:+.1f}" for key in ("a - b", "low", "high"))
    return f"{gain} [{low}, {high}]"


def _ratio(row: dict, key: str) -> str:
    if row[key] is None:
        return ""
    return f"{row[key]:.2f} [{row[key + '_low']:.2f}, {row[key + '_high']:.2f}]"


def _share(row: dict, accuracy: str, low: str, high: str) -> str:
    return f"{100 * row[accuracy]:.1f} [{100 * row[low]:.1f}, {100 * row[high]:.1f}]"


if __name__ == "__main__":
    for path, text in renewed({path: path.read_text(encoding="utf-8") for path in FILES}).items():
        write_text(path, text)
