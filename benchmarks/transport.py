"""Case S: the exact solver takes microseconds, every check included, and no input makes it hang or lie.

    python benchmarks/transport.py --rounds 30 --output benchmarks/results/transport.json

`solve_transport` takes and returns tensors and checks costs, masses and marginals; `ot.emd` (POT) and pyemd's C++
solver on the (M+N)×(M+N) square are called bare, on arrays. SciPy's HiGHS is the independent truth.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import ot
import torch
from measure import arguments, interleave, print_table, save, shown, summary
from reference_approach import emd_with_flow, solve, square_problem
from scipy.optimize import linprog
from scipy.sparse import eye_array, kron, vstack

from emdistill.errors import TransportError
from emdistill.mapping import solve_transport

SIZES = [(2, 6), (4, 12), (6, 12), (6, 24), (12, 24), (24, 48)]
SOLVES = 20  # in a row, so that what is timed is the solver and not a cold cache
PATIENCE = 5.0  # seconds until a solver counts as hanging
PYEMD_CHILD = """
import json, sys, numpy
from pyemd import emd_with_flow
problem = [numpy.array(part, dtype=float) for part in json.load(sys.stdin)]
print(json.dumps(emd_with_flow(*problem, backend="cpp")[1]))
"""

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    """Time every size and mass, then try what a training run may hand a solver on a bad day."""
    options = arguments(__doc__).parse_args(argv)
    torch.set_num_threads(options.threads)
    sizes, rounds = (SIZES[:2], 5) if options.short else (SIZES, 30)
    timed = {
        f"{students}×{teachers} {masses}": time_solvers(
            random_problem(students, teachers, masses), options.rounds or rounds
        )
        for students, teachers in sizes
        for masses in ("uniform", "skewed")
    }
    names = list(next(iter(timed.values())))
    print_table(
        "Median µs (quartiles); relative error of the cost against HiGHS",
        ["size, masses", *names],
        [
            [case, *(f"{shown(one, scale=1e3)}, {one['cost_error']:.0e}" for one in results.values())]
            for case, results in timed.items()
        ],
    )
    answers = {name: try_solvers(problem) for name, problem in hostile_problems().items()}
    columns = list(next(iter(answers.values())))
    rows = [[name, *outcomes.values()] for name, outcomes in answers.items()]
    print_table("What a 4×12 problem gone wrong gives", ["input", *columns], rows)
    save(options.output, {"case": "S", "times_ms": timed, "hostile": answers})


def random_problem(students: int, teachers: int, masses: str, seed: int = 0) -> Problem:
    """Costs and masses of both sides; "skewed" masses spread over a factor of a hundred or so."""
    random = np.random.default_rng(seed)
    costs = random.random((students, teachers))
    spread = {"uniform": 0.0, "skewed": 1.5}[masses]
    first, second = (np.exp(spread * random.standard_normal(size)) for size in costs.shape)
    return costs, first / first.sum(), second / second.sum()


def solvers(problem: Problem) -> dict[str, tuple[Callable[[], object], int]]:
    """Name -> (one solve, solves in a row); HiGHS takes milliseconds and is timed alone."""
    costs, first, second = problem
    tensors = [torch.from_numpy(part) for part in problem]
    contenders = {
        "solve_transport": (lambda: solve_transport(*tensors).flow.numpy(), SOLVES),
        "ot.emd": (lambda: ot.emd(first, second, costs), SOLVES),
    }
    if emd_with_flow is not None:
        contenders["pyemd, square"] = (lambda: solve(costs, first, second), SOLVES)
    contenders["SciPy HiGHS"] = (lambda: linear_program(problem), 1)
    return contenders


def time_solvers(problem: Problem, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds a solve, and how far the cost lies from the truth."""
    contenders = solvers(problem)
    seconds = interleave({name: repeat(*contender) for name, contender in contenders.items()}, rounds)
    truth = np.vdot(linear_program(problem), problem[0])
    results = {}
    for name, (once, times) in contenders.items():
        error = abs(np.vdot(once(), problem[0]) - truth) / truth
        results[name] = {**summary([value / times for value in seconds[name]]), "cost_error": error}
    return results


