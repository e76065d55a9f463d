import matplotlib

matplotlib.use("Agg")

import pandas as pd
import pytest

from dmclib.figures import charts


def test_a_methods_parts_stand_end_to_end_and_its_total_is_printed():
    parts = pd.DataFrame(
        [("slow", "flow", 90.0), ("slow", "network", 10.0), ("quick", "network", 5.0)],
        columns=["method", "part", "part_ms"],
    )
    whole, zoomed = charts.time_shares(parts, zoom_ms=20).axes
    bars = [(bar.get_x(), bar.get_width(), round(bar.get_y() + 0.4)) for bar in whole.patches]
    assert bars == [(0, 90, 0), (90, 10, 0), (0, 5, 1)]
    assert [text.get_text().strip() for text in whole.texts] == ["100 ms", "5 ms"]
    assert [label.get_text() for label in whole.get_yticklabels()] == ["slow", "quick"]
    assert zoomed.get_xlim() == (0, 20)
    # One part has one colour, whichever method it is in.
    assert whole.patches[1].get_facecolor() == whole.patches[2].get_facecolor()


def test_every_axis_has_its_panel_and_every_method_one_colour():
    rows = pd.DataFrame(
        [
            {"axis": axis, "x": x, "method": method, "ms": x * k, "lower_ms": x, "upper_ms": 9.0}
            for axis in ("frames", "batch")
            for k, method in enumerate(["a", "b"], start=1)
            for x in (1, 4)
        ]
    )
    labels = {"frames": ("frames", "ms a video"), "batch": ("batch", "ms a frame")}
    fig = charts.cost_curves(rows, labels)
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in fig.axes] == list(labels.values())
    first, second = (ax.get_lines() for ax in fig.axes)
    assert [line.get_color() for line in first] == [line.get_color() for line in second]
    assert list(first[1].get_ydata()) == [2, 8]
    assert fig.axes[0].get_yscale() == "log"


@pytest.mark.parametrize("count", [8, 14])
def test_many_parts_are_told_apart_by_hatching(count):
    parts = pd.DataFrame({"method": "m", "part": [f"p{n}" for n in range(count)], "part_ms": 1.0})
    fig = charts.time_shares(parts, zoom_ms=5)
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in fig.axes[0].patches}
    assert len(looks) == count
