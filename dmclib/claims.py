"""Every claim of the paper beside what was found here, and a verdict by one rule.

All of it is read from ``results``: the paper's numbers from ``results/paper/reported.yaml``, the
authors' scores from ``results/released``, ours from ``results/<profile>``. The rule
(:attr:`Finding.verdict`) looks at the 95 % interval of a difference that the paper says is
positive; where only two separate intervals are kept, the difference's is taken as wide as they
allow. A number without an interval is shown and not judged.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from dmclib import models, paths, results
from dmclib.experiment import ADV, CLS, FLOW, LONGER, MOTION, MSE, SINGLE_FRAME

NOT_TESTED = "not tested here"
# As notebook 05 and the released scores name them.
_WITHOUT_ADV, _FUSED = "CoViAR + DMC (cls + MSE)", "CoViAR + DMC (cls + MSE + adv)"
_OUR_FUSED = "CoViAR + DMC", "CoViAR: frame + vectors + residual"


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


@dataclass(frozen=True)
class Claim:
    """One claim: in our words, where it stands, the paper's number, and where to look."""

    says: str
    where: str
    paper: str
    notebooks: str = ""  # what makes our number
    released: Callable[[], Finding | None] | None = None
    ours: Callable[[str], Finding | None] | None = None  # of a profile


def table(profiles: Sequence[str]) -> pd.DataFrame:
    """Every claim in one row.

    Args:
        profiles: whose results are ours; a profile without the file in question adds nothing.

    Returns:
        Columns ``claim``, ``where``, ``paper``, ``released scores``, ``ours``, ``verdict`` and
        ``command``, all text. The verdict names the data of each finding, so that none is chosen.
    """
    rows = []
    for claim in claims():
        released = _found([claim.released()]) if claim.released else []
        ours = _found(claim.ours(profile) for profile in profiles) if claim.ours else []
        ours = list(dict.fromkeys(ours))  # what is counted is the same in every profile
        verdicts: dict[str, list[str]] = {}
        for finding in (*released, *ours):
            verdicts.setdefault(finding.verdict, []).append(finding.data)
        said = "; ".join(f"{verdict}: {', '.join(data)}" for verdict, data in verdicts.items())
        rows.append(
            {
                "claim": claim.says,
                "where": claim.where,
                "paper": claim.paper,
                "released scores": _told(released),
                "ours": _told(ours),
                "verdict": said or NOT_TESTED,
                "command": f"dmc reproduce --only {claim.notebooks.replace(' ', '')}"
                if claim.notebooks
                else "",
            }
        )
    return pd.DataFrame(rows)


