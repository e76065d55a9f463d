"""Every claim of the paper, what was found here, and a verdict by one rule.

Everything is read from ``results``: the paper's numbers from ``results/paper/reported.yaml``, the
authors' scores from ``results/released``, ours from ``results/<profile>``. The rule
(:attr:`Finding.verdict`) looks at the 95 % interval of a difference that the paper says is
positive. Where only two separate intervals are kept, the difference's is as wide as they allow. A
number without an interval is shown and not judged.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from dmclib import models, paths, results
from dmclib.evaluation import WHOLE
from dmclib.experiment import ADV, CLS, FLOW, LONGER, MOTION, MSE, SINGLE_FRAME

NOT_TESTED, NOT_MEASURED = "not tested here", "not measured"
# Profiles whose results are kept with the suite.
OURS = ("laptop", "weizmann", "real", "ut-interaction", "gpu")
# As the released scores' tables name them.
_WITHOUT_ADV, _FUSED = "CoViAR + DMC (cls + MSE)", "CoViAR + DMC (cls + MSE + adv)"


@dataclass(frozen=True)
class Finding:
    """What was found about one claim on one data set or machine."""

    data: str  # the data set or machine
    text: str  # the numbers, with n
    low: float | None = None  # interval of what the claim says is above zero; None: no interval
    high: float | None = None
    comparable: bool = True  # with what the paper measured

    @property
    def verdict(self) -> str:
        """Supported where the interval lies above zero, contradicted where it lies below."""
        if not self.comparable:
            return "not comparable here"
        if self.low is None or self.high is None:
            return "shown, not judged"
        if self.low > 0:
            return "supported"
        return "contradicted" if self.high < 0 else "no difference seen"

    @property
    def moves(self) -> str:
        """The verdict of a difference that nobody claims: better, worse or none seen."""
        return {"supported": "better", "contradicted": "worse"}.get(self.verdict, self.verdict)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, and how to find what speaks for or against it."""

    says: str  # in our words
    where: str  # in the paper
    paper: str  # its number
    notebooks: str = ""  # that compute our number
    released: Callable[[], Finding | None] = lambda: None
    ours: Callable[[str], Finding | None] = lambda profile: None


def table(profiles: Sequence[str]) -> pd.DataFrame:
    """Every claim in one row; ours are the results of these profiles, where they have the file.

    Columns are ``claim``, ``where``, ``paper``, ``released scores``, ``ours``, ``verdict``, which
    names the data of each finding, and ``command``, all text.
    """
    rows = []
    for claim in claims():
        released = [finding for finding in [claim.released()] if finding]
        # What is counted is the same in every profile, and is shown once.
        ours = dict.fromkeys(finding for profile in profiles if (finding := claim.ours(profile)))
        verdicts: dict[str, list[str]] = {}
        for finding in (*released, *ours):
            verdicts.setdefault(finding.verdict, []).append(finding.data)
        summary = "; ".join(f"{verdict}: {', '.join(data)}" for verdict, data in verdicts.items())
        command = f"dmc reproduce --only {claim.notebooks.replace(' ', '')}"
        row = {"claim": claim.says, "where": claim.where, "paper": claim.paper}
        row |= {"released scores": _texts(released), "ours": _texts(ours)}
        row |= {"verdict": summary or NOT_TESTED, "command": command if claim.notebooks else ""}
        rows.append(row)
    return pd.DataFrame(rows)


def to_markdown(table: pd.DataFrame) -> str:
    """What :func:`table` returns, as narrow as README shows it: one finding per line."""
    narrow = table.replace("; ", "<br>", regex=True)
    narrow["claim"] += "<br>*" + narrow.pop("where") + "*"
    narrow["command"] = narrow["command"].replace("(.+)", r"`\1`", regex=True)
    return results.to_markdown(narrow)


