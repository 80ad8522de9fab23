"""Which layer should teach which? A genetic search over layer mappings, beside heuristics and a random search.

The genetic algorithm keeps the `population` best of the genes it has evaluated (so the best are never lost). Each new
gene is a child of two of them, each the better of two drawn at random: one-point crossover, then mutation place by
place. It learns from its own genes alone, so that a random search of equal budget is a fair comparison.

Optuna was not taken for it: the random state of its NSGAIISampler begins anew after a resume, it draws genes that are
known or running elsewhere, and it knows no monotone space.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emdistill.errors import EmdistillError, TrainingError
from emdistill.search.genes import Gene, GeneSpace, gene_name, heuristic_genes
from emdistill.search.shared_study import GeneTrial, Proposer, SharedStudy

Evaluate = Callable[[Gene], Mapping[str, float]]
Report = Callable[[GeneTrial, "SearchResult"], None]

TRIES = 100  # children or draws that are known already, before one is drawn from those that are left
HOPELESS = 3  # failures without a success after which the fault is not the gene's
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class SearchResult:
    """Every trial of a study so far, abandoned ones left out, in the order in which they were started.

    planned   how many trials there are when the search has ended
    """

    space: GeneSpace
    trials: tuple[GeneTrial, ...]
    planned: int

    @property
    def ended(self) -> int:
        """How many trials have finished or failed."""
        return sum(trial.state != "running" for trial in self.trials)

    def finished(self, *proposers: Proposer) -> list[GeneTrial]:
        """Trials with a fitness, of these proposers or of all."""
        return [t for t in self.trials if t.state == "finished" and (not proposers or t.proposer in proposers)]

    def best_of(self, *proposers: Proposer) -> GeneTrial | None:
        """The fittest of these proposers' trials, the earliest of equals; None where none has a fitness."""
        return max(self.finished(*proposers), key=lambda trial: trial.fitness, default=None)

    @property
    def best(self) -> GeneTrial:
        """The fittest of all; TrainingError where none has a fitness."""
        best = self.best_of()
        if best is None:
            last = self.trials[-1].error if self.trials else "none was evaluated"
            raise TrainingError(f"no layer mapping could be evaluated: {last}")
        return best

    @property
    def fitness(self) -> dict[Gene, float]:
        """The fitness of every different gene that has one."""
        return {trial.gene: trial.fitness for trial in self.finished()}


