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


def foot(fig):
    """The text below the panels, its lines joined."""
    return " ".join(text.get_text() for text in fig.subfigs[1].texts).replace("\n", " ")


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

    assert titles(fig) == ["decoded picture", "motion vectors", "flow"]
    assert "full colour = 8 px per frame" in foot(fig)
    for ax, field in zip(fig.axes[1:3], fields.values(), strict=True):
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
    *panels, _ = fig.axes  # and the wheel
    assert [len(ax.get_images()) for ax in panels] == [1, 1, 1, 0, 1, 1, 0, 1, 1]
    assert "full colour = 8 px" in foot(fig)
    assert "±64 grey levels" in foot(fig)


def test_accumulated_motion_stands_under_plain_motion_of_the_same_frame():
    plain, accumulated = [compressed(2), compressed(3)], [compressed(4), compressed(9)]
    fig = figures.accumulation(plain, accumulated, full_colour_px=20)
    grid = np.array(fig.axes[:-1]).reshape(5, 2)
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


def test_error_maps_share_one_scale_and_say_the_mean_of_each():
    frame = compressed(4)
    fields = {f"method {k}": frame.motion + k for k in range(5)}
    fig = figures.error_maps(frame.rgb, fields, frame.motion, worst_px=3)

    *maps, bar = fig.axes
    assert titles(fig)[:3] == ["decoded picture", "method 0\n0.00 px", "method 1\n1.41 px"]
    assert len(titles(fig)) == 6
    assert len(maps) == 8  # two rows of four, the last two panels empty
    for k, ax in enumerate(maps[1:6]):
        np.testing.assert_allclose(shown(ax), k * np.sqrt(2), rtol=1e-6)
        assert ax.get_images()[0].get_clim() == (0, 3)
    assert not maps[6].get_images()
    assert "px per frame" in bar.get_ylabel()


def test_the_wheel_has_the_colours_of_the_panels_and_the_length_of_full_colour():
    frame = compressed(4)
    fig = figures.motion_comparison(frame.rgb, {"flow": frame.motion}, full_colour_px=4)

    wheel = fig.axes[-1]
    picture = shown(wheel)
    assert [text.get_text() for text in wheel.texts] == ["", "4 px"]
    middle = len(picture) // 2
    assert picture[middle, middle].tolist() == [255, 255, 255]
    assert picture[middle, -1].tolist() == [255, 0, 0]  # right: as the panel, which moves right
    assert shown(fig.axes[1])[0, 0].tolist() == [255, 0, 0]
    assert picture[-1, middle].tolist() == [128, 255, 0]  # down is drawn below
    left, right, bottom, top = wheel.get_images()[0].get_extent()
    assert (left, right, bottom, top) == (-4, 4, 4, -4)
