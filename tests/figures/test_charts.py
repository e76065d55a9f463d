import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dmclib.figures import charts

COVIAR, FLOW = "(a) CoViAR", "(b1) CoViAR + TV-L1"


pytestmark = pytest.mark.usefixtures("house_style")


def titles(fig):
    return [ax.get_title() for ax in fig.axes if ax.get_title()]


@pytest.fixture
def fig():
    """Two panels; the second has no accuracy with flow, and a slower machine."""
    rows = pd.DataFrame(
        [
            ("HMDB-51", COVIAR, 0.68, 59.1, "paper"),
            ("HMDB-51", COVIAR, 0.68, 59.46, "released scores"),
            ("HMDB-51", FLOW, 75.0, 63.12, "released scores"),
            ("timed here", COVIAR, 400.0, 59.46, "released scores"),
        ],
        columns=["panel", "method", "ms", "accuracy", "origin"],
    )
    return charts.accuracy_speed(rows, band=(COVIAR, FLOW))


def test_a_panel_each_on_a_logarithmic_axis_no_shorter_than_the_papers(fig):
    assert [ax.get_title() for ax in fig.axes] == ["HMDB-51", "timed here"]
    for ax in fig.axes:
        assert ax.get_xscale() == "log"
        assert ax.get_xlim()[0] <= 0.1
        assert ax.get_xlim()[1] >= 100
    assert fig.axes[1].get_xlim()[1] > 400
    assert plt.get_fignums() == []


def test_the_papers_points_are_hollow_and_others_filled_and_each_has_its_number(fig):
    paper, released, flow = fig.axes[0].lines
    assert paper.get_markerfacecolor() == "none"
    assert released.get_markerfacecolor() == released.get_color() == paper.get_color()
    assert flow.get_color() != released.get_color()
    assert flow.get_marker() != released.get_marker()  # told apart without colour
    assert [text.get_text() for text in fig.axes[0].texts] == ["59.1", "59.46", "63.12"]


def test_the_band_joins_points_of_one_origin_and_is_left_out_where_one_is_missing(fig):
    (band,) = fig.axes[0].patches
    assert (band.get_y(), band.get_height()) == pytest.approx((59.46, 63.12 - 59.46))
    assert not fig.axes[1].patches


def test_the_legend_says_what_hollow_and_the_band_mean(fig):
    words = [text.get_text() for text in fig.legends[0].get_texts()]
    assert words == [COVIAR, FLOW, "paper", "released scores", "from (a) to (b1)"]


def test_packets_of_both_kinds_are_drawn_in_their_places():
    fig = charts.packet_sizes([5000, 1000, 2000, 6000], [True, False, False, True])
    key, predicted = fig.axes[0].containers
    assert [bar.get_center()[0] for bar in key] == [0, 3]
    assert [bar.get_height() for bar in predicted] == [1, 2]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [
        "I-frames: median 5.5 kB",
        "P-frames: median 1.5 kB",
    ]


def test_training_curves_show_every_seed_and_their_mean():
    log = pd.DataFrame(
        [
            {"stage": stage, "epoch": epoch, "variant": variant, "seed": seed, "loss": seed - epoch}
            for stage, variant in (("1", "flow"), ("2", "cls"), ("2", "cls + MSE"))
            for epoch in range(4)
            for seed in range(3)
        ]
    )
    log["MSE"] = log["loss"].where(log["variant"] == "cls + MSE")
    fig = charts.training_curves(log, ["loss", "MSE"])

    assert titles(fig) == ["1", "2"]
    assert [len(ax.lines) for ax in fig.axes] == [4, 8, 0, 4]  # three seeds and a mean each
    np.testing.assert_array_equal(fig.axes[0].lines[3].get_ydata(), [1, 0, -1, -2])
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["flow", "cls", "cls + MSE"]


def test_accuracies_stand_in_order_with_interval_and_chance():
    rows = pd.DataFrame(
        [("motion vectors", 0.6, 0.5, 0.68, 100), ("flow", 0.8, 0.7, 0.9, 90)],
        columns=["variant", "accuracy", "low", "high", "n"],
    )
    fig = charts.accuracy_bars(rows, chance=0.1, title="test frames")
    ax = fig.axes[0]

    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["motion vectors  (n = 100)", "flow  (n = 90)"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
    (container,) = ax.containers
    assert container[0].get_xdata().tolist() == pytest.approx([60, 80])
    spans = [segment[:, 0].tolist() for segment in container[2][0].get_segments()]
    assert spans == [pytest.approx([50, 68]), pytest.approx([70, 90])]
    assert [text.get_text() for text in ax.texts] == ["60.0", "80.0", "chance"]
    assert not ax.patches  # no bars: the axis need not start at zero


@pytest.fixture
def trade_off():
    rows = [
        ("alpha 1", 0.55, 0.50, 0.60, 1.2, 1.1, 1.4, "alpha"),
        ("motion vectors", 0.46, 0.40, 0.50, 0.7, 0.65, 0.75, "mark"),
        ("alpha 10", 0.57, 0.52, 0.62, 0.8, 0.7, 0.9, "alpha"),
        ("optical flow", 0.80, 0.75, 0.85, 0.0, None, None, "mark"),
        ("alpha 100", 0.57, 0.52, 0.62, 0.8, 0.7, 0.9, "alpha"),  # on top of another
    ]
    names = ("variant", "accuracy", "low", "high", "epe_px", "epe_low", "epe_high", "kind")
    return charts.trade_off([dict(zip(names, row, strict=True)) for row in rows])


def test_a_trade_off_has_a_mark_with_both_intervals_per_variant(trade_off):
    (ax,) = trade_off.axes
    assert "px per frame" in ax.get_xlabel()
    assert ax.get_ylabel() == "accuracy (%)"
    assert len(ax.containers) == 5
    points = [container[0].get_xydata()[0].tolist() for container in ax.containers]
    assert points[1] == pytest.approx([0.7, 46])
    across, up = (bars.get_segments()[0] for bars in ax.containers[1][2])
    assert across[:, 0].tolist() == pytest.approx([0.65, 0.75])
    assert up[:, 1].tolist() == pytest.approx([40, 50])
    exact = ax.containers[3][2][0].get_segments()[0]
    assert exact[:, 0].tolist() == [0, 0]  # no interval


def test_a_line_joins_the_weights_in_their_order_and_other_marks_differ_in_shape(trade_off):
    (ax,) = trade_off.axes
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1.2, 55], [0.8, 57], [0.8, 57]])
    looks = [(c[0].get_marker(), c[0].get_color()) for c in ax.containers]
    assert looks[0] == looks[2] == looks[4]
    assert len(set(looks)) == 3
    assert "weights of reconstruction" in ax.get_title()


def test_labels_of_a_trade_off_do_not_cover_each_other(trade_off):
    (ax,) = trade_off.axes
    assert sorted(text.get_text() for text in ax.texts) == [
        "alpha 1",
        "alpha 10",
        "alpha 100",
        "motion vectors",
        "optical flow",
    ]
    trade_off.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    for k, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:k]) == 0
