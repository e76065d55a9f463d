"""What was found about a claim: numbers looked up in ``results``, with their interval and n.

A finding's verdict follows one rule (:attr:`Finding.verdict`), from the 95 % interval of something
that the claim says is above zero.
"""

from dataclasses import dataclass, replace

import pandas as pd

from dmclib import models, paths, results
from dmclib.experiment import ADV, MOTION


@dataclass(frozen=True)
class Finding:
    """What was found about one claim on one data set or machine."""

    data: str  # what it was found on
    text: str  # the numbers, with n
    low: float | None = None  # interval of what the claim says is above zero; None: it has none
    high: float | None = None

    @property
    def verdict(self) -> str:
        """Supported or contradicted where the interval leaves zero out, to the side it lies on."""
        if self.low is None or self.high is None:
            return "shown, not judged"
        if self.low > 0:
            return "supported"
        return "contradicted" if self.high < 0 else "no difference seen"

    @property
    def moves(self) -> str:
        """The verdict of a difference that nobody claims: better, worse or none seen."""
        return {"supported": "better", "contradicted": "worse"}.get(self.verdict, self.verdict)


def load(name: str, profile: str) -> results.Record | None:
    """The results file, or None where it was never made; a damaged one is an error."""
    made = (paths.RESULTS / profile / f"{name}.json").is_file()
    return results.load(name, profile) if made else None


def _data(record: results.Record) -> str:
    """What a record was measured on, in few words: "PuppetActions", "UCF-101"."""
    if record.profile == "released":
        return record.data.rsplit(" of ", 1)[-1]
    return record.data.split(",")[0].removeprefix("VideoFolder ")


def compared(name: str, profile: str, better: str, worse: str) -> Finding | None:
    """By how many points one method of a results file is better than another.

    Paired on the same clips and seeds where the file keeps that difference; else from the two
    accuracies, each with its interval. None where the file or one of the methods is not there.

    Args:
        name: of the results file.
        profile: whose; of "released", the means over the splits are compared.
        better: the method that the claim says is better, as the file names it.
        worse: the other.
    """
    record = load(name, profile)
    if record is None:
        return None
    for row in record.extra.get("differences", []):
        if {row["a"], row["b"]} == {better, worse} and row.get("split", "all") == "all":
            return difference(record, row, better)
    released = profile == "released"
    rows = pd.DataFrame(record.extra["means"]) if released else record.rows
    rows = rows.set_index("method" if released else "variant")
    if not {better, worse} <= set(rows.index):
        return None
    a, b = rows.loc[better], rows.loc[worse]
    gain = (a["accuracy"] - b["accuracy"], a["low"] - b["high"], a["high"] - b["low"])
    return _gain(record, *gain, f"{_n(a)}, not paired")


def difference(record: results.Record, row: dict, better: str) -> Finding:
    """One of a record's paired differences, in favour of ``better``, which is one of the two."""
    gain, low, high = row["gain"] if "gain" in row else row["a - b"], row["low"], row["high"]
    if row["b"] == better:
        gain, low, high = 0 - gain, 0 - high, 0 - low  # of 0, unlike -0.0, no sign is printed
    n = row if "n" in row else record.rows.set_index("variant").loc[better]
    return _gain(record, gain, low, high, _n(n))


def _gain(record: results.Record, gain: float, low: float, high: float, n: str) -> Finding:
    text = f"{100 * gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], {n}"
    return Finding(_data(record), text, low, high)


def _n(row: dict | pd.Series) -> str:
    """What a row was counted on; of frames, the clips that they come from, and the seeds."""
    if "clips" not in row:
        return f"n = {int(row['n'])}"
    seeds = int(row["seeds"]) if "seeds" in row else 1
    return f"n = {int(row['clips'])} clips, {seeds} seed{'s' if seeds > 1 else ''}"


def error_against_flow(profile: str) -> Finding | None:
    """How far vectors and cue are from flow in notebook 06; no interval is kept of it."""
    record = load("06_ablations", profile)
    if record is None:
        return None
    error = record.rows.set_index("variant")["epe_px"]
    vectors, cue = error[MOTION], error[ADV]
    return Finding(_data(record), f"end-point error: vectors {vectors:.2f} px, cue {cue:.2f} px")


def times(profile: str, slow: str, quick: str, total: str) -> Finding | None:
    """How many times as long one method takes as another, batch 1, its quartiles' widest range.

    ``low`` and ``high`` are this ratio's own; the claim says what it must be compared with.
    """
    record = load("07_speed", profile)
    if record is None:
        return None
    rows = record.rows.query("table == '3a' and batch == 1").set_index("method")
    if not {slow, quick} <= set(rows.index):
        return None
    (a, a_low, a_high), (b, b_low, b_high) = (
        rows.loc[method, [f"{total}{side}_ms" for side in ("", "_lower", "_upper")]]
        for method in (slow, quick)
    )
    low, high = float(a_low / b_high), float(a_high / b_low)
    both = " / ".join(f"{ms:,.0f}" if ms >= 1000 else f"{ms:.3g}" for ms in (a, b))
    text = f"{both} ms = {a / b:.3g} [{low:.3g}, {high:.3g}] times"
    machine = record.machine["gpu"] if record.extra["device"] == "cuda" else record.machine["cpu"]
    return Finding(f"{machine} ({record.machine['cores']} cores)", text, low, high)


def at_least(least: float, found: Finding | None) -> Finding | None:
    """The finding as one of a claim that its ratio is above ``least``."""
    return found and replace(found, low=found.low - least, high=found.high - least)


def at_most(most: float, found: Finding | None) -> Finding | None:
    """The finding as one of a claim that its ratio is below ``most``."""
    return found and replace(found, low=most - found.high, high=most - found.low)


def share_of_pwc() -> Finding:
    """The generator's multiply-adds beside those of PWC-Net's estimator: counted, so exact."""
    shapes = (1, 2, 224, 224), (1, 3, 224, 224)
    own, large = (
        models.count_macs(models.DenseGenerator(models.GeneratorConfig(widths)), *shapes) / 1e9
        for widths in (models.GeneratorConfig().widths, (128, 128, 96, 64, 32))
    )
    share = own / large
    text = f"{own:.4f} / {large:.2f} GMAC = {share:.2%}"
    return Finding("224 x 224, counted", text, 0.01 - share, 0.01 - share)
