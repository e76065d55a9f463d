import matplotlib.pyplot as plt
import numpy as np
import pytest

from dmclib import codec, figures, flow, paths
from dmclib.figures import charts

pytestmark = pytest.mark.usefixtures("house_style")


def compressed(position):
    """A made-up frame, 32x48, whose content moves ``position`` px to the right."""
    motion = np.zeros((2, 32, 48), np.float32)
    motion[0] = position
    return codec.CompressedFrame(
        index=position,
        gop_index=0,
        gop_position=position,
        is_key=position == 0,
        rgb=np.full((32, 48, 3), 10 * position, np.uint8),
        motion=motion,
        residual=np.full((3, 32, 48), position, np.int16),
    )


def titles(fig):
    return [ax.get_title() for ax in fig.axes if ax.get_title()]


def shown(ax):
    return ax.get_images()[0].get_array()


def test_saved_figures_are_whole_undated_and_not_left_open(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "FIGURES", tmp_path)
    fig = charts.packet_sizes([900, 100], [True, False])

    assert figures.save(fig, "01_packets", "smoke") is fig
    folder = tmp_path / "smoke"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}  # no partial file either
    assert sorted(first) == ["01_packets.pdf", "01_packets.png"]
    assert first["01_packets.png"].startswith(b"\x89PNG")
    assert first["01_packets.pdf"].startswith(b"%PDF")
    assert b"CreationDate" not in first["01_packets.pdf"]
    assert b"Software" not in first["01_packets.png"]

    figures.save(charts.packet_sizes([900, 100], [True, False]), "01_packets", "smoke")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert plt.get_fignums() == []


def test_motion_panels_share_one_printed_scale():
    frame = compressed(4)
    fields = {"motion vectors": frame.motion, "flow": frame.motion / 2}
    fig = figures.motion_comparison(frame.rgb, fields, full_colour_px=8)

    assert titles(fig) == ["frame", "motion vectors", "flow"]
    assert "full colour = 8 px per frame" in fig.get_supxlabel()
    for ax, field in zip(fig.axes[1:], fields.values(), strict=True):
        np.testing.assert_array_equal(shown(ax), flow.flow_to_rgb(field, full_colour_px=8))
    with pytest.raises(TypeError, match="full_colour_px"):
        figures.motion_comparison(frame.rgb, fields)


def test_arrows_run_from_source_to_destination_and_rest_has_none():
    motion = np.zeros((2, 32, 48), np.float32)
    motion[:, 16:, 32:] = np.float32([5, -3])[:, None, None]  # one block of 16 moves
    fig = figures.motion_arrows(np.zeros((32, 48, 3), np.uint8), motion)

    (arrows,) = fig.axes[0].collections
    assert arrows.get_offsets().tolist() == [[40 - 5, 24 + 3]]  # its middle is at (40, 24) now
    assert (arrows.U.tolist(), arrows.V.tolist()) == ([5], [-3])
    assert titles(fig)[0].startswith("1 of 6 blocks move")


def test_a_zero_residual_is_mid_grey_and_the_scale_is_printed():
    residual = np.zeros((3, 8, 8), np.int16)
    residual[:, 0, 0], residual[:, 0, 1] = 300, -300
    fig = figures.residual_picture(residual)
    picture = shown(fig.axes[0])
    assert (picture[1:] == 128).all()
    assert (picture[0, 0] == 255).all()
    assert (picture[0, 1] == 0).all()
    assert "±64" in titles(fig)[0]
    size = shown(fig.axes[1])
    assert size[0, 0] == size[0, 1] == 300  # as large with either sign
    assert not size[1:].any()


def test_a_gop_has_a_column_a_frame_and_its_i_frame_no_motion():
    fig = figures.gop_strip([compressed(0), compressed(1), compressed(11)], full_colour_px=8)
    assert titles(fig) == ["I-frame", "P-frame 1", "P-frame 11"]
    assert len(fig.axes) == 9
    assert [len(ax.get_images()) for ax in fig.axes] == [1, 1, 1, 0, 1, 1, 0, 1, 1]
    assert "full colour = 8 px" in fig.get_supxlabel()
    assert "±64 grey levels" in fig.get_supxlabel()