def claims() -> list[Claim]:
    """The paper's claims, in the order of its tables; numbers are looked up, none is typed."""
    whole = results.reported("table_4").set_index("method")
    loss = results.reported("section_4_3").set_index("losses")["hmdb51"]
    time = results.reported("table_3a").set_index("method")
    macs = results.reported("table_1").set_index("network")["gflops"]
    ms = results.reported("table_3b").set_index("generator")["with_cls_ms"]

    def gain(better: str, worse: str, key: str) -> str:
        return _points(whole.loc[better, key], whole.loc[worse, key])

    dmc, pwc = "DMC-Net (ResNet-18)", "PWC-Net (ResNet-18) + CoViAR"
    own, other = macs["DMC generator"], macs["DMC generator (PWC-Net)"]
    slow, coviar, fast = (
        time.loc[name] for name in ("two-stream BN-Inception", "CoViAR", "DMC-Net")
    )
    added = fast["total_s_ms"] / coviar["total_s_ms"]
    # fmt: off
    return [
        Claim("DMC-Net is better than CoViAR, HMDB-51", "Table 4",
              f"{gain(dmc, 'CoViAR', 'hmdb51')} (4.3: {loss['cls + MSE + adv']})", "05",
              lambda: _released("hmdb51", _FUSED, "CoViAR"),
              lambda profile: _apart("05_recognition", profile, *_OUR_FUSED)),
        Claim("DMC-Net is better than CoViAR, UCF-101 (released without adv)", "Table 4",
              gain(dmc, "CoViAR", "ucf101"), "05",
              lambda: _released("ucf101", _WITHOUT_ADV, "CoViAR")),
        Claim("DMC-Net is better than CoViAR, Kinetics-n50", "Figure 4", "drawn, not printed"),
        Claim("CoViAR + flow is better than DMC-Net, HMDB-51", "Figure 4", "drawn, not printed",
              "05", lambda: _released("hmdb51", "CoViAR + flow", _FUSED)),
        Claim("CoViAR + flow is better than DMC-Net, UCF-101 (released without adv)", "Figure 4",
              "drawn, not printed", "05",
              lambda: _released("ucf101", "CoViAR + flow", _WITHOUT_ADV)),
        Claim("Flow is more discriminative than motion vectors", "1", "no number", "06",
              lambda: _apart("hmdb51", "released", "TV-L1 flow", "motion vectors"),
              lambda profile: _apart("06_ablations", profile, FLOW, MOTION)),
        Claim("The cue is more discriminative than the vectors it is made from", "3.2",
              "no number", "06", ours=lambda profile: _paired(profile, ADV, MOTION)),
        Claim("Flow, which teaches it, is more discriminative than the cue", "4.3", "no number",
              "06", ours=lambda profile: _paired(profile, FLOW, ADV)),
        Claim("The cue is less noisy and sharper than the vectors, nearer to flow",
              "4.3, Figure 5", "no number", "06", ours=_error_against_flow),
        Claim("DMC-Net is better than single decoded frames, HMDB-51", "Table 4, 4.6",
              gain(dmc, "ResNet-152", "hmdb51"), "06",
              lambda: _apart("hmdb51", "released", _FUSED, "I-frames"),
              lambda profile: _apart("06_ablations", profile, ADV, SINGLE_FRAME)),
        Claim("Reconstruction adds to the class loss", "4.3",
              _points(loss["cls + MSE"], loss["cls"]), "06",
              ours=lambda profile: _paired(profile, MSE, CLS)),
        Claim("The adversarial loss adds to both", "4.3",
              _points(loss["cls + MSE + adv"], loss["cls + MSE"]), "05, 06",
              lambda: _released("hmdb51", _FUSED, _WITHOUT_ADV),
              lambda profile: _paired(profile, ADV, LONGER)),
        Claim("DMC-Net is better than PWC-Net + CoViAR, HMDB-51", "Table 4, 4.6",
              gain(dmc, pwc, "hmdb51")),
        Claim("DMC-Net is better than PWC-Net + CoViAR, UCF-101", "Table 4, 4.6",
              gain(dmc, pwc, "ucf101")),
        Claim("With I3D it is better still, HMDB-51", "Table 4",
              gain("DMC-Net (I3D)", dmc, "hmdb51")),
        Claim("It adds to I3D on decoded frames, HMDB-51", "Table 4",
              gain("I3D RGB + DMC-Net (I3D)", "I3D RGB", "hmdb51")),
        Claim("The cue needs no crops and no flips at test time", "4.2", "no number"),
        Claim("The generator costs less than 1 % of PWC-Net's flow estimator", "Table 1",
              f"{own} / {other} GFLOPs", "09", ours=lambda profile: _share_of_pwc()),
        Claim(f"DMC-Net takes at most {added:.2f} times as long as CoViAR",
              "Table 3 (a), total (S)", f"{fast['total_s_ms']} / {coviar['total_s_ms']} ms", "07",
              ours=lambda profile: _at_most(added, _times(profile, "DMC-Net", "CoViAR", "total"))),
        Claim("DMC-Net is two orders of magnitude faster than methods that use flow",
              "1, Table 3 (a), total (C)",
              f"{slow['total_c_ms']} / {fast['total_c_ms']} ms = "
              f"{slow['total_c_ms'] / fast['total_c_ms']:.1f} times", "07",
              ours=lambda profile: _at_least(
                  100, _times(profile, "CoViAR + TV-L1", "DMC-Net", "total_at_once"))),
        Claim("Generator and classifier are faster than PWC-Net and classifier", "Table 3 (b)",
              f"{ms['DMC-Net']} / {ms['PWC-Net']} ms"),
    ]
    # fmt: on


def discrepancies() -> pd.DataFrame:
    """Where the paper's text and the authors' code differ, what we do, and what it is worth.

    Returns:
        Columns ``paper``, ``released code``, ``here`` and ``effect``: measured where results hold
        it, and "not measured" elsewhere.
    """
    printed = results.reported("section_4_3").set_index("losses").loc["cls + MSE + adv", "hmdb51"]
    other = results.reported("table_4").set_index("method").loc["DMC-Net (ResNet-18)", "hmdb51"]
    unknown = "not measured"
    # fmt: off
    rows = [
        (f"DMC-Net on HMDB-51: {printed} (4.3) and {other} (Table 4)", "scores of the run",
         "both shown, neither picked", _effect_of_61_or_62(printed, other)),
        ("residual against the I-frame (3.1)", "against the frame before",
         "as the code; `accumulate=True` gives the text's", unknown),
        ("random flips (4.2)", "the flip leaves dx's sign", "the flip negates dx", unknown),
        ("one full-resolution MSE (eq. 1)", "stage 1 regresses flow averaged over 16x16 blocks",
         "full resolution in every stage", unknown),
        ("D's step moves D alone (eq. 2)", "D's step moves the classifier too", "as the text",
         unknown),
        ("BatchNorm not described", "eps = 0.8, a positional slip", "as the code", unknown),
    ]
    # fmt: on
    return pd.DataFrame(rows, columns=["paper", "released code", "here", "effect"])


def _found(findings: Iterable[Finding | None]) -> list[Finding]:
    return [finding for finding in findings if finding is not None]


def _told(findings: Sequence[Finding]) -> str:
    return "; ".join(f"{finding.data}: {finding.text}" for finding in findings)


def _points(better: float, worse: float) -> str:
    return f"{better} - {worse} = {better - worse:+.1f}"


