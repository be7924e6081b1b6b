"""`synth plot` draws an ECG as it is printed: true millimetres, the usual order of leads, nothing hidden silently."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import write_record
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecglm.synth.cli import run
from ecglm.synth.errors import ECGLMError, SignalError
from ecglm.synth.measure import describe_beat, measure_record
from ecglm.synth.plot import plot_ecg, plot_record, save_figure
from ecglm.synth.plot.layout import GRID_RIGHT, PAGE_WIDTH, TRACE_LEFT, Page, compose
from ecglm.synth.plot.measured import Measured
from ecglm.synth.plot.tracing import Tracing, as_tracing, read_tracing
from ecglm.synth.schema import LEADS
from ecglm.synth.signals import read_record
from ecglm.synth.sources.simulator import simulate

pytest.importorskip("matplotlib")

PT_PER_MM = 72 / 25.4
Points = NDArray[np.float64]


def beats(seconds: float = 10.0, hz: float = 100.0, n_leads: int = 12) -> NDArray[np.float64]:
    """(n_samples, n_leads) in mV: a narrow peak every second, of another height in each lead."""
    time = np.arange(round(seconds * hz)) / hz
    peak = np.exp(-(((time + 0.5) % 1 - 0.5) ** 2) / 0.0004)
    return peak[:, None] * np.linspace(0.4, 1.5, n_leads)


def page_of(ecg: Any, **options: Any) -> Page:
    return compose(as_tracing(ecg), **options)


def drawn(figure: Any, gid: str) -> list[Points]:
    """Points of the lines with this id, in mm from the lower left corner of the sheet."""
    lines = [line for line in figure.axes[0].lines if line.get_gid() == gid]
    return [line.get_transform().transform(line.get_xydata()) / figure.dpi * 25.4 for line in lines]


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def svg_of(figure: Any, folder: Path) -> ElementTree.Element:
    path = folder / "page.svg"
    save_figure(figure, path)
    return ElementTree.fromstring(path.read_text(encoding="utf-8"))


def svg_points(svg: ElementTree.Element, gid: str) -> list[Points]:
    """Unbroken stretches of the curve with this id, in mm from the upper left corner of the sheet."""
    (group,) = [element for element in svg.iter() if element.get("id") == gid]
    (path,) = [element for element in group.iter() if element.tag.endswith("}path")]
    stretches = []
    for part in path.attrib["d"].split("M")[1:]:
        numbers = [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", part)]
        stretches.append(np.array(numbers).reshape(-1, 2) / PT_PER_MM)
    return stretches


# ------------------------------------------------------------------------------------------------------------ geometry


@pytest.mark.parametrize("gain", [10.0, 5.0])
def test_a_millivolt_and_a_second_have_their_length_in_figure_and_file(gain: float, tmp_path: Path) -> None:
    hz = 200
    signal = np.zeros((10 * hz, 1))
    signal[2 * hz : 3 * hz] = 1.0  # from 2 s to 3 s; the median level is 0
    figure = plot_ecg((signal, ["II"], hz), "step", gain=gain)
    (curve,) = drawn(figure, "trace-0")
    (in_file,) = svg_points(svg_of(figure, tmp_path), "trace-0")
    for points in (curve, in_file):
        up, down = np.flatnonzero(np.abs(np.diff(points[:, 1])) > 1)
        assert points[down, 0] - points[up, 0] == pytest.approx(25, abs=0.01)
        assert np.ptp(points[:, 1]) == pytest.approx(gain, abs=0.01)
        assert points[up + 1, 0] - points[0, 0] == pytest.approx(50, abs=0.01)
        assert np.ptp(points[:, 0]) == pytest.approx(250 - 25 / hz, abs=0.01)


def test_the_calibration_pulse_is_one_millivolt_for_200_ms_in_every_row() -> None:
    figure = plot_ecg((beats(), LEADS, 100), "calibrated")
    for number in range(4):
        (pulse,) = drawn(figure, f"calibration-{number}")
        assert np.ptp(pulse[:, 1]) == pytest.approx(10)
        assert pulse[3, 0] - pulse[2, 0] == pytest.approx(5)
        assert pulse[:, 0].max() < TRACE_LEFT


def test_the_grid_is_of_millimetres_and_the_sheet_is_a4(tmp_path: Path) -> None:
    figure = plot_ecg((beats(), LEADS, 100), "grid")
    svg = svg_of(figure, tmp_path)
    assert float(svg.attrib["width"].removesuffix("pt")) == pytest.approx(297 * PT_PER_MM, abs=0.01)
    assert float(svg.attrib["height"].removesuffix("pt")) == pytest.approx(210 * PT_PER_MM, abs=0.01)
    for step in (1, 5):
        lines = svg_points(svg, f"grid-{step}mm")
        upright = [line[0, 0] for line in lines if line[0, 0] == line[1, 0]]
        level = [line[0, 1] for line in lines if line[0, 1] == line[1, 1]]
        assert np.diff(upright) == pytest.approx(step, abs=0.01)
        assert np.abs(np.diff(level)) == pytest.approx(step, abs=0.01)
        assert len(upright) == 275 / step + 1


@pytest.mark.parametrize("dpi", [254, 127])
def test_a_png_has_its_pixels_and_says_how_many_make_an_inch(dpi: int, tmp_path: Path) -> None:
    save_figure(plot_ecg((beats(), LEADS, 100), "pixels"), tmp_path / "page.png", dpi)
    content = (tmp_path / "page.png").read_bytes()
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (round(297 / 25.4 * dpi), round(210 / 25.4 * dpi))
    at = content.index(b"pHYs") + 4
    assert int.from_bytes(content[at : at + 4], "big") == pytest.approx(dpi / 0.0254, abs=1)


# -------------------------------------------------------------------------------------------------------------- layout


def test_twelve_leads_stand_in_four_columns_above_a_rhythm_strip() -> None:
    shuffled = [*LEADS[::-1]]
    page = page_of((beats()[:, ::-1], [name.upper() for name in shuffled], 100))
    names = [page.tracing.leads[cell.lead] for cell in page.cells]
    assert names == [*LEADS, "II"]
    assert [cell.row for cell in page.cells] == [0, 1, 2] * 4 + [3]
    assert [cell.start_s for cell in page.cells] == [0.0] * 3 + [2.5] * 3 + [5.0] * 3 + [7.5] * 3 + [0.0]
    assert [cell.left - TRACE_LEFT for cell in page.cells[::3]] == [0, 62.5, 125, 187.5, 0]
    assert page.tracing.signal.max(axis=0) == pytest.approx(np.linspace(0.4, 1.5, 12)), "each lead with its own curve"
    assert page.notes == ()


def test_columns_go_on_in_time() -> None:
    ramp = np.repeat(np.arange(1000)[:, None] / 1000, 12, axis=1)  # 0.1 mV per second
    page = page_of((ramp, LEADS, 100))
    for cell in page.cells:
        seconds, values = page.values(cell)
        assert (values + cell.level) == pytest.approx((seconds + cell.start_s) / 10)


def test_names_are_printed_in_reading_order() -> None:
    figure = plot_ecg((beats()[:, ::-1], LEADS[::-1], 100), "names")
    found = [text for text in figure.axes[0].texts if text.get_text() in LEADS]
    columns = sorted(found, key=lambda text: (round(text.get_position()[0]), -text.get_position()[1]))
    assert [text.get_text() for text in columns] == ["I", "II", "III", "II", *LEADS[3:]]


@pytest.mark.parametrize(
    ("leads", "seconds", "rows", "shown"),
    [
        (("II",), 10, 1, 10),
        (("II",), 2.5, 1, 2.5),
        (("II",), 60, 6, 60),
        (("II",), 1800, 6, 60),
        (("II", "V5"), 60, 12, 60),
        (("I", "II", "V1"), 60, 12, 40),
        (LEADS[:6], 10, 6, 10),
        (("I", "II", *LEADS[6:]), 10, 3, 10),
        (LEADS, 10.3, 4, 10),
        (LEADS, 30, 6, 30),
        (LEADS, 60, 9, 60),
        ((*LEADS, "V7", "V8", "V9"), 10, 5, 10),
    ],
    ids=lambda value: f"{len(value)} leads" if isinstance(value, tuple) else str(value),
)
def test_rows_and_seconds_for_other_lead_sets_and_lengths(
    leads: tuple[str, ...], seconds: float, rows: int, shown: float
) -> None:
    page = page_of((beats(seconds, n_leads=len(leads)), leads, 100))
    assert len(page.rows) == rows
    assert page.stop_s == shown
    figure = plot_ecg((beats(seconds, n_leads=len(leads)), leads, 100), "length")
    said = f"seconds 0 to {shown:g} of {seconds:g} s" if shown < seconds else f"{seconds:g} s"
    assert any(text.endswith(said) for text in texts(figure))


def test_short_records_show_the_same_seconds_in_all_columns_and_say_so() -> None:
    page = page_of((beats(2.5), LEADS, 100))
    assert {(cell.start_s, cell.stop_s) for cell in page.cells} == {(0.0, 2.5)}
    assert "every column shows the same seconds" in page.notes
    assert {cell.stop_s - cell.start_s for cell in page_of((beats(8), LEADS, 100)).cells} == {2.0, 8.0}


def test_a_longer_rhythm_strip_than_the_columns_is_said() -> None:
    assert page_of((beats(30), LEADS, 100), start_s=5).notes == ("the columns show seconds 5 to 15",)
    assert page_of((beats(30, n_leads=2), LEADS[:2], 100)).notes == ()


def test_a_page_may_begin_later() -> None:
    page = page_of((beats(40), LEADS, 100), start_s=12, seconds=10)
    assert (page.start_s, page.stop_s) == (12, 22)
    assert page.cells[6].start_s == 17
    assert any(
        "seconds 12 to 22 of 40 s" in text for text in texts(plot_ecg((beats(40), LEADS, 100), start_s=12, seconds=10))
    )


@pytest.mark.parametrize(
    ("broken", "expected"), [((), "II"), (("II",), "V1"), (("II", "V1"), "V5"), (LEADS[:8], "V5"), (LEADS, "I")]
)
@pytest.mark.parametrize("value", [0.0, np.nan], ids=["flat", "missing"])
def test_the_rhythm_strip_is_of_a_lead_that_shows_something(
    broken: tuple[str, ...], expected: str, value: float
) -> None:
    signal = beats()
    signal[:, [LEADS.index(lead) for lead in broken]] = value
    page = page_of((signal, LEADS, 100))
    assert page.tracing.leads[page.cells[-1].lead] == expected
    said = "flat where shown" if value == 0 else "not recorded"
    assert [note for note in page.notes if note.startswith(said)] == (
        [f"{said}: {', '.join(broken)}"] if broken else []
    )


@given(
    leads=st.lists(st.sampled_from([*LEADS, "V7", "V8", "V9", "V3R", "X"]), min_size=1, max_size=16, unique=True),
    seconds=st.floats(0.5, 90),
    hz=st.sampled_from([100.0, 128.5, 360.0]),
    gain=st.sampled_from([2.5, 10.0, 40.0]),
    height_mv=st.floats(0.01, 30),
)
@settings(max_examples=60, deadline=None)
def test_any_lead_set_fits_its_page(leads: list[str], seconds: float, hz: float, gain: float, height_mv: float) -> None:
    page = page_of((height_mv * beats(seconds, hz, len(leads)), leads, hz), gain=gain)
    assert {page.tracing.leads[cell.lead] for cell in page.cells} == set(leads)
    assert {cell.row for cell in page.cells} == set(range(len(page.rows)))
    for upper, lower in pairwise(page.rows):
        assert upper.bottom == pytest.approx(lower.top)
    for row in page.rows:
        assert row.bottom + 6 < row.level < row.top - gain, "room for the pulse and for what is below the level"
    for cell in page.cells:
        right = cell.left + 25 * (cell.stop_s - cell.start_s)
        assert TRACE_LEFT <= cell.left < right <= GRID_RIGHT < PAGE_WIDTH
        others = [other for other in page.cells if other.row == cell.row and other.left > cell.left]
        assert all(other.left >= right - 1e-6 for other in others)
    running = [page.cells[number] for number in page.rhythm]
    assert running[0].start_s == 0
    assert running[-1].stop_s == pytest.approx(page.stop_s)
    assert all(one.stop_s == other.start_s for one, other in pairwise(running))


# ---------------------------------------------------------------------------------------------------- nothing is hidden


def test_missing_samples_are_gaps(tmp_path: Path) -> None:
    signal = beats(n_leads=2)
    signal[300:400, 1] = np.nan
    svg = svg_of(plot_ecg((signal, ["I", "II"], 100), "gap"), tmp_path)
    before, after = svg_points(svg, "trace-1")
    assert after[0, 0] - before[-1, 0] == pytest.approx(25 * 1.01, abs=0.01)
    assert len(svg_points(svg, "trace-0")) == 1
    assert any("samples missing: II 10 %" in text for text in texts(plot_ecg((signal, ["I", "II"], 100), "gap")))


def test_a_curve_too_tall_for_its_row_is_cut_and_marked() -> None:
    signal = beats()
    signal[400, 3] = 40.0  # aVR at 4 s
    page = page_of((signal, LEADS, 100))
    assert [note for note in page.notes if "cut" in note] == [
        "cut at the edge of the row (▲▼): aVR; a smaller gain shows more"
    ]
    figure = plot_ecg((signal, LEADS, 100), "cut")
    (mark,) = drawn(figure, "cut-3")
    assert mark[0, 0] == pytest.approx(TRACE_LEFT + 25 * 4, abs=0.3)
    assert page.rows[0].top - 2 < mark[0, 1] < page.rows[0].top
    (line,) = [line for line in figure.axes[0].lines if line.get_gid() == "trace-3"]
    kept = line.get_clip_path().get_fully_transformed_path().get_extents()
    assert kept.y1 / figure.dpi * 25.4 == pytest.approx(page.rows[0].top)
    assert kept.y0 / figure.dpi * 25.4 == pytest.approx(page.rows[0].bottom)
    assert drawn(figure, "cut-2") == []


def test_rows_take_their_height_from_what_is_in_them() -> None:
    signal = beats()
    signal[:, 8] *= -3  # V3 in the third row, 3.6 mV deep
    page = page_of((signal, LEADS, 100))
    heights = [row.top - row.bottom for row in page.rows]
    assert heights[2] == max(heights)
    assert not any("cut" in note for note in page.notes)


def test_another_gain_is_said() -> None:
    assert "25 mm/s   10 mm/mV" in texts(plot_ecg((beats(), LEADS, 100)))
    assert "25 mm/s   5 mm/mV  (not the usual 10 mm/mV)" in texts(plot_ecg((beats(), LEADS, 100), gain=5))


def test_text_is_never_read_as_markup(tmp_path: Path) -> None:
    names = ["$x_1$", "<b>&", "a\x00b", "a name far too long", "", "心"]
    svg = svg_of(plot_ecg((beats(n_leads=6), names, 100), "record $\\frac$ \x07"), tmp_path)
    found = {element.text for element in svg.iter() if element.tag.endswith("}text")}
    assert {"$x_1$", "<b>&", "a?b", "a name far to…", "signal 5", "心", "record $\\frac$ ?"} <= found


def test_more_leads_than_fit_are_left_out_by_name() -> None:
    page = page_of((beats(n_leads=20), [f"L{number}" for number in range(20)], 100))
    assert len({cell.lead for cell in page.cells}) == 16
    assert all(f"L{number} (at most 16 leads fit)" in page.notes[0] for number in range(16, 20))


# --------------------------------------------------------------------------------------------------------- real records


@pytest.mark.parametrize(
    ("name", "leads", "note"),
    [
        ("100_3chan", ("I", "II", "III"), None),
        ("a103l", ("II", "V"), "left out: PLETH (no voltage)"),
        ("test01_00s", ("ECG 1", "ECG 2", "ECG 3", "ECG 4"), None),
        ("v102s", ("II", "V"), "left out: PLETH (no voltage), RESP (no voltage)"),
    ],
)
def test_records_of_other_sources(name: str, leads: tuple[str, ...], note: str | None, data_dir: Path) -> None:
    found, tracing = read_tracing(data_dir / "other_ecg" / name)
    page = compose(tracing)
    assert (found, tracing.leads) == (name, leads)
    assert note is None or note in page.notes


def test_a_record_of_ptbxl_is_drawn_as_it_was_read(ptbxl_part: Path, tmp_path: Path) -> None:
    record = read_record(ptbxl_part, "records100/00000/00001_lr")
    figure = plot_ecg(record, "00001_lr")
    expected = record.millivolts().astype(float)[:, record.leads.index("V5")]
    (index,) = [n for n, cell in enumerate(page_of(record).cells) if record.leads[cell.lead] == "V5"]
    in_figure, in_file = drawn(figure, f"trace-{index}")[0], svg_points(svg_of(figure, tmp_path), f"trace-{index}")[0]
    for upwards in (in_figure[:, 1], -in_file[:, 1]):
        assert (upwards - upwards[0]) / 10 == pytest.approx(expected[750:1000] - expected[750], abs=1e-3)


@pytest.mark.slow
def test_the_flat_part_of_a_real_lead_is_said(ptbxl_full: Path) -> None:
    tracing = as_tracing(read_record(ptbxl_full, "records100/12000/12722_lr"))
    assert "flat where shown: V4, V5, V6" in compose(tracing).notes


# ------------------------------------------------------------------------------------------------------------ measured


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated ECGs of known truth; the first five are in sinus rhythm."""
    folder = tmp_path_factory.mktemp("plot") / "simulated"
    simulate(folder, 12, 7)
    return folder / "records100" / "00000"


