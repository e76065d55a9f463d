import itertools

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from dmclib import figures
from dmclib.figures import diagrams

DRAWN = {"Figure 2": diagrams.pipelines, "Figure 3": diagrams.training}
each = pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)


pytestmark = pytest.mark.usefixtures("house_style")


def texts(fig):
    """What is written, each with its box on the page in pixels."""
    legend = fig.axes[0].get_legend()
    written = [*fig.axes[0].texts, *(legend.get_texts() if legend else [])]
    return [(text.get_text(), text.get_window_extent()) for text in written]


def arrows(fig):
    return [patch for patch in fig.axes[0].patches if isinstance(patch, FancyArrowPatch)]


def boxes(fig):
    return [patch for patch in fig.axes[0].patches if isinstance(patch, FancyBboxPatch)]


@each
def test_text_is_readable_in_a_column_of_half_the_page(draw):
    fig = draw()
    assert fig.get_figwidth() == figures.PAGE_WIDTH
    assert min(text.get_size() for text in fig.axes[0].texts) * 0.5 >= 5


@each
def test_no_text_lies_on_another_or_leaves_the_page(draw):
    fig = draw()
    fig.draw_without_rendering()
    found = texts(fig)
    for (one, a), (other, b) in itertools.combinations(found, 2):
        assert not a.overlaps(b), (one, other)
    for name, box in found:
        assert fig.bbox.contains(box.x0, box.y0), name
        assert fig.bbox.contains(box.x1, box.y1), name


@each
def test_every_word_in_a_box_fits_it(draw):
    fig = draw()
    fig.draw_without_rendering()
    for box in boxes(fig):
        outer = box.get_window_extent()
        for name, inner in texts(fig):
            middle = (inner.x0 + inner.x1) / 2, (inner.y0 + inner.y1) / 2
            if outer.contains(*middle):
                assert outer.x0 <= inner.x0 and inner.x1 <= outer.x1, name  # noqa: PT018
                assert outer.y0 <= inner.y0 and inner.y1 <= outer.y1, name  # noqa: PT018


@each
def test_no_arrow_runs_through_a_word(draw):
    fig = draw()
    fig.draw_without_rendering()
    for arrow in arrows(fig):
        line = arrow.get_transform().transform(arrow.get_path().vertices[:3])  # without its head
        for name, box in texts(fig):
            assert not Path(line).intersects_bbox(box), name


@each
def test_it_is_not_left_open(draw):
    draw()
    assert plt.get_fignums() == []


def test_figure_2_has_the_three_pipelines_and_only_the_third_has_no_slow_step():
    fig = diagrams.pipelines()
    written = [name for name, _ in texts(fig)]
    assert [name[:3] for name in written if name.startswith("(")] == ["(a)", "(b)", "(c)"]
    assert written.count("fusion") == 3
    assert written.count("ResNet-18") == 3 + 3  # b: vectors, residual, flow; c: the cue instead
    assert written.count("ResNet-152") == 2

    third = next(text for text in fig.axes[0].texts if text.get_text().startswith("(c)"))
    slow = [box for box in boxes(fig) if box.get_linestyle() == "--"]
    assert len(slow) == 4  # decoder and flow method, twice
    assert all(box.get_y() > third.get_position()[1] for box in slow)


def test_figure_3_says_which_step_moves_what():
    written = [name for name, _ in texts(diagrams.training())]
    assert written.count("moves in step 2") == 2  # generator and classifier
    assert written.count("moves in step 1") == 1  # the discriminator
    losses = [name for name in written if name.startswith("$L")]
    assert len(losses) == 3
    (steps,) = (name for name in written if "(eq. 2)" in name)
    first, second = steps.split("\n")
    assert "L^D" in first and "L^G" not in first  # noqa: PT018
    assert "L^G" in second and "(eq. 4)" in second  # noqa: PT018
