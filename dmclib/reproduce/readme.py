"""README's tables, made from the committed results and from nothing else.

``python -m dmclib.reproduce.readme`` (``make readme``) writes them anew between their marks; a
test holds README to what the results give, so that a table there cannot be older than they are.
"""

from dmclib import claims, paths, results
from dmclib.errors import DMCError
from dmclib.experiment import AGAINST, METADATA
from dmclib.files import write_text

FILE = paths.ROOT / "README.md"


def tables() -> dict[str, str]:
    """Every table by the name that its marks carry, as markdown.

    Raises:
        DMCError: if a results file that one of them is made from is absent or damaged.
    """
    made = {profile: ablation(profile) for profile in ("laptop", "real", "ut-interaction")}
    claimed = claims.to_markdown(claims.table(claims.OURS))
    return made | {"ablations": changes("ablations"), "claims": claimed}


def ablation(profile: str) -> str:
    """Notebook 06 of a profile: accuracies and error of every variant, then their differences."""
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
    lines += ["", "| difference, single frames | points | says |", "|---|---|---|"]
    for row in record.extra["differences"]:
        lines.append(f"| {row['a']} - {row['b']} | {_gain(row)} | {row['says']} |")
    return "\n".join(lines)


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


def renewed(text: str) -> str:
    """The text with every table between its marks as the results give it now.

    Raises:
        DMCError: if the marks of a table are not there, once and in order.
    """
    for name, table in tables().items():
        begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        before, *rest = text.split(begin)
        if len(rest) != 1 or rest[0].count(end) != 1:
            raise DMCError(f"{FILE} has no place for table {name!r}: put in {begin} and {end}.")
        text = f"{before}{begin}\n{table}\n{end}{rest[0].split(end)[1]}"
    return text


def _gain(row: dict) -> str:
    gain, low, high = (f"{100 * row[key]:+.1f}" for key in ("a - b", "low", "high"))
    return f"{gain} [{low}, {high}]"


def _share(row: dict, accuracy: str, low: str, high: str) -> str:
    return f"{100 * row[accuracy]:.1f} [{100 * row[low]:.1f}, {100 * row[high]:.1f}]"


if __name__ == "__main__":
    write_text(FILE, renewed(FILE.read_text(encoding="utf-8")))