def test_the_median_beat_has_its_points_at_true_scale(simulated: Path) -> None:
    _, tracing = read_tracing(simulated / "00012_lr")
    figure = plot_ecg(tracing, "00012_lr", measured=True)
    found, _ = measure_record(tracing.signal.astype(np.float32), tracing.leads, 100)
    beat = describe_beat(tracing.signal.astype(np.float32), tracing.leads, 100)
    for lead in range(12):
        (p_onset, p_offset), (onset, offset), (t_offset,) = (
            [line[0, 0] for line in drawn(figure, f"point-{lead}-{wave}")] for wave in ("P", "QRS", "T")
        )
        assert (offset - onset) / 50 * 1000 == pytest.approx(found["QRS_Dur_Global"])
        assert (onset - p_onset) / 50 * 1000 == pytest.approx(found["PR_Int_Global"])
        assert (p_offset - p_onset) / 50 * 1000 == pytest.approx(found["P_Dur_Global"])
        assert (t_offset - onset) / 50 * 1000 == pytest.approx(found["QT_Int_Global"])
        (curve,) = drawn(figure, f"beat-{lead}")
        peak = np.nanargmax(np.abs(beat.signal[lead]))
        assert np.abs(curve[:, 1] - np.median(curve[:, 1])).max() / 10 == pytest.approx(
            abs(beat.signal[lead, peak]), abs=0.1
        )
        assert onset < curve[np.abs(curve[:, 1] - np.median(curve[:, 1])).argmax(), 0] < offset or lead == 2
    said = " ".join(texts(figure))
    for name, words in (("PR_Int_Global", "PR"), ("QRS_Dur_Global", "QRS"), ("QT_Int_Global", "QT")):
        assert f"{words} {round(found[name])} ms" in said
    assert f"{found['HR__Global']:.0f}/min" in said