def search(
    evaluate: Evaluate,
    *,
    student_layers: int,
    teacher_layers: int,
    storage: Path,
    evaluations: int = 60,
    random_evaluations: int | None = None,
    population: int = 10,
    mutation: float = 0.2,
    seed: int = 42,
    monotone: bool = False,
    about: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> SearchResult:
    """Search the gene of the greatest fitness; the same call goes on with a study that was stopped.

    evaluate     gene -> score by task; fitness is their mean. What it raises is written down and the search goes on,
                 but for OSError and errors of ours other than TrainingError, which are no gene's fault
    storage      the study's folder; several processes may work on it at once, each in its own call
    evaluations, random_evaluations  different genes that the genetic and the random search evaluate (None: as many);
                 both end earlier where there are no more. A gene that another proposer has had is looked up: it
                 counts, or who comes second would see more genes, and costs nothing
    about        what else decides the fitness; a study of another `about`, seed or algorithm is refused
    report       is called with every trial that this process has ended, and all trials so far

    Heuristics are evaluated first, and are of the first population.
    One process gives the same genes for the same seed, however often it was stopped between.
    Raises ConfigError for impossible numbers, OutputError for another study, TrainingError where everything fails.
    """
    settings: dict[str, Any] = {"student_layers": student_layers, "teacher_layers": teacher_layers}
    settings |= {"monotone": monotone, "seed": seed, "population": population, "mutation": mutation}
    space = GeneSpace(student_layers, teacher_layers, monotone)
    budgets: dict[Proposer, int] = {
        "genetic": evaluations,
        "random": evaluations if random_evaluations is None else random_evaluations,
    }
    plan = _Plan(space, heuristic_genes(student_layers, teacher_layers), budgets, population, mutation, seed)
    with SharedStudy(storage, settings | {"about": dict(about or {})}) as study:
        while _step(study, plan, evaluate, report):
            pass
        return plan.result(study.trials())


@dataclass(frozen=True)
class _Plan:
    """Which gene is next: a function of the trials so far and the seed, and of nothing else."""

    space: GeneSpace
    heuristics: Mapping[str, Gene]
    budgets: Mapping[Proposer, int]
    population: int
    mutation: float
    seed: int

    def result(self, trials: Iterable[GeneTrial]) -> SearchResult:
        """What is there when this is the plan."""
        planned = len(self.heuristics) + sum(min(budget, self.space.size) for budget in self.budgets.values())
        return SearchResult(self.space, tuple(_kept(trials)), planned)

    def next(self, trials: Sequence[GeneTrial]) -> tuple[Gene, Proposer, str] | None:
        """The next gene, who proposes it, and a heuristic's name; None where there is none (yet)."""
        begun = {trial.name for trial in trials if trial.proposer == "heuristic"}
        running = {trial.gene for trial in trials if trial.state == "running"}
        for name, gene in self.heuristics.items():
            if name not in begun and gene not in running:
                return gene, "heuristic", name
        for stream, (proposer, budget) in enumerate(self.budgets.items()):
            own = [trial for trial in trials if trial.proposer == proposer]
            if len(own) >= budget:
                continue
            rng = np.random.default_rng([self.seed, stream, len(own)])
            members = [trial for trial in trials if trial.proposer in ("genetic", "heuristic")]
            parents = self._parents(members) if proposer == "genetic" else []
            proposed = self._new_gene(rng, parents, {trial.gene for trial in own} | running)
            if proposed is not None:
                return proposed, proposer, ""
        return None

    def _parents(self, members: Sequence[GeneTrial]) -> list[GeneTrial]:
        """The population: the best so far, once so many have been begun; before that nobody, and genes are drawn."""
        if len(members) < self.population:
            return []
        finished = [trial for trial in members if trial.state == "finished"]
        return sorted(finished, key=lambda trial: trial.fitness, reverse=True)[: self.population]

    def _new_gene(self, rng: np.random.Generator, parents: Sequence[GeneTrial], taken: set[Gene]) -> Gene | None:
        """A child of the parents, or a gene at random where there are no two; none of those taken, None if all are."""
        for _ in range(TRIES):
            if len(parents) < 2:
                gene = self.space.random(rng)
            else:
                gene = self.space.child(rng, _tournament(rng, parents), _tournament(rng, parents), self.mutation)
            if gene not in taken:
                return gene
        if len(parents) >= 2:  # the population has become of one kind
            return self._new_gene(rng, [], taken)
        left = [gene for gene in self.space if gene not in taken]  # draws fail so often only where few are left
        return left[int(rng.integers(len(left)))] if left else None


def _tournament(rng: np.random.Generator, parents: Sequence[GeneTrial]) -> Gene:
    """The better of two drawn at random; parents stand best first."""
    return parents[int(rng.integers(len(parents), size=2).min())].gene


def _step(study: SharedStudy, plan: _Plan, evaluate: Evaluate, report: Report | None) -> bool:
    """Choose and evaluate one gene, or wait for other processes; False where all is done."""
    with study.choosing() as every:
        trials = _kept(every)
        chosen = plan.next(trials)
        if chosen is not None:
            gene, proposer, name = chosen
            earlier = {trial.gene: trial for trial in trials if trial.state in ("finished", "failed")}.get(gene)
            trial = study.start(gene, proposer, name, reused=earlier is not None)
    if chosen is None:
        # Others may leave genes behind, or finish one that is due here as well.
        busy = any(trial.state == "running" for trial in trials)
        time.sleep(POLL_SECONDS if busy else 0.0)
        return busy
    if earlier is None:
        _evaluate(study, trial, evaluate)
    elif earlier.state == "failed":
        study.fail(trial, earlier.error, 0.0)
    else:
        study.finish(trial, earlier.scores, 0.0)
    result = plan.result(study.trials())
    if report is not None:
        report(next(ended for ended in result.trials if ended.number == trial.number), result)
    _check_hope(result.trials)
    return True


def _evaluate(study: SharedStudy, trial: GeneTrial, evaluate: Evaluate) -> None:
    started = time.perf_counter()
    try:
        scores = {task: float(value) for task, value in evaluate(trial.gene).items()}
        if not scores or not all(map(math.isfinite, scores.values())):
            raise TrainingError(f"no finite score: {scores}")
    except BaseException as error:
        ours = isinstance(error, EmdistillError) and not isinstance(error, TrainingError)
        if not isinstance(error, Exception) or isinstance(error, OSError) or ours:
            study.abandon(trial)
            raise
        study.fail(trial, f"{type(error).__name__}: {error}", time.perf_counter() - started)
    else:
        study.finish(trial, scores, time.perf_counter() - started)


def _check_hope(trials: Sequence[GeneTrial]) -> None:
    """Raise TrainingError where the first genes all failed."""
    failed = [trial for trial in trials if trial.state == "failed" and not trial.reused]
    if len(failed) >= HOPELESS and not any(trial.state == "finished" for trial in trials):
        raise TrainingError(
            f"the first {len(failed)} layer mappings could not be evaluated; the last, {gene_name(failed[-1].gene)}: "
            f"{failed[-1].error}"
        )


def _kept(trials: Iterable[GeneTrial]) -> list[GeneTrial]:
    return [trial for trial in trials if trial.state != "abandoned"]
