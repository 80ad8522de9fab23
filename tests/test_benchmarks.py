"""The benchmarks' own arithmetic, their baseline, and that every script explains itself."""

import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import ot
import pytest
import torch
from messages import names, unnamed

from emdistill.mapping import EmdMapping, layer_costs
from emdistill.mapping.emd import cost_attention_update

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
HEAVY = ("torch", "rich", "rich.console", "rich.table", "emdistill", "emdistill.ship", "emdistill.ship.measurement")
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _scripts_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def measure() -> ModuleType:
    return importlib.import_module("measure")


class Clock:
    """A clock that stands still until a contender moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_interleave_times_every_contender_once_a_round(measure: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(), []
    monkeypatch.setattr(measure, "time", clock)

    def contender(name: str, seconds: float):
        return lambda: (calls.append(name), clock.wait(seconds))

    contenders = {name: contender(name, seconds) for name, seconds in {"a": 1.0, "b": 2.0, "c": 4.0}.items()}
    seconds = measure.interleave(contenders, rounds=3, warmup=1)
    assert seconds == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [4.0] * 3}
    turns = ["".join(calls[start : start + 3]) for start in range(0, 12, 3)]
    assert {"".join(sorted(turn)) for turn in turns} == {"abc"}
    assert len(set(turns)) > 1, "the order is drawn anew"


def test_summary_and_ratio(measure: ModuleType) -> None:
    assert measure.summary([0.001, 0.005, 0.002, 0.004, 0.003]) == pytest.approx(
        {"median": 3.0, "low": 2.0, "high": 4.0, "rounds": 5}
    )
    assert measure.summary([0.002]) == {"median": 2.0, "low": 2.0, "high": 2.0, "rounds": 1}
    # Rounds are paired: the machine that was slow in the second round was slow for both.
    assert measure.ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == pytest.approx({"median": 2.0, "low": 2.0, "high": 2.5})
    with pytest.raises(ValueError):  # noqa: PT011  (zip's own)
        measure.ratio([1.0, 2.0], [1.0])


def test_gemm_rate_counts_multiplications_and_additions(measure: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(torch, "mm", lambda left, right, out: clock.wait(0.5))
    assert measure.gemm_rate(size=10, rounds=3) == pytest.approx(2 * 10**3 / 0.5)


def test_save_writes_the_whole_record_without_machine_paths(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results" / "case.json"
    monkeypatch.setattr(measure, "gemm_rate", lambda: 5e9)
    monkeypatch.setattr(
        sys, "argv", [str(tmp_path / "step.py"), "--short", f"--output={output}", "--plot", str(output)]
    )
    measure.save(output, {"case": "X"})
    text = output.read_text(encoding="utf-8")
    record = json.loads(text)
    assert record["case"] == "X"
    assert record["gemm_rate"] == 5e9
    assert record["command"] == "python benchmarks/step.py --short --output=case.json --plot case.json"
    assert record["machine"].keys() >= {"cpu", "cores", "threads", "torch", "transformers", "emdistill", "date"}
    assert str(tmp_path) not in text
    assert [path.name for path in output.parent.iterdir()] == ["case.json"]
    assert "5 GFLOP/s" in capsys.readouterr().out

    with pytest.raises(TypeError):
        measure.save(output, {"case": object()})
    assert json.loads(output.read_text(encoding="utf-8")) == record, "the earlier record must survive"
    measure.save(None, {"case": "X"})


def test_print_table_shows_every_cell(measure: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    figures = measure.summary([0.001, 0.002, 0.003])
    measure.print_table("Title", ["case", "ms"], [["one", measure.shown(figures)], ["two", 7]])
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("Title", "case", "one", "2 (1.5–2.5)", "two", "7"))


def test_arguments(measure: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    parser = measure.arguments("What it claims.", teacher_size={"type": int, "default": 3, "help": "layers"})
    options = parser.parse_args(["--short", "--rounds", "4", "--output", "x.json"])
    assert (options.short, options.rounds, options.output, options.teacher_size) == (True, 4, Path("x.json"), 3)
    assert options.threads == torch.get_num_threads()
    with pytest.raises(SystemExit):
        parser.parse_args(["--rounds", "0"])
    assert not unnamed(capsys.readouterr().err, "--rounds", 0)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux's /proc")
def test_peak_memory_counts_what_the_stage_holds_and_nothing_earlier(measure: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        "import sys\n"
        "from unittest.mock import MagicMock\n"
        # What measure imports for its other tasks takes seconds and has no part in this one.
        f"sys.modules |= dict.fromkeys({HEAVY}, MagicMock())\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from measure import memory_rise\n"
        "earlier = bytearray(b'x') * 80_000_000\n"
        "del earlier\n"
        "def stage():\n"
        "    temporary = bytearray(b'x') * 20_000_000\n"
        "    return temporary + temporary\n"
        "print('MB:', memory_rise(stage))\n",
        encoding="utf-8",
    )
    assert measure.peak_memory([str(script)]) == pytest.approx(60, abs=3)
    script.write_text("raise SystemExit('no such contender')", encoding="utf-8")
    with names(SystemExit, "child.py --child", "no such contender"):
        measure.peak_memory([str(script), "--child"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "shape"), [("hidden", (2, 5, 8)), ("scores", (2, 3, 5, 5))])
def test_reference_approach_computes_what_emdistill_does(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Without padding: costs, loss, gradient, and the layer weights that follow."""
    reference = importlib.import_module("reference_approach")
    torch.manual_seed(0)
    teacher = [torch.randn(shape, dtype=dtype) * (1 + layer) for layer in range(6)]
    student = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10

    taken = reference.hidden_costs if kind == "hidden" else reference.score_costs
    ours = layer_costs(student, teacher, torch.ones(2, 5, dtype=torch.long))
    torch.testing.assert_close(torch.stack(taken(student, teacher)).view(3, 6), ours, rtol=tolerance, atol=0)

    # pyemd's solver rounds costs and masses to about 1e-6.
    tolerance = 1e-5 if reference.emd_with_flow is not None else tolerance
    weights = reference.LayerWeights.uniform(3, 6)
    loss = reference.layer_loss(student, teacher, kind, weights)
    flow = EmdMapping(3, 6)(ours.detach())
    our_loss = (flow * ours).sum()
    torch.testing.assert_close(loss, our_loss, rtol=tolerance, atol=0)
    for theirs, own in zip(torch.autograd.grad(loss, student), torch.autograd.grad(our_loss, student), strict=True):
        torch.testing.assert_close(theirs, own, rtol=tolerance, atol=tolerance)

    weights.advance()
    updated = cost_attention_update(flow, ours, torch.full((3,), 1 / 3), torch.full((6,), 1 / 6))
    np.testing.assert_allclose(weights.student, updated[0], rtol=10 * tolerance)
    np.testing.assert_allclose(weights.teacher, updated[1], rtol=10 * tolerance)