def test_every_beat_is_marked_below_the_rhythm_strip(simulated: Path) -> None:
    _, tracing = read_tracing(simulated / "00001_lr")
    figure = plot_ecg(tracing, measured=True)
    (marks,) = drawn(figure, "beats")
    (strip,) = drawn(figure, "trace-12")
    assert len(marks) == measure_record(tracing.signal.astype(np.float32), tracing.leads, 100)[0]["QRS_Count_Global"]
    for x in marks[:, 0]:
        near = strip[np.abs(strip[:, 0] - x) < 25 * 0.08]
        assert np.ptp(near[:, 1]) > 0.5 * np.ptp(strip[:, 1])


def test_marks_stand_where_the_beats_are_when_the_page_begins_later() -> None:
    figure = plot_ecg((beats(30), LEADS, 100), measured=True, start_s=10, seconds=10)
    (marks,) = drawn(figure, "beats")
    assert np.diff(marks[:, 0]) == pytest.approx(25, abs=0.3)
    assert (marks[:, 0] - TRACE_LEFT + 2) % 25 == pytest.approx(2, abs=2), "within 80 ms of a whole second"
    assert marks[:, 0].max() < TRACE_LEFT + 250


@pytest.mark.parametrize(
    ("signal", "hz", "said"),
    [
        (np.zeros((1000, 3)), 100, "no signal"),
        (np.full((1000, 3), np.nan), 100, "no beats"),
        (beats(2.0, n_leads=3), 100, "2 s"),
        (beats(10, 128.5, 3), 128.5, "128.5 Hz is no whole number"),
        (beats(10, 50, 3), 50, "90 to"),
    ],
    ids=["flat", "missing", "short", "odd rate", "low rate"],
)
def test_what_cannot_be_measured_is_drawn_and_told(signal: NDArray[np.float64], hz: float, said: str) -> None:
    figure = plot_ecg((signal, ("I", "II", "V1"), hz), measured=True)
    assert "no interval could be measured" in texts(figure)
    assert any(said in text for text in texts(figure)), texts(figure)
    assert not any(str(line.get_gid()).startswith(("point", "beat")) for line in figure.axes[0].lines)