def _load(name: str, profile: str) -> results.Record | None:
    """The results file, or None where it was never made; a damaged one is an error."""
    made = (paths.RESULTS / profile / f"{name}.json").is_file()
    return results.load(name, profile) if made else None


def _data(record: results.Record) -> str:
    """What a record was measured on, in few words: "PuppetActions", "UCF-101 (released)"."""
    if record.profile == "released":
        return record.data.rsplit(" of ", 1)[-1]
    return record.data.split(",")[0]


def _difference(record: results.Record, gain: float, low: float, high: float, n: str) -> Finding:
    text = f"{100 * gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], {n}"
    return Finding(_data(record), text, low, high)


def _released(word: str, better: str, worse: str) -> Finding | None:
    """Two fusions of the authors' scores on the same videos of all three test lists."""
    record = _load(word, "released")
    for row in record.extra["differences"] if record else []:
        if row["split"] != "all" or {row["a"], row["b"]} != {better, worse}:
            continue
        interval = [row["gain"], row["low"], row["high"]]
        if row["a"] == worse:
            interval = [-interval[0], -interval[2], -interval[1]]
        return _difference(record, *interval, f"n = {row['n']}")
    return None


def _paired(profile: str, better: str, worse: str) -> Finding | None:
    """Two variants of notebook 06 on the same frames, in points of single-frame accuracy."""
    record = _load("06_ablations", profile)
    for row in record.extra["differences"] if record else []:
        if (row["a"], row["b"]) == (better, worse):
            own = record.rows.set_index("variant").loc[better]
            clips, seeds = int(own["clips"]), int(own["seeds"])
            n = f"n = {clips} clips, {seeds} seed{'s' if seeds > 1 else ''}"
            return _difference(record, row["a - b"], row["low"], row["high"], n)
    return None


def _apart(name: str, profile: str, better: str, worse: str) -> Finding | None:
    """Two accuracies with an interval each: the difference's is as wide as they allow."""
    record = _load(name, profile)
    if record is None:
        return None
    if profile == "released":
        rows = pd.DataFrame(record.extra["means"]).set_index("method")
    else:
        rows = record.rows.set_index("variant")
    if not {better, worse} <= set(rows.index):
        return None
    a, b = rows.loc[better], rows.loc[worse]
    low, high = a["low"] - b["high"], a["high"] - b["low"]
    n = f"{int(a['clips'])} clips" if "clips" in a else int(a["n"])
    return _difference(record, a["accuracy"] - b["accuracy"], low, high, f"n = {n}, not paired")


def _error_against_flow(profile: str) -> Finding | None:
    record = _load("06_ablations", profile)
    if record is None:
        return None
    error = record.rows.set_index("variant")["epe_px"]
    vectors, cue = error[MOTION], error[ADV]
    return Finding(_data(record), f"end-point error: vectors {vectors:.2f} px, cue {cue:.2f} px")


def _times(profile: str, slow: str, quick: str, total: str) -> Finding | None:
    """How many times as long one method takes as another, batch 1, its quartiles' widest range.

    ``low`` and ``high`` are this ratio's own; the claim says what it must be compared with.
    """
    record = _load("07_speed", profile)
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
    times = " / ".join(f"{ms:,.0f}" if ms >= 1000 else f"{ms:.3g}" for ms in (a, b))
    text = f"{times} ms = {a / b:.3g} [{low:.3g}, {high:.3g}] times"
    machine = record.machine["gpu"] if record.extra["device"] == "cuda" else record.machine["cpu"]
    return Finding(f"{machine} ({record.machine['cores']} cores)", text, low, high)


def _at_least(least: float, found: Finding | None) -> Finding | None:
    return found and replace(found, low=found.low - least, high=found.high - least)


def _at_most(most: float, found: Finding | None) -> Finding | None:
    return found and replace(found, low=most - found.high, high=most - found.low)


def _share_of_pwc() -> Finding:
    """The generator's multiply-adds beside those of PWC-Net's estimator: counted, so exact."""
    shapes = (1, 2, 224, 224), (1, 3, 224, 224)
    own, large = (
        models.count_macs(models.DenseGenerator(models.GeneratorConfig(widths)), *shapes) / 1e9
        for widths in (models.GeneratorConfig().widths, (128, 128, 96, 64, 32))
    )
    share = own / large
    text = f"{own:.4f} / {large:.2f} GMAC = {share:.2%}"
    return Finding("224 x 224, counted", text, 0.01 - share, 0.01 - share)


def _effect_of_61_or_62(printed: float, other: float) -> str:
    record = _load("hmdb51", "released")
    if record is None:
        return "not measured"
    row = next(row for row in record.extra["means"] if row["method"] == _FUSED)
    mean, low, high = (100 * row[key] for key in ("accuracy", "low", "high"))
    side = "inside" if low <= other <= high else "outside"
    return (
        f"released scores, n = {row['n']}: {mean:.2f} [{low:.1f}, {high:.1f}], "
        f"{mean - printed:+.2f} from the one and {mean - other:+.2f} from the other, which lies "
        f"{side} the interval"
    )