def test_reference_approach_zeroes_mask_values_on_both_sides() -> None:
    reference = importlib.import_module("reference_approach")
    student, teacher = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), -1e4)
    teacher[..., 0] = 1.0
    (loss,) = reference.score_costs([student], [teacher])
    assert loss.item() == (2 * 2.0**2 + 2 * 3.0**2) / 4


def test_square_problem_has_the_optimum_of_the_plain_one() -> None:
    reference = importlib.import_module("reference_approach")
    random = np.random.default_rng(0)
    costs, first, second = random.random((4, 12)), random.dirichlet(np.ones(4)), random.dirichlet(np.ones(12))
    square = reference.square_problem(costs, first, second)
    flow = ot.emd(*square)
    assert flow[:4, 4:].sum() == pytest.approx(1)
    assert np.vdot(flow, square[2]) == pytest.approx(ot.emd2(first, second, costs))
    solved = reference.solve(costs, first, second)
    assert np.vdot(solved, costs) == pytest.approx(ot.emd2(first, second, costs), rel=1e-5)


def test_transport_benchmark_judges_plans() -> None:
    transport = importlib.import_module("transport")
    problem = transport.random_problem(4, 12, "skewed")
    best = transport.linear_program(problem)
    assert transport.judged(best, problem) == "right"
    assert not unnamed(transport.judged(np.outer(problem[1], problem[2]), problem), "cost")
    assert not unnamed(transport.judged(0.9 * best, problem), "mass")

    def hang() -> np.ndarray:
        raise subprocess.TimeoutExpired("solver", 1)

    assert transport.outcome(hang, problem).startswith("hangs")
    hostile = transport.hostile_problems()
    assert hostile.keys() > {"all costs 0", "one cost NaN", "one cost infinite", "masses of 1e-8", "unequal sums"}


def test_contenders_of_the_cost_stage_agree_with_its_float64_truth() -> None:
    script = importlib.import_module("layer_costs")
    layers = script.random_layers(3, 6, batch=2, length=4)
    loss, grads = script.exact_stage(layers)
    for contender, tolerance in {"plain": 1e-6, "reference": 1e-4}.items():
        found, found_grads = script.stage(contender, layers)
        torch.testing.assert_close(found.double(), loss, rtol=tolerance, atol=0)
        for own, true in zip(found_grads, grads, strict=True):
            torch.testing.assert_close(own.double(), true, rtol=tolerance, atol=tolerance * true.abs().max().item())


def test_precision_benchmark_separates_direct_from_gram() -> None:
    precision = importlib.import_module("precision")
    student, teacher = precision.noisy_layers(2, 8, 0.01, torch.float32)
    truth = precision.exact_costs(student, teacher)
    direct = layer_costs(student, teacher, torch.ones(2, 8, dtype=torch.long))
    assert precision.largest_error(direct, truth) < 1e-6
    assert precision.largest_error(precision.gram_costs(student, teacher), truth) > 1e-3


def test_growth_benchmark_fits_a_line() -> None:
    growth = importlib.import_module("growth")
    exact = growth.line([1, 2, 4, 8], [5, 7, 11, 19])
    assert exact == pytest.approx({"a": 3, "b": 2, "r2": 1, "deviation": 0}, abs=1e-9)
    bent = growth.line([0, 1, 2], [1, 1, 4])
    assert bent == pytest.approx({"a": 0.5, "b": 1.5, "r2": 0.75, "deviation": 1.0})


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_explains_itself(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    assert end.value.code == 0
    assert "--output" in capsys.readouterr().out


def test_the_page_names_every_script() -> None:
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert not unnamed(page, *(f"`{path.name}`" for path in BENCHMARKS.iterdir() if path.suffix in (".py", ".c")))
