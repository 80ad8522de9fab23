"""The students that are proposed: all of them can be named, none is the teacher."""

import pytest

from emdistill.search.shapes import Proposal, ladder, orders, propose
from emdistill.states import EncoderShape
from emdistill.students import student_kind


@pytest.mark.parametrize("encoder", [EncoderShape(6, 384, 12), EncoderShape(12, 768, 12), EncoderShape(2, 64, 4)])
def test_every_proposal_is_a_student_smaller_than_its_teacher(encoder: EncoderShape) -> None:
    students = propose(encoder, cuts=True)
    assert len(set(students)) == len(students) > 0
    for student in students:
        if student_kind(student) == "layer-count":
            assert 0 < int(student) < encoder.layers
            continue
        layers, width = map(int, student.split("x"))
        assert layers <= encoder.layers
        assert width < encoder.width


def test_without_cutting_only_whole_layers_are_kept() -> None:
    assert propose(EncoderShape(6, 384, 12), cuts=False) == ["4", "3", "2", "1"]


def test_the_published_shape_is_among_them_where_it_can_be_cut() -> None:
    assert "4x312" in propose(EncoderShape(12, 768, 12), cuts=True)
    assert "4x312" not in propose(EncoderShape(2, 64, 4), cuts=True)


def test_a_table_of_tokens_is_made_smaller_step_by_step() -> None:
    steps = ladder(Proposal("3", "balanced"), factorises=True)
    assert [(step.pruned, step.embedding_rank) for step in steps] == [(False, None), (True, None), (True, 128)]
    assert len({step.name for step in steps}) == 3
    assert len(ladder(Proposal("3", "balanced"), factorises=False)) == 2


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 6])
def test_other_orders_weigh_no_more_than_the_layers(layers: int) -> None:
    words = orders(layers)
    assert len({*words, "af" * layers}) == len(words) + 1 > 1
    weights = {"a": 4, "f": 8, "c": 1}
    for word in words:
        assert student_kind(f"chain:{word}") == "chain"
        assert sum(map(weights.__getitem__, word)) <= 12 * layers