def claims() -> list[Claim]:
    """The paper's claims, in the order of its tables; numbers are looked up, none is typed."""
    whole = results.reported("table_4").set_index("method")
    loss = results.reported("section_4_3").set_index("losses")["hmdb51"]
    time = results.reported("table_3a").set_index("method")
    macs = results.reported("table_1").set_index("network")["gflops"]
    ms = results.reported("table_3b").set_index("generator")["with_cls_ms"]

    def gain(better: str, worse: str, key: str) -> str:
        return _points(whole.loc[better, key], whole.loc[worse, key])

    def released(word: str, better: str, worse: str) -> Callable[[], Finding | None]:
        return lambda: compared(word, "released", better, worse)

    def ours(name: str, better: str, worse: str) -> Callable[[str], Finding | None]:
        return lambda profile: compared(name, profile, better, worse)

    dmc, pwc = "DMC-Net (ResNet-18)", "PWC-Net (ResNet-18) + CoViAR"
    own, other = macs["DMC generator"], macs["DMC generator (PWC-Net)"]
    slow, coviar, fast = (
        time.loc[name] for name in ("two-stream BN-Inception", "CoViAR", "DMC-Net")
    )
    # fmt: off
    return [
        Claim("DMC-Net is better than CoViAR, HMDB-51", "Table 4",
              f"{gain(dmc, 'CoViAR', 'hmdb51')} (4.3: {loss['cls + MSE + adv']})", "05, 10",
              released("hmdb51", _FUSED, "CoViAR"),
              ours("05_recognition", "CoViAR + DMC", "CoViAR: frame + vectors + residual")),
        Claim("DMC-Net is better than CoViAR, UCF-101 (released without adv)", "Table 4",
              gain(dmc, "CoViAR", "ucf101"), "10",
              released("ucf101", _WITHOUT_ADV, "CoViAR")),
        Claim("DMC-Net is better than CoViAR, Kinetics-n50", "Figure 4", "drawn, not printed"),
        Claim("CoViAR + flow is better than DMC-Net, HMDB-51", "Figure 4", "drawn, not printed",
              "05, 10", released("hmdb51", "CoViAR + flow", _FUSED),
              ours("05_recognition", "CoViAR + flow", "CoViAR + DMC")),
        Claim("CoViAR + flow is better than DMC-Net, UCF-101 (released without adv)", "Figure 4",
              "drawn, not printed", "10",
              released("ucf101", "CoViAR + flow", _WITHOUT_ADV)),
        Claim("Flow is more discriminative than motion vectors", "section 1", "no number", "06, 10",
              released("hmdb51", "TV-L1 flow", "motion vectors"),
              ours("06_ablations", FLOW, MOTION)),
        Claim("The cue is more discriminative than the vectors it is made from", "section 3.2",
              "no number", "06", ours=ours("06_ablations", ADV, MOTION)),
        Claim("Flow, which teaches it, is more discriminative than the cue", "section 4.3",
              "no number", "06", ours=ours("06_ablations", FLOW, ADV)),
        Claim("The cue is less noisy and sharper than the vectors, nearer to flow",
              "section 4.3, Figure 5", "no number", "06", ours=error_against_flow),
        Claim("DMC-Net is better than single decoded frames, HMDB-51", "Table 4, section 4.6",
              gain(dmc, "ResNet-152", "hmdb51"), "06, 10",
              released("hmdb51", _FUSED, "I-frames"),
              ours("06_ablations", ADV, SINGLE_FRAME)),
        Claim("Reconstruction adds to the class loss", "section 4.3",
              _points(loss["cls + MSE"], loss["cls"]), "06",
              ours=ours("06_ablations", MSE, CLS)),
        Claim("The adversarial loss adds to both", "section 4.3",
              _points(loss["cls + MSE + adv"], loss["cls + MSE"]), "06, 10",
              released("hmdb51", _FUSED, _WITHOUT_ADV),
              ours("06_ablations", ADV, LONGER)),
        Claim("DMC-Net is better than PWC-Net + CoViAR, HMDB-51", "Table 4, section 4.6",
              gain(dmc, pwc, "hmdb51")),
        Claim("DMC-Net is better than PWC-Net + CoViAR, UCF-101", "Table 4, section 4.6",
              gain(dmc, pwc, "ucf101")),
        Claim("With I3D it is better still, HMDB-51", "Table 4",
              gain("DMC-Net (I3D)", dmc, "hmdb51")),
        Claim("It adds to I3D on decoded frames, HMDB-51", "Table 4",
              gain("I3D RGB + DMC-Net (I3D)", "I3D RGB", "hmdb51")),
        Claim("The cue needs no crops and no flips at test time", "section 4.2", "no number"),
        Claim("The generator costs less than 1 % of PWC-Net's flow estimator", "Table 1",
              f"{own} / {other} GFLOPs", "09", ours=lambda profile: share_of_pwc()),
        Claim("DMC-Net takes little longer than CoViAR",
              "Table 3 (a), total (S)", f"{fast['total_s_ms']} / {coviar['total_s_ms']} ms", "07",
              ours=lambda profile: times(profile, "DMC-Net", "CoViAR", "total")),
        Claim("DMC-Net is two orders of magnitude faster than methods that use flow",
              "section 1, Table 3 (a), total (C)",
              f"{slow['total_c_ms']} / {fast['total_c_ms']} ms = "
              f"{slow['total_c_ms'] / fast['total_c_ms']:.1f} times", "07",
              ours=lambda profile: times(profile, "CoViAR + TV-L1", "DMC-Net", "total_at_once")),
        Claim("Generator and classifier are faster than PWC-Net and classifier", "Table 3 (b)",
              f"{ms['DMC-Net']} / {ms['PWC-Net']} ms"),
    ]
    # fmt: on


