"""A mapping among some layers is that mapping on their costs, and nothing elsewhere."""

import pytest
import torch
from messages import names

from emdistill.errors import LayerCountError
from emdistill.mapping import MAPPINGS, EmdMapping, MappingAmong

ROWS, COLUMNS = [1, 2, 4], [0, 3]


@pytest.mark.parametrize("name", MAPPINGS)
def test_it_is_the_mapping_of_their_costs(name: str) -> None:
    costs = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    inner = MAPPINGS[name](3, 2).eval()
    mapping = MappingAmong(inner, ROWS, COLUMNS, 6, 5).eval()
    flow, expected = mapping(costs), inner(costs[:, ROWS][:, :, COLUMNS])
    torch.testing.assert_close(flow[:, ROWS][:, :, COLUMNS], expected)
    assert flow.sum() == pytest.approx(float(expected.sum()))
    assert (mapping.mass, mapping.taught_layers) == (inner.mass, inner.taught_layers)
    assert flow.requires_grad == inner.differentiable
    assert {(int(i), int(j)) for _, i, j in flow.nonzero()} <= set(mapping.pairs or ())


def test_layer_weights_are_those_of_the_layers_among_which_it_maps() -> None:
    mapping = MappingAmong(EmdMapping(3, 2), ROWS, COLUMNS, 6, 5)
    mapping(torch.rand(6, 5, generator=torch.Generator().manual_seed(0)))
    assert mapping.student_weights is not None
    assert mapping.teacher_weights is not None
    assert mapping.student_weights.nonzero().flatten().tolist() == ROWS
    assert mapping.teacher_weights.nonzero().flatten().tolist() == COLUMNS
    assert float(mapping.student_weights.sum()) == pytest.approx(1)
    assert MappingAmong(MAPPINGS["uniform"](3, 2), ROWS, COLUMNS, 6, 5).student_weights is None


def test_layers_that_are_not_there_are_refused() -> None:
    with names(LayerCountError, 4, 3):
        MappingAmong(EmdMapping(3, 2), ROWS, COLUMNS, 4, 5)
