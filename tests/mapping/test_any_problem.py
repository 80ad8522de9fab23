"""Whatever the costs and masses: every solver ends, without NaN, with a flow that is feasible, or refuses by name.

CASES=10000 tries so many problems instead of a few.
"""

import os
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emdistill.errors import TransportError
from emdistill.mapping import sinkhorn_plan, solve_transport
from emdistill.mapping.sinkhorn import NotConvergedWarning
from emdistill.mapping.transport import TransportPlan
from emdistill.mapping.unbalanced import solve_unbalanced

ANY = settings(
    max_examples=int(os.environ.get("CASES", "60")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
COSTS = st.one_of(st.floats(0, 1e6), st.floats(0, 1e300), st.sampled_from([0.0, 1.0, 1e-300, 1e-12, 5e-324, 1e150]))
MASSES = st.one_of(st.floats(1e-3, 1.0), st.sampled_from([0.0, 1e-12, 1e-300, 1.0]))

Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Costs of any size and spread, and masses of one sum, of which some may be 0 or next to it."""
    rows, columns = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    costs = draw(arrays(np.float64, (rows, columns), elements=COSTS))
    masses = [
        draw(arrays(np.float64, size, elements=MASSES).filter(lambda m: m.sum() > 1e-6)) for size in (rows, columns)
    ]
    student, teacher = (torch.from_numpy(mass / mass.sum()) for mass in masses)
    return torch.from_numpy(costs), student, teacher


def assert_feasible(plan: TransportPlan, student: torch.Tensor, teacher: torch.Tensor | None) -> None:
    assert plan.flow.isfinite().all()
    assert (plan.flow >= 0).all()
    torch.testing.assert_close(plan.flow.sum(dim=1), student, rtol=0, atol=1e-9)
    if teacher is not None:
        torch.testing.assert_close(plan.flow.sum(dim=0), teacher, rtol=0, atol=1e-9)


@ANY
@given(problems())
def test_exact_transport(problem: Problem) -> None:
    costs, student, teacher = problem
    assert_feasible(solve_transport(costs, student, teacher), student, teacher)


@ANY
@given(problems(), st.sampled_from([1.0, 0.01, 1e-3]))
def test_entropic_transport(problem: Problem, epsilon: float) -> None:
    costs, student, teacher = problem
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        assert_feasible(sinkhorn_plan(costs, student, teacher, epsilon=epsilon), student, teacher)


@ANY
@given(problems(), st.sampled_from([0.0, 0.3, 1e6]))
def test_unbalanced_transport(problem: Problem, penalty: float) -> None:
    costs, student, teacher = problem
    assert_feasible(solve_unbalanced(costs, student, teacher, penalty), student, None)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
@ANY
@given(problem=problems(), data=st.data())
def test_one_wrong_cost_is_refused(problem: Problem, data: st.DataObject, wrong: float) -> None:
    costs, student, teacher = problem
    costs.view(-1)[data.draw(st.integers(0, costs.numel() - 1))] = wrong
    for solve in (solve_transport, sinkhorn_plan):
        with pytest.raises(TransportError):
            solve(costs, student, teacher)