def discrepancies(profiles: Sequence[str]) -> pd.DataFrame:
    """Where the paper's text and the authors' code differ, what we do, and what it is worth.

    The rows are those of RELEASED_CODE.md, section 7, with columns ``paper``, ``released code``,
    ``here`` and ``effect`` (:func:`effect`) in the results of these profiles.
    """
    printed = results.reported("section_4_3").set_index("losses").loc["cls + MSE + adv", "hmdb51"]
    other = results.reported("table_4").set_index("method").loc["DMC-Net (ResNet-18)", "hmdb51"]
    # fmt: off
    rows = [
        (f"DMC-Net on HMDB-51: {printed} (4.3) and {other} (Table 4)", "scores of the run",
         "both shown, neither picked", _effect_of_61_or_62(printed, other)),
        ("residual against the I-frame (3.1)", "against the frame before",
         "as the code; `accumulate=True` gives the text's", effect("input: accumulated", profiles)),
        ("random flips (4.2)", "the flip leaves dx's sign", "the flip negates dx",
         effect("released: flip keeps dx", profiles)),
        ("one full-resolution MSE (eq. 1)", "stage 1 regresses flow averaged over 16x16 blocks",
         "full resolution in every stage", effect("released: block-averaged target", profiles)),
        ("D's step moves D alone (eq. 2)", "D's step moves the classifier too", "as the text",
         effect("released: D step moves classifier", profiles)),
        ("BatchNorm not described", "eps = 0.8, a positional slip", "as the code", NOT_MEASURED),
    ]
    # fmt: on
    return pd.DataFrame(rows, columns=["paper", "released code", "here", "effect"])


def effect(variant: str, profiles: Sequence[str]) -> str:
    """What a variant of notebook 06 is worth against the one that it changes, in points.

    One sentence per data set among the results of these profiles: the gain in single-frame
    accuracy, its interval and the verdict. "not measured" where none holds the variant.
    """
    sentences = []
    for profile in profiles:
        record = load("06_ablations", profile)
        for row in record.extra["differences"] if record else []:
            if variant in (row["a"], row["b"]):
                (plain,) = {row["a"], row["b"]} - {variant}
                gain = difference(record, row, variant)
                sentences.append(f"{gain.data}: {gain.text}, against {plain}: {gain.moves}")
    return "; ".join(sentences) or NOT_MEASURED


def _texts(findings: Iterable[Finding]) -> str:
    return "; ".join(f"{finding.data}: {finding.text}" for finding in findings)


def _points(better: float, worse: float) -> str:
    return f"{better} - {worse} = {better - worse:+.1f}"