def repeat(once: Callable[[], object], times: int) -> Callable[[], None]:
    """The same call several times."""

    def several() -> None:
        for _ in range(times):
            once()

    return several


def linear_program(problem: Problem) -> np.ndarray:
    """The flow by SciPy's HiGHS: minimise Σ F·D with the masses as row and column sums.

    Its tolerance is absolute, so the smallest mass is scaled to 1.
    """
    costs, first, second = problem
    students, teachers = costs.shape
    masses = np.concatenate([first, second])
    unit = masses.min()
    sums = vstack(
        [kron(eye_array(students), np.ones((1, teachers))), kron(np.ones((1, students)), eye_array(teachers))]
    )
    found = linprog(costs.ravel(), A_eq=sums, b_eq=masses / unit, method="highs")
    if found.x is None:
        raise ValueError(found.message)
    return unit * found.x.reshape(costs.shape)


def hostile_problems() -> dict[str, Problem]:
    """What overflowed states, dead layers or a careless caller lead to."""
    costs, first, second = random_problem(4, 12, "skewed")
    broken = {name: costs.copy() for name in ("nan", "inf")}
    broken["nan"][1, 2], broken["inf"][1, 2] = np.nan, np.inf
    tiny = second.copy()
    tiny[:3] = 1e-8
    return {
        "all costs 0": (np.zeros_like(costs), first, second),
        "one cost NaN": (broken["nan"], first, second),
        "one cost infinite": (broken["inf"], first, second),
        "masses of 1e-8": (costs, first, tiny / tiny.sum()),
        "unequal sums": (costs, first, 2 * second),
        "one outlier cost 1e9": (np.where(costs == costs.max(), 1e9, costs), first, second),
    }


def try_solvers(problem: Problem) -> dict[str, str]:
    """What each solver makes of a problem, in a few words."""
    costs, first, second = problem
    tensors = [torch.from_numpy(part) for part in problem]
    attempts = {
        "solve_transport": lambda: solve_transport(*tensors).flow.numpy(),
        "ot.emd": lambda: ot.emd(first, second, costs),
        "SciPy HiGHS": lambda: linear_program(problem),
    }
    if emd_with_flow is not None:
        attempts["pyemd, square"] = lambda: pyemd_in_a_child(problem)
    return {name: outcome(attempt, problem) for name, attempt in attempts.items()}


def outcome(attempt: Callable[[], np.ndarray], problem: Problem) -> str:
    """Refused, hung, wrong by how much, or right."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flow = attempt()
    except subprocess.TimeoutExpired:
        return f"hangs (> {PATIENCE:g} s)"
    except (TransportError, ValueError, AssertionError) as refusal:
        return f"refused: {type(refusal).__name__}"
    return judged(flow, problem)


def judged(flow: np.ndarray, problem: Problem) -> str:
    """How far a plan is from what was asked for: its marginals, each as a share of the mass, then its cost."""
    costs, first, second = problem
    if not np.isfinite(costs).all():
        return "returns a plan" if flow.sum() > 0 else "returns an empty flow"
    off = max(np.abs(flow.sum(axis=1) / first - 1).max(), np.abs(flow.sum(axis=0) / second - 1).max())
    if off > 1e-6:
        return f"a layer's mass off by {off:.0%}" if off > 0.005 else f"a layer's mass off by {off:.0e}"
    best = np.vdot(linear_program(problem), costs)
    excess = np.vdot(flow, costs) - best
    return "right" if abs(excess) <= 1e-9 * max(best, 1e-9) else f"cost off by {excess / best:.0e}"


def pyemd_in_a_child(problem: Problem) -> np.ndarray:
    """pyemd's flow, from a process that can be stopped: the solver hangs on some inputs."""
    students = len(problem[1])
    square = json.dumps([part.tolist() for part in square_problem(*problem)])
    child = subprocess.run(
        [sys.executable, "-c", PYEMD_CHILD],
        input=square, capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={**os.environ, "POT_BACKEND_DISABLE_PYTORCH": "1"},  # starts in half the time
    )  # fmt: skip
    if child.returncode != 0:
        raise ValueError(child.stderr)
    return np.array(json.loads(child.stdout))[:students, students:]


if __name__ == "__main__":
    main()
