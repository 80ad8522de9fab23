"""The pictures: written, determined by the records alone, and true to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from emdistill.errors import DataError
from emdistill.runs.flows import FlowRecord
from emdistill.show import figures
from emdistill.show.figures import draw_flows, draw_layer_weights

TERMS = ("hidden_states", "attention_scores")


def history(
    student: int, teacher: int, terms: tuple[str, ...] = TERMS, *, count: int = 3, seed: int = 0
) -> list[FlowRecord]:
    random = np.random.default_rng(seed)
    records = []
    for step in range(count):
        flow = random.random((student, teacher))
        flow /= flow.sum()
        rows, columns = flow.sum(axis=1).tolist(), flow.sum(axis=0).tolist()
        flows = dict.fromkeys(terms, flow.tolist())
        records.append(FlowRecord(50 * step, "joint", flows, dict.fromkeys(terms, rows), dict.fromkeys(terms, columns)))
    return records


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, for a look at what is in them."""
    saved: list[Figure] = []
    save = figures._save
    monkeypatch.setattr(figures, "_save", lambda figure, path: (saved.append(figure), save(figure, path)))
    return saved


def texts(figure: Figure) -> list[str]:
    inside = [text.get_text() for axes in figure.axes for text in axes.texts]
    return inside + [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("draw", [draw_flows, draw_layer_weights])
@pytest.mark.parametrize(("student", "teacher"), [(1, 1), (3, 6), (12, 24)])
def test_a_picture_is_a_png_with_something_on_it(tmp_path: Path, draw, student: int, teacher: int) -> None:
    path = tmp_path / "picture.png"
    draw(history(student, teacher), path)
    pixels = imread(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 400
    assert len(np.unique(pixels[..., 0])) > 20


@pytest.mark.parametrize("draw", [draw_flows, draw_layer_weights])
def test_equal_records_give_equal_bytes_and_others_do_not(tmp_path: Path, draw) -> None:
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw(history(3, 6, seed=seed), tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert b"atplotlib" not in contents[0]  # another version would give other bytes for the same pixels


def test_the_last_flow_of_each_term_is_drawn_as_shares_of_its_mass(tmp_path: Path, drawn: list[Figure]) -> None:
    records = [
        FlowRecord(10, "first", {"hidden_states": [[0.1, 0.9]], "attention_scores": [[2.0, 1.0], [0.0, 1.0]]}),
        FlowRecord(1200, "second", {"hidden_states": [[0.74, 0.26]]}),
    ]
    with pytest.raises(DataError, match="names were given"):
        draw_flows(records, tmp_path / "flows.png", student_layers=["a", "b", "c"])
    draw_flows(records, tmp_path / "flows.png")
    written = texts(drawn[0])
    assert {".74", ".26", "hidden states", "stage second, step 1,200"} <= set(written)
    assert {".50", ".25", "attention scores", "stage first, step 10"} <= set(written)
    assert ".90" not in written  # an older flow
    assert ".00" not in written  # nothing moved, nothing written
    assert {axes.get_xlabel() for axes in drawn[0].axes} >= {"teacher layer"}
    images = [axes.images[0] for axes in drawn[0].axes if axes.images]
    np.testing.assert_allclose(images[1].get_array(), [[0.5, 0.25], [0.0, 0.25]])
    assert images[0].get_clim() == images[1].get_clim() == (0.0, 0.74)


def test_bars_are_the_sums_of_rows_and_columns(tmp_path: Path, drawn: list[Figure]) -> None:
    records = history(3, 6, TERMS[:1])
    draw_flows(records, tmp_path / "flows.png", student_layers=["one", "two", "three"])
    flow = np.asarray(records[-1].flows["hidden_states"])
    above, beside = (axes for axes in drawn[0].axes if axes.containers)
    np.testing.assert_allclose([bar.get_height() for bar in above.patches], flow.sum(axis=0))
    np.testing.assert_allclose([bar.get_width() for bar in beside.patches], flow.sum(axis=1))
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()] == ["one", "two", "three"]


def test_coupled_terms_share_a_picture_and_separate_ones_have_their_own(tmp_path: Path, drawn: list[Figure]) -> None:
    coupled, other = history(3, 6), history(3, 6, TERMS[1:], seed=5)
    separate = [
        FlowRecord(
            one.step,
            one.stage,
            {**one.flows, **two.flows},
            {**one.student_weights, **two.student_weights},
            {**one.teacher_weights, **two.teacher_weights},
        )
        for one, two in zip(coupled, other, strict=True)
    ]
    draw_layer_weights(coupled, tmp_path / "coupled.png")
    draw_layer_weights(separate, tmp_path / "separate.png")
    pictures = [[axes.images[0].get_array() for axes in figure.axes if axes.images] for figure in drawn]
    assert [len(each) for each in pictures] == [2, 4]
    assert "hidden states, attention scores" in texts(drawn[0])
    weights = np.asarray([record.teacher_weights["hidden_states"] for record in coupled]).T
    np.testing.assert_allclose(pictures[0][1], weights * 6)
    assert f"{weights[0, -1]:.3f}".lstrip("0") in texts(drawn[0])


def test_stages_are_named_where_there_are_several(tmp_path: Path, drawn: list[Figure]) -> None:
    records = [
        *history(2, 4),
        *(FlowRecord(r.step, "prediction", r.flows, r.student_weights, r.teacher_weights) for r in history(2, 4)),
    ]
    draw_layer_weights(records, tmp_path / "weights.png")
    assert {"joint", "prediction"} <= set(texts(drawn[0]))


def test_nothing_recorded_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no flow was recorded"):
        draw_flows([], tmp_path / "flows.png")
    fixed = [FlowRecord(0, "joint", {"hidden_states": [[1.0, 0.0], [0.0, 1.0]]})]
    draw_flows(fixed, tmp_path / "flows.png")
    with pytest.raises(DataError, match="no layer weights were recorded"):
        draw_layer_weights(fixed, tmp_path / "weights.png")
    assert not (tmp_path / "weights.png").exists()