def _effect_of_61_or_62(printed: float, other: float) -> str:
    record = load("hmdb51", "released")
    if record is None:
        return NOT_MEASURED
    row = next(row for row in record.extra["means"] if row["method"] == _FUSED)
    mean, low, high = (100 * row[key] for key in ("accuracy", "low", "high"))
    side = "inside" if low <= other <= high else "outside"
    return (
        f"released scores, n = {row['n']}: {mean:.2f} [{low:.1f}, {high:.1f}], "
        f"{mean - printed:+.2f} from the one and {mean - other:+.2f} from the other, which lies "
        f"{side} the interval"
    )


def load(name: str, profile: str) -> results.Record | None:
    """The results file, or None where there is none; a damaged one is an error."""
    exists = (paths.RESULTS / profile / f"{name}.json").is_file()
    return results.load(name, profile) if exists else None


def _data(record: results.Record) -> str:
    """What a record was measured on, in few words: "PuppetActions", "UCF-101"."""
    if record.profile == "released":
        return record.data.rsplit(" of ", 1)[-1]
    return record.data.split(",")[0].removeprefix("VideoFolder ")


def compared(name: str, profile: str, better: str, worse: str) -> Finding | None:
    """By how many points one method of results file ``name`` is better than another.

    Paired on the same clips and seeds where the file keeps that difference, else from the two
    accuracies and their intervals; of profile "released", the means over the splits. None where the
    file or one of the methods is missing.
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
        gain, low, high = 0 - gain, 0 - high, 0 - low  # 0 - 0.0 is 0.0, and -0.0 prints a sign
    n = row if "n" in row else record.rows.set_index("variant").loc[better]
    return _gain(record, gain, low, high, _n(n))


def _gain(record: results.Record, gain: float, low: float, high: float, n: str) -> Finding:
    text = f"{100 * gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], {n}"
    return Finding(_data(record), text, low, high)


def _n(row: dict | pd.Series) -> str:
    """What a row was counted on; for frames, their clips and the seeds."""
    if "clips" not in row:
        return f"n = {int(row['n'])}"
    seeds = int(row["seeds"]) if "seeds" in row else 1
    return f"n = {int(row['clips'])} clips, {seeds} seed{'s' if seeds > 1 else ''}"


def error_against_flow(profile: str) -> Finding | None:
    """By what share the cue is nearer to flow than the vectors are, in notebook 06.

    Older results files hold two errors and no interval: these are shown, not judged.
    """
    record = load("06_ablations", profile)
    if record is None:
        return None
    vectors, cue = record.rows.set_index("variant")["epe_px"][[MOTION, ADV]]
    text = f"end-point error: vectors {vectors:.2f} px, cue {cue:.2f} px"
    for row in record.extra.get("nearness", []):
        if (row["variant"], row["region"]) == (ADV, WHOLE):
            ratio, low, high = (row[f"epe_ratio{end}"] for end in ("", "_low", "_high"))
            text += f", {ratio:.2f} [{low:.2f}, {high:.2f}] of it, {_n(row)}"
            return Finding(_data(record), text, 1 - high, 1 - low)
    return Finding(_data(record), text)


def times(profile: str, slow: str, quick: str, total: str) -> Finding | None:
    """How many times as long one method takes as another at batch 1, with the quartiles' range.

    It is shown and not judged: quartiles of a time are no interval of a mean, and the paper's are a
    GPU's, with which a processor's cannot be compared.
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
    text = f"{both} ms = {a / b:.3g} times, quartiles {low:.3g} to {high:.3g}"
    on_gpu = record.extra["device"] == "cuda"
    machine = record.machine["gpu" if on_gpu else "cpu"]
    return Finding(f"{machine} ({record.machine['cores']} cores)", text, comparable=on_gpu)


def share_of_pwc() -> Finding:
    """The generator's multiply-adds against those of PWC-Net's estimator: counted, so exact."""
    shapes = (1, 2, 224, 224), (1, 3, 224, 224)
    own, large = (
        models.count_macs(models.DenseGenerator(models.GeneratorConfig(widths)), *shapes) / 1e9
        for widths in (models.GeneratorConfig().widths, (128, 128, 96, 64, 32))
    )
    text = f"{own:.4f} / {large:.2f} GMAC = {own / large:.2%}"
    return Finding("224 x 224, counted", text, *[0.01 - own / large] * 2)