def test_accumulated_motion_stands_under_plain_motion_of_the_same_frame():
    plain, accumulated = [compressed(2), compressed(3)], [compressed(4), compressed(9)]
    fig = figures.accumulation(plain, accumulated, full_colour_px=20)
    grid = np.array(fig.axes).reshape(5, 2)
    for column, (a, b) in enumerate(zip(plain, accumulated, strict=True)):
        for row, field in ((1, a.motion), (2, b.motion)):
            expected = flow.flow_to_rgb(field, full_colour_px=20)
            np.testing.assert_array_equal(shown(grid[row, column]), expected)
    assert [ax.get_ylabel().replace("\n", " ") for ax in grid[:, 0]] == [
        "decoded",
        "motion plain",
        "motion accumulated",
        "residual plain",
        "residual accumulated",
    ]


def test_figure_5_has_a_row_per_example_and_a_column_per_cue():
    frame = compressed(5)
    cues = {"motion vectors": frame.motion, "RGB": frame.rgb, "residual": frame.residual}
    fig = figures.cue_panels({"Cartwheel": cues, "PlayingTabla": cues}, full_colour_px=10)
    assert titles(fig) == ["motion vectors", "RGB", "residual"]
    assert [ax.get_ylabel() for ax in fig.axes[::3]] == ["Cartwheel", "PlayingTabla"]
    assert [shown(ax).shape for ax in fig.axes] == [(32, 48, 3)] * 6
    assert fig.get_supxlabel().count("full colour") == 1


def field(dx, height=40, width=60):
    """A motion field of ``dx`` px to the right everywhere."""
    moved = np.zeros((2, height, width), np.float32)
    moved[0] = dx
    return moved


def test_the_largest_changes_are_found_in_order_and_apart():
    truth, before, after = field(0), field(0), field(0)
    before[0, 5:10, 5:10] = 2  # noise that vanishes
    before[0, 25:30, 40:45] = 4  # more of it
    after[0, 5:10, 50:55] = 3  # noise that comes
    fell_most, fell, rose = figures.error_changes(before, after, truth, count=2, radius=2)

    assert (fell_most.x, fell_most.y, fell_most.change_px) == (42, 27, pytest.approx(-4))
    assert (fell.x, fell.y, fell.change_px) == (7, 7, pytest.approx(-2))
    assert (rose.x, rose.y, rose.change_px) == (52, 7, pytest.approx(3))


def test_windows_do_not_overlap_and_stay_inside():
    random = np.random.default_rng(0)
    before, after = random.normal(size=(2, 2, 30, 20)).astype(np.float32)
    marks = figures.error_changes(before, after, np.zeros_like(before), count=3, radius=3)
    assert [mark.change_px < 0 for mark in marks] == [True] * 3 + [False] * 3
    for k, a in enumerate(marks):
        assert 3 <= a.x < 20 - 3
        assert 3 <= a.y < 30 - 3
        assert all(max(abs(a.x - b.x), abs(a.y - b.y)) > 6 for b in marks[:k])


def test_where_nothing_changed_nothing_is_marked():
    same = field(1)
    assert figures.error_changes(same, same, field(0), count=2, radius=4) == []


def test_circles_are_where_the_error_fell_and_squares_where_it_rose():
    frame = compressed(5)
    cues = {"RGB": frame.rgb, "DMC": frame.motion}
    marks = {"clip": {"DMC": [figures.Mark(10, 12, 4, -0.5), figures.Mark(30, 20, 4, 0.25)]}}
    fig = figures.cue_panels({"clip": cues}, full_colour_px=10, marks=marks)

    picture, cue = fig.axes
    assert not picture.patches
    circle, square = cue.patches
    assert (circle.center, circle.radius) == ((10, 12), 4)
    assert (square.get_xy(), square.get_width(), square.get_height()) == ((26, 16), 8, 8)
    assert cue.get_xlabel() == "fell 0.50\nrose 0.25"
    assert "circle fell most, dashed square rose most" in fig.get_supxlabel()
    assert "full colour = 10 px" in fig.get_supxlabel()