def test_an_axis_near_zero_has_no_sign() -> None:
    values = {"QRS_AxisFront_Global": -0.4, "PR_Int_Global": 159.6}
    assert Measured(None, values=values).shown == ["PR 160 ms", "QRS axis 0°"]


def test_leads_with_one_name_are_drawn_but_not_measured() -> None:
    figure = plot_ecg((beats(n_leads=2), ("V", "V"), 100), measured=True)
    assert any("twice" in text for text in texts(figure))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 17, 30, 38, 144, 173, 180, 273])
def test_real_ecgs_of_every_kind_are_drawn_with_their_beats(number: int, ptbxl_part: Path, tmp_path: Path) -> None:
    content = plot_record(ptbxl_part / f"records100/00000/{number:05d}_lr", tmp_path / "ecg.svg", measured=True)
    assert 30 < content["measured"]["HR__Global"] < 220
    svg = ElementTree.fromstring((tmp_path / "ecg.svg").read_text())
    assert {f"beat-{lead}" for lead in range(12)} <= {element.get("id") for element in svg.iter()}


# --------------------------------------------------------------------------------------------------------- determinism


def test_the_same_record_gives_the_same_bytes_whatever_the_users_settings(tmp_path: Path) -> None:
    write_record(tmp_path, "one")
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nlines.linewidth: 9\nsvg.fonttype: path\ntext.usetex: True\n")
    for suffix in ("png", "svg"):
        plot_record(tmp_path / "one", tmp_path / f"here.{suffix}", dpi=60)
        command = ["plot", str(tmp_path / "one.hea"), "--out", str(tmp_path / f"there.{suffix}"), "--dpi", "60"]
        code = f"from ecglm.synth.cli import run\nraise SystemExit(run({command!r}))"
        environment = {**os.environ, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "PYTHONHASHSEED": "7"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
        content = (tmp_path / f"here.{suffix}").read_bytes()
        assert content == (tmp_path / f"there.{suffix}").read_bytes()
        assert b"20" + b"26-" not in content
        assert b"matplotlib.org" not in content


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("ecg", "reason"),
    [
        ((np.zeros((100, 2)), ["I"], 100), "bad_shape"),
        ((np.zeros(100), ["I"], 100), "bad_shape"),
        ((np.zeros((100, 0)), [], 100), "no_leads"),
        ((np.zeros((1, 1)), ["I"], 100), "too_short"),
        ((np.zeros((100, 1)), ["I"], 0), "sampling_frequency"),
        ((np.zeros((100, 1)), ["I"], float("nan")), "sampling_frequency"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_reason(ecg: Any, reason: str) -> None:
    with pytest.raises(SignalError, match=r"expected|at least") as caught:
        plot_ecg(ecg)
    assert caught.value.reason == reason


@pytest.mark.parametrize("options", [{"start_s": 10.0}, {"start_s": -1.0}, {"seconds": 0.0}, {"gain": -5.0}])
def test_a_page_outside_the_record_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(SignalError, match="expected"):
        plot_ecg((beats(), LEADS, 100), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, 0.0, 1e6, -1e6, np.inf])
def test_records_of_one_value_are_drawn(value: float, tmp_path: Path) -> None:
    svg_of(plot_ecg((np.full((1000, 12), value), LEADS, 100), "odd"), tmp_path)
    notes = page_of((np.full((1000, 12), value), LEADS, 100)).notes
    expected = "not recorded" if not np.isfinite(value) else "flat where shown"
    assert notes == (f"{expected}: {', '.join(LEADS)}",)


def test_a_record_without_voltages_is_refused_by_name(tmp_path: Path) -> None:
    write_record(tmp_path, "one")
    header = tmp_path / "one.hea"
    header.write_text(header.read_text().replace("/mV", "/NU"))
    with pytest.raises(SignalError, match=r"one: no lead in volts: found I \(no voltage\)"):
        read_tracing(tmp_path / "one")


def test_errors_name_the_record_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match=re.escape(f"{tmp_path}/none.hea: no such file")):
        read_tracing(tmp_path / "none.hea")


def test_a_picture_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    figure = plot_ecg((beats(), LEADS, 100))
    with pytest.raises(ECGLMError, match=r"nowhere/ecg\.png: cannot be written"):
        save_figure(figure, tmp_path / "nowhere" / "ecg.png")
    with pytest.raises(ECGLMError, match=r"ecg\.jpeg: a picture ends in \.png or \.svg"):
        save_figure(figure, tmp_path / "ecg.jpeg")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_matplotlib(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ECGLMError, match=r"pip install 'ecglm\[plot\]'"):
        plot_ecg((beats(), LEADS, 100))


# -------------------------------------------------------------------------------------------------------- command line


def test_the_command_says_what_is_on_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path, "one", seconds=20)
    out = tmp_path / "one.svg"
    assert run(["plot", str(tmp_path / "one"), "--out", str(out), "--seconds", "10", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["leads"] == list(LEADS)
    assert content["seconds"] == [0, 10]
    assert content["record"] == "one"
    assert content["measured"] is None
    assert run(["plot", str(tmp_path / "one"), "--out", str(out), "--measured", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert isinstance(content["measured"], dict)
    assert content["not_measured"], "random numbers are no ECG"
    assert out.read_text().startswith("<?xml")
    assert run(["plot", str(tmp_path / "one.hea"), "--out", str(tmp_path / "one.PNG"), "--dpi", "60"]) == 0
    assert "12 leads, seconds 0 to 20" in capsys.readouterr().out
    assert (tmp_path / "one.PNG").read_bytes().startswith(b"\x89PNG")


def test_a_start_behind_the_end_is_a_handled_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path, "one")
    assert run(["plot", str(tmp_path / "one"), "--out", str(tmp_path / "one.png"), "--start", "60"]) == 1
    assert "start is 60 s; expected 0 to less than 10 s" in capsys.readouterr().err
    assert not (tmp_path / "one.png").exists()


def test_of_a_long_record_only_what_is_shown_is_drawn() -> None:
    page = compose(Tracing(beats(1800, 250, 2), ("II", "V5"), 250.0))
    assert sum(len(page.values(cell)[1]) for cell in page.cells) <= 2 * (60 * 250 + 6)
