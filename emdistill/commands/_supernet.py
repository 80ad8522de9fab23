"""The training of a supernet over the texts of a task, round by round, and the chains that are chosen from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain as joined
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from emdistill.config import DataConfig, RunConfig
from emdistill.console import say
from emdistill.data.batches import LengthGroupedSampler, PaddingCollator
from emdistill.errors import ConfigError
from emdistill.models.chain import read_operators
from emdistill.runs.chain_search import OUTSIDE, ChainRow, ChainStudy, RoundRow
from emdistill.search.chains import (
    BlockCandidate,
    ChainCost,
    Limit,
    best_chains,
    bins_of,
    candidates,
    cost_of,
    drawn,
    shrunk,
)
from emdistill.search.supernet import BlockStates, Supernet, block_states, train
from emdistill.ship.operators import Runtime
from emdistill.tasks.task import TaskData
from emdistill.teachers.opened import TeacherModel
from emdistill.training.evaluate import evaluate

WARM_UP = 0.05  # of the steps
JUDGED_EXACTLY = 10  # chains per limit
Batch = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class ChainConfig(DataConfig):
    """Everything that decides a search for chains.

    Args:
        teacher: folder or hub id of the fine-tuned teacher: a BERT, RoBERTa, XLM-R or CamemBERT.
        data: the task's data, as for `distill`; of its training rows only the texts are read.
        output: folder of the search; search.json in it has all that happened, report.html is its page.
        head: of a teacher of several tasks, the task whose head the students get.
        operators: what a chain may be made of, as for `--student chain:`; each once.
        blocks: the teacher's layers are cut into so many blocks; half as many as there are layers if not given.
        limits: the most that a student may take, separated by commas: 16M (parameters), 8ms (per text, measured here),
            both as 16M/8ms, or any.
        rows: learn from at most so many training rows.
        epochs: passes over the rows.
        rounds: so many parts of the training; after the first third each ends with the worse candidates going.
        bins: sizes and latencies among which candidates compete apart.
        judged: candidates of a bin that are judged at the end of a round.
        survivors: candidates that a bin keeps.
        batch_size: rows per step.
        learning_rate: of AdamW at first; it falls to 0.
        runtime: what latencies are measured in: pytorch, or onnx, which exports two models per operator.
        length: tokens of the text that is timed.
        threads: CPU threads that answer that text.
        method: distil every student that is found by this method, and score it.
        training: settings of these distillations, over the method's recipe.
        seed: seed of fresh weights, order and draws.
        overwrite: replace a search that stands in the output folder.
    """

    teacher: str
    head: str | None = None
    operators: str = "afc3d9"
    blocks: int | None = None
    limits: str = "any"
    rows: int | None = None
    epochs: float = 10.0
    rounds: int = 10
    bins: int = 5
    judged: int = 100
    survivors: int = 10
    batch_size: int = 32
    learning_rate: float = 2e-4
    runtime: Runtime = "pytorch"
    length: int = 64
    threads: int = 1
    method: str | None = None
    seed: int = 42

    @property
    def operator_names(self) -> list[str]:
        """Each operator's."""
        return read_operators(self.operators)

    @property
    def timing(self) -> dict[str, Any]:
        """How models are timed."""
        return {"runtime": self.runtime, "length": self.length, "threads": self.threads}


