"""Transport problems as linear programmes, solved by HiGHS: what every solver of the package is held to."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Array = NDArray[np.float64]


def marginals(rows: int, columns: int) -> tuple[Array, Array]:
    """The matrices that turn a flow [M, N], laid out in one row, into its sums over rows and over columns."""
    return np.kron(np.eye(rows), np.ones(columns)), np.kron(np.ones(rows), np.eye(columns))


def solution(prices: Array, conditions: Array, sums: Array) -> Array:
    """The x >= 0 of the lowest prices · x with conditions · x = sums."""
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    result = linprog(prices, A_eq=conditions, b_eq=sums, method="highs-ds", options=tight)
    assert result.status == 0, result.message
    return np.asarray(result.x)


def cheapest_flow(costs: Array, student: Array, teacher: Array) -> Array:
    """The flow [M, N] of the lowest cost between these masses."""
    conditions = np.concatenate(marginals(*costs.shape))
    # The last equation follows from the others; leaving it out spares HiGHS the rounding of the sums.
    flow = solution(costs.ravel(), conditions[:-1], np.concatenate([student, teacher])[:-1])
    return flow.reshape(costs.shape)
