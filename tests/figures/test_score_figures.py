import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from dmclib.figures import charts


def weights(accuracy, best):
    return {
        "mv": [0, 1],
        "dmc": [0, 1, 2],
        "accuracy": accuracy,
        "authors": {"mv": 1, "dmc": 1},
        "best_on_test": best,
    }


def test_weight_maps_share_a_scale_that_starts_at_the_authors_weights():
    maps = {
        "one": weights([[0.1, 0.2, 0.3], [0.2, 0.5, 0.51]], {"mv": 1, "dmc": 2}),
        "two": weights([[0.9, 0.9, 0.92], [0.9, 0.9, 0.9]], {"mv": 0, "dmc": 2}),
    }
    fig = charts.weight_maps(maps)
    one, two, bar = fig.axes

    first, second = (ax.get_images()[0] for ax in (one, two))
    np.testing.assert_allclose(first.get_array()[1], [-30, 0, 1])
    assert first.get_clim() == second.get_clim() == pytest.approx((-3, 2))
    assert "points" in bar.get_ylabel()
    assert [ax.get_title() for ax in (one, two)] == ["one: highest +1.00", "two: highest +2.00"]
    # Half a cell round each weight, so that a mark stands in the middle of its cell.
    assert first.get_extent() == [-0.5, 2.5, -0.5, 1.5]
    authors, best = two.lines
    assert (authors.get_xdata()[0], authors.get_ydata()[0]) == (1, 1)
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, 0)
    assert "not a result" in fig.legends[0].get_texts()[1].get_text()


def test_classes_stand_in_order_with_what_they_gain():
    rows = pd.DataFrame(
        [("ride_bike", 0.1, 0.0, 0.2), ("sit", 0.0, 0.0, 0.0), ("run", -0.05, -0.1, -0.06)],
        columns=["class", "gain", "low", "high"],
    )
    fig = charts.class_gains(rows, title="a against b")
    (ax,) = fig.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["ride bike", "sit", "run"]
    gained, level, lost = ax.containers
    assert [c[0].get_ydata().tolist() for c in (gained, level, lost)] == [[10], [0], [-5]]
    ((_, low), (_, high)) = gained[2][0].get_segments()[0]
    assert (low, high) == pytest.approx((0, 20))
    assert len({c[0].get_color() for c in (gained, level, lost)}) == 3


def test_confusions_are_shares_of_the_class_that_it_is():
    fig = charts.confusion_map(["draw_sword", "sword"], np.array([[8, 1], [5, 90]]), [10, 100])
    ax, bar = fig.axes
    np.testing.assert_allclose(ax.get_images()[0].get_array(), [[80, 10], [5, 90]])
    assert ax.get_images()[0].get_clim() == (0, 100)
    assert [text.get_text() for text in ax.texts] == ["80", "10", "5", "90"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["draw sword", "sword"]
    assert bar.get_ylabel() == "videos of the class (%)"
