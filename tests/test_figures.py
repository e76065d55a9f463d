import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dmclib import codec, figures, flow, paths


@pytest.fixture(autouse=True)
def _style():
    with plt.rc_context():
        figures.use_house_style()
        yield


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
    fig = figures.packet_sizes([900, 100], [True, False])

    assert figures.save(fig, "01_packets", "smoke") is fig
    folder = tmp_path / "smoke"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}  # no partial file either
    assert sorted(first) == ["01_packets.pdf", "01_packets.png"]
    assert first["01_packets.png"].startswith(b"\x89PNG")
    assert first["01_packets.pdf"].startswith(b"%PDF")
    assert b"CreationDate" not in first["01_packets.pdf"]
    assert b"Software" not in first["01_packets.png"]

    figures.save(figures.packet_sizes([900, 100], [True, False]), "01_packets", "smoke")
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


def test_packets_of_both_kinds_are_drawn_in_their_places():
    fig = figures.packet_sizes([5000, 1000, 2000, 6000], [True, False, False, True])
    key, predicted = fig.axes[0].containers
    assert [bar.get_center()[0] for bar in key] == [0, 3]
    assert [bar.get_height() for bar in predicted] == [1, 2]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [
        "I-frames: median 5.5 kB",
        "P-frames: median 1.5 kB",
    ]


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
    fig = figures.training_curves(log, ["loss", "MSE"])

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
    fig = figures.accuracy_bars(rows, chance=0.1, title="test frames")
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


def test_the_papers_points_are_hollow_and_ours_are_filled():
    rows = pd.DataFrame(
        [
            ("HMDB-51", "CoViAR", 0.68, 59.1, True),
            ("HMDB-51", "CoViAR + TV-L1", 75.0, 63.1, True),
            ("HMDB-51", "CoViAR", 4.0, 59.0, False),
            ("UCF-101", "CoViAR", 0.68, 90.4, True),
            ("UCF-101", "CoViAR + TV-L1", 75.0, 91.5, True),
        ],
        columns=["dataset", "method", "ms", "accuracy", "reported"],
    )
    fig = figures.accuracy_speed(rows, band=("CoViAR", "CoViAR + TV-L1"))

    assert titles(fig) == ["HMDB-51", "UCF-101"]
    assert all(ax.get_xscale() == "log" for ax in fig.axes)
    paper, _, ours = fig.axes[0].lines
    assert paper.get_markerfacecolor() == "white"
    assert ours.get_markerfacecolor() == ours.get_color() == paper.get_color()
    band = fig.axes[0].patches[0]
    assert (band.get_y(), band.get_height()) == pytest.approx((59.1, 4.0))
    assert {text.get_text() for text in fig.legends[0].get_texts()} == {
        "CoViAR (paper)",
        "CoViAR (ours)",
        "CoViAR + TV-L1 (paper)",
        "from CoViAR to CoViAR + TV-L1",
    }
