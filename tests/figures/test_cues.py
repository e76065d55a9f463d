import matplotlib.pyplot as plt
import numpy as np
import pytest

from dmclib import figures, flow

pytestmark = pytest.mark.usefixtures("house_style")

SIZE = 96


@pytest.fixture
def row():
    """A square of 40 px moves 4 px right; the vectors miss a part of it and have a stray block."""
    truth = np.zeros((2, SIZE, SIZE), np.float32)
    truth[0, 40:80, 40:80] = 4
    vectors = truth.copy()
    vectors[0, 40:56, 40:56] = 0  # a block at the edge that stands still
    vectors[1, 2:18, 2:18] = 3  # a block in the background that moves
    return {
        "rgb": np.zeros((SIZE, SIZE, 3), np.uint8),
        "flow": truth,
        "vectors": vectors,
        "residual": np.zeros((3, SIZE, SIZE), np.int16),
        "cue_mse": (vectors + truth) / 2,
        "cue_adv": truth,
    }


def words(fig):
    return " ".join(text.get_text() for text in fig.subfigs[1].texts).replace("\n", " ")


def test_the_windows_lie_where_a_stray_block_vanished_and_where_an_edge_came_right(row):
    noise, edge = figures.improved_windows(row["vectors"], row["cue_adv"], row["flow"])

    assert (noise.kind, edge.kind) == ("noise", "edge")
    assert 0 <= noise.x <= 2  # the stray block lies within it
    assert 0 <= noise.y <= 2
    assert edge.y + 12 == 43  # its middle in the band, whose last row is 43
    assert 32 <= edge.x <= 40
    # Of the 24 x 24 px, 16 x 16 err by 3 px, or 15 x 16 by 4.
    assert noise.squared_error(row["vectors"], row["flow"]) == pytest.approx(9 * 256 / 576)
    assert edge.squared_error(row["vectors"], row["flow"]) == pytest.approx(16 * 240 / 576)
    assert noise.squared_error(row["cue_adv"], row["flow"]) == 0


def test_nothing_is_marked_where_the_cue_is_no_nearer_to_flow(row):
    assert figures.improved_windows(row["vectors"], row["vectors"], row["flow"]) == []
    assert figures.improved_windows(row["cue_adv"], row["vectors"], row["flow"]) == []
    almost = row["vectors"] + 0.1 * (row["flow"] - row["vectors"])  # a fifth of the squared error
    assert figures.improved_windows(row["vectors"], almost, row["flow"]) == []


def test_one_kind_is_marked_where_only_that_improved(row):
    cue = row["vectors"].copy()
    cue[1, :20, :20] = 0
    (only,) = figures.improved_windows(row["vectors"], cue, row["flow"])
    assert only.kind == "noise"


def test_a_background_whose_vectors_agree_has_no_noise_to_vanish(row):
    row["vectors"][0, :30] = 1  # wrong by a pixel, all alike
    row["vectors"][1, :30] = 0
    row["vectors"][:, 30:] = row["flow"][:, 30:]
    marks = figures.improved_windows(row["vectors"], row["flow"], row["flow"])
    assert all(mark.y + 24 > 30 for mark in marks)  # at least a row of others lies within


def test_figure_5_has_a_row_per_clip_and_titles_that_a_stranger_understands(row):
    fig = figures.cue_panels({"best": row, "worst": row}, full_colour_px=3)

    panels, wheel = np.array(fig.axes[:-1]).reshape(2, 6), fig.axes[-1]
    assert [ax.get_title().replace("\n", " ") for ax in panels[0]] == [
        "decoded picture",
        "optical flow (exact)",
        "motion vectors",
        "residual",
        "DMC without adversarial loss",
        "DMC",
    ]
    assert [ax.get_ylabel() for ax in panels[:, 0]] == ["best", "worst"]
    for ax, name in zip(panels[1], row, strict=True):
        if row[name].shape[0] == 2:
            expected = flow.flow_to_rgb(row[name], full_colour_px=3)
            np.testing.assert_array_equal(ax.get_images()[0].get_array(), expected)
    assert wheel.texts[-1].get_text() == "3 px"
    assert plt.get_fignums() == []


def test_squares_are_drawn_on_vectors_and_cues_with_the_error_of_each(row):
    fig = figures.cue_panels({"best": row}, full_colour_px=3)

    marked = dict(zip(row, fig.axes, strict=False))
    assert [len(ax.patches) for ax in marked.values()] == [0, 0, 2, 0, 2, 2]
    solid, dashed = marked["vectors"].patches
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    assert solid.get_width() == solid.get_height() == 24
    assert solid.get_xy() == marked["cue_adv"].patches[0].get_xy()
    assert marked["vectors"].get_xlabel() == "noise 4.00\nedge 6.67"
    assert marked["cue_mse"].get_xlabel() == "noise 1.00\nedge 1.67"  # half the error
    assert marked["cue_adv"].get_xlabel() == "noise 0.00\nedge 0.00"
    assert "noise vanishes" in words(fig)
    assert "px²" in words(fig)


def test_without_an_improvement_there_are_neither_squares_nor_words_about_them(row):
    row["cue_mse"] = row["cue_adv"] = row["vectors"]
    fig = figures.cue_panels({"worst": row}, full_colour_px=3)
    assert not any(ax.patches for ax in fig.axes[:-1])
    assert "squares" not in words(fig)


def test_panels_and_letters_are_large_enough_on_a_page(row):
    fig = figures.cue_panels({"best": row}, full_colour_px=3)
    fig.draw_without_rendering()
    width = fig.get_figwidth()
    assert all(ax.get_window_extent().width / fig.dpi >= 1.35 for ax in fig.axes[:6])
    sizes = [ax.title.get_fontsize() for ax in fig.axes[:6]]
    sizes += [ax.xaxis.label.get_fontsize() for ax in fig.axes[2:6:2]]
    sizes += [text.get_fontsize() for text in [*fig.subfigs[1].texts, fig.axes[-1].texts[-1]]]
    assert min(sizes) * 7 / width >= 7.99  # points, once a page of 7 inches shrinks it


def test_other_columns_are_their_own_titles_and_an_estimate_is_not_called_exact(row):
    fig = figures.cue_panels({"clip": {"tvl1": row["flow"], "cue": row["flow"]}}, full_colour_px=3)
    assert [ax.get_title() for ax in fig.axes[:2]] == ["optical flow\n(TV-L1)", "cue"]