@dataclass(frozen=True)
class Material:
    """The teacher, and the texts that the supernet learns from and is judged on.

    run      the configuration that reads the data and the teacher
    blocks   that the teacher's layers are cut into
    """

    config: ChainConfig
    run: RunConfig
    opened: TeacherModel
    data: TaskData
    learned: Dataset
    held_out: Dataset
    blocks: int

    def batches(self, rows: Dataset, places: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Rows at these places, padded."""
        collate = PaddingCollator(self.opened.tokenizer)
        for batch in places:
            yield dict(collate(rows.select(batch).to_list()))

    @cached_property
    def judging(self) -> list[Batch]:
        """The held-out rows."""
        order = sorted(range(len(self.held_out)), key=lambda row: len(self.held_out[row]["input_ids"]))
        return list(self.batches(self.held_out, [order[start : start + 32] for start in range(0, len(order), 32)]))

    def student(self, word: str) -> Any:
        """A chain of these operators for the task, born from the teacher."""
        return self.opened.student(self.data.task, f"chain:{word}")[0]

    def score(self, model: Any) -> float:
        """On dev, by the metric that counts."""
        task, length = self.data.task, self.config.max_length
        return evaluate(model, self.opened.tokenizer, task, self.data.evaluation, max_length=length)[task.metrics[0]]


def learn(study: ChainStudy, material: Material, costs: Mapping[str, ChainCost]) -> Supernet:
    """The supernet after all rounds, those that are done already passed over."""
    plan = material.config
    supernet = Supernet(material.opened.model, plan.operator_names, material.blocks, seed=plan.seed)
    places = _order(material)
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=plan.learning_rate, weight_decay=0.0)
    warm_up = max(1, round(WARM_UP * len(places)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, max(0.0, 1 - step / len(places)))
    )
    parts: dict[str, Any] = {"supernet": supernet, "optimizer": optimizer, "schedule": schedule}
    supernet.scale_by(_judging_states(material, supernet))
    study.restore(**parts)
    every = [list(candidates(plan.operator_names, count)) for count in supernet.places]
    study.survivors = study.survivors or every
    bins = [
        dict(zip(block, bins_of([cost_of(name, costs) for name in block], plan.bins), strict=True)) for block in every
    ]
    for number in range(len(study.record.rounds), plan.rounds):
        part = places[number * len(places) // plan.rounds : (number + 1) * len(places) // plan.rounds]
        states = (
            block_states(material.opened.model, supernet, batch) for batch in material.batches(material.learned, part)
        )
        losses = train(supernet, states, study.survivors, optimizer, schedule, f"{plan.seed}-{number}")
        if number >= plan.rounds // 3:
            _shrink(study, material, supernet, bins, number)
        counts = tuple(map(len, study.survivors))
        study.end_round(RoundRow(steps=len(part), losses=tuple(losses), survivors=counts), **parts)
        shown = ", ".join(f"{loss:.3f}" for loss in losses)
        say(f"round {number + 1} of {plan.rounds}: losses by block {shown}; candidates left {list(counts)}")
    return supernet


def _order(material: Material) -> list[list[int]]:
    """The rows of every step of the training."""
    plan = material.config
    sampler = LengthGroupedSampler(list(map(len, material.learned["input_ids"])), plan.batch_size, plan.seed)

    def epoch(number: int) -> list[list[int]]:
        sampler.set_epoch(number)
        return list(sampler.batches())

    per_epoch = len(epoch(0))
    steps = max(plan.rounds, round(plan.epochs * per_epoch))
    return list(joined.from_iterable(epoch(number) for number in range(-(-steps // per_epoch))))[:steps]


def _shrink(
    study: ChainStudy, material: Material, supernet: Supernet, bins: Sequence[Mapping[BlockCandidate, int]], number: int
) -> None:
    """Of each block and bin the worse half of those judged goes."""
    plan, states = material.config, _judging_states(material, supernet)
    for block, survivors in enumerate(study.survivors):
        chosen = drawn(bins[block], survivors, plan.judged, f"{plan.seed}-{number}-{block}")
        losses = supernet.block_losses(block, chosen, states)
        study.survivors[block] = shrunk(bins[block], survivors, losses, plan.survivors)


def _judging_states(material: Material, supernet: Supernet) -> list[BlockStates]:
    return [block_states(material.opened.model, supernet, batch) for batch in material.judging]


def choose(
    study: ChainStudy, material: Material, supernet: Supernet, costs: Mapping[str, ChainCost], allowed: Sequence[Limit]
) -> None:
    """Note for each limit the best in truth among those that the sum of the blocks' losses puts first."""
    record, states = study.record, _judging_states(material, supernet)
    losses = [supernet.block_losses(block, names, states) for block, names in enumerate(study.survivors)]
    record.losses = [{"".join(name): loss for name, loss in block.items()} for block in losses]
    every = {name: cost_of(name, costs) for block in losses for name in block}
    record.chains, record.returned = {}, {}
    for limit in allowed:
        best = best_chains(losses, every, limit, JUDGED_EXACTLY, costs[OUTSIDE])
        if not best:
            raise ConfigError(f"--limits {limit}: no surviving chain keeps it; give more, or more --bins")
        for chain in best:  # of those of one word the first is the best
            if chain.word not in record.chains:
                error = supernet.end_error(chain.blocks, states)
                record.chains[chain.word] = ChainRow(**vars(chain), end_error=error)
        words = {chain.word for chain in best}
        record.returned[str(limit)] = min(sorted(words), key=lambda word: record.chains[word].end_error)
