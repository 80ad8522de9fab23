"""Which operators, in which order, make a student of a size? The spine of `emdistill search-chain`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain as joined
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from emdistill.commands._open_teacher import open_teacher
from emdistill.commands._teachers import TeacherModel
from emdistill.config import LIMITS, check_limits
from emdistill.console import Table, print_table, say, short
from emdistill.data.batches import LengthGroupedSampler, padding_collator, tokenise
from emdistill.data.read import hold_out, read_data
from emdistill.errors import ConfigError, Interrupted, OutputError
from emdistill.models.chain import read_operators
from emdistill.models.encoder import save_student
from emdistill.models.teacher import Teacher
from emdistill.options import load_config
from emdistill.runs.describe import file_hashes
from emdistill.runs.open_run import check_writable, remove
from emdistill.runs.reading import remember_reading
from emdistill.search.chain_study import LOG, STATE, ChainStudy
from emdistill.search.chains import (
    BlockCandidate,
    Chain,
    ChainCost,
    Limit,
    best_chains,
    bins_of,
    candidates,
    cost_of,
    drawn,
    read_limits,
    shrunk,
)
from emdistill.search.supernet import BlockStates, Supernet, block_states, take_over, train
from emdistill.ship.operators import Runtime, milliseconds, operator_costs
from emdistill.students import make_student
from emdistill.tasks.task import Task

STUDENTS = "students"
HELD_OUT_SHARE, HELD_OUT_AT_MOST = 0.1, 128  # rows that candidates are judged on
WARM_UP = 0.05  # of the steps
JUDGED_EXACTLY = 10  # chains per limit
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class FoundChain:
    """The best chain within a limit: where it was saved, the error of its last states, milliseconds as measured."""

    limit: Limit
    chain: Chain
    end_error: float
    milliseconds: float
    folder: Path


@dataclass(frozen=True)
class Plan:
    """How a supernet learns: options of `search_chain`."""

    operators: tuple[str, ...]
    blocks: int
    epochs: float
    rounds: int
    bins: int
    judged: int
    survivors: int
    batch_size: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Material:
    """The teacher, and the texts that the supernet learns from and is judged on."""

    teacher: Teacher
    tokenizer: Any
    task: Task
    learned: Dataset
    held_out: Dataset
    max_length: int

    def batches(self, rows: Dataset, places: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Rows at these places, padded."""
        collate = padding_collator(self.tokenizer)
        for batch in places:
            yield dict(collate(rows.select(batch).to_list()))

    @cached_property
    def judging(self) -> list[Batch]:
        """The held-out rows."""
        order = sorted(range(len(self.held_out)), key=lambda row: len(self.held_out[row]["input_ids"]))
        return list(self.batches(self.held_out, [order[start : start + 32] for start in range(0, len(order), 32)]))

    def student(self, word: str, seed: int = 0) -> Any:
        """A chain of these operators for the task, born from the teacher."""
        options: Any = {"labels": self.task.labels, "predictions": self.task.predictions, "seed": seed}
        return make_student(f"chain:{word}", self.teacher.model, self.tokenizer, **options)[0]


def search_chain(
    teacher: str,
    data: str,
    output: str,
    task: str | None = None,
    text: str = "text",
    text_pair: str | None = None,
    label: str = "label",
    operators: str = "afc3d9",
    blocks: int | None = None,
    limits: str = "any",
    rows: int | None = None,
    epochs: float = 10.0,
    rounds: int = 10,
    bins: int = 5,
    judged: int = 100,
    survivors: int = 10,
    batch_size: int = 32,
    learning_rate: float = 2e-4,
    max_length: int = 128,
    runtime: Runtime = "pytorch",
    length: int = 64,
    threads: int = 1,
    seed: int = 42,
    overwrite: bool = False,
) -> list[FoundChain]:
    """Search chains of operators for several sizes at once, by one supernet that learns the teacher's blocks.

    A step draws a candidate per block and teaches it the block's states; round by round the worse half of those judged
    go, size by size. A chain's loss is the sum of its blocks'. Found chains are saved with the supernet's weights, for
    `distill --student OUTPUT/students/NAME`. The same command goes on with a search that was stopped.
    Raises ConfigError, DataError, ModelError and OutputError before any training; Interrupted after Ctrl-C.

    Args:
        teacher: folder or hub id of the fine-tuned teacher: a BERT, RoBERTa, XLM-R or CamemBERT.
        data: the task's data, as for `distill`; of its training rows only the texts are read.
        output: folder of the search; search.jsonl in it has all that happened.
        task: the task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label.
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
        learning_rate: of AdamW, falling to 0.
        max_length: tokens per sentence or pair at most.
        runtime: what latencies are measured in: pytorch, or onnx, which exports two models per operator.
        length: tokens of the text that is timed.
        threads: that answer it.
        seed: of fresh weights, order and draws.
        overwrite: replace a search that stands in the output folder.
    """
    options = dict(locals())
    check_limits(**{name: value for name, value in options.items() if name in LIMITS})
    allowed, names, folder = read_limits(limits), _distinct(operators), Path(output)
    reading = {name: options[name] for name in ("teacher", "data", "task", "text", "text_pair", "label", "max_length")}
    material, hashes = _material(reading, output, rows, seed)
    layers = material.teacher.shape.layers
    if not 1 <= (blocks := blocks or max(1, layers // 2)) <= layers:
        raise ConfigError(f"--blocks {blocks}: this teacher has {layers} layers; give 1 to {layers}")
    plan = Plan(names, blocks, epochs, rounds, bins, judged, survivors, batch_size, learning_rate, seed)
    timing: dict[str, Any] = {"runtime": runtime, "length": length, "threads": threads}
    check_writable(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LOG).is_file():
        raise OutputError(f"{folder} is not empty and holds no search; choose another --output")
    if overwrite:
        remove(folder, (LOG, STATE, STUDENTS))
    folder.mkdir(parents=True, exist_ok=True)
    passed_over = ("output", "limits", "overwrite", *timing)
    settings = {name: value for name, value in options.items() if name not in passed_over}
    study = ChainStudy(folder, settings | {"blocks": blocks, "hashes": hashes})
    table, outside = study.costs or _measure_costs(study, material, plan, timing)
    _check_reach(allowed, plan, table, outside)
    try:
        supernet = _learn(study, material, plan, table)
        found = _choose(study, material, plan, supernet, (table, outside), allowed)
    except KeyboardInterrupt:
        raise Interrupted("the search stopped; its finished rounds are kept") from None
    return _save(study, material, supernet, found, timing)


def _distinct(operators: str) -> tuple[str, ...]:
    names = read_operators(operators)
    if len({*names}) < len(names):
        raise ConfigError(f"--operators {operators}: name each operator once")
    return tuple(names)


def _material(reading: dict[str, Any], output: str, rows: int | None, seed: int) -> tuple[Material, dict[str, str]]:
    """What is learned from, and the hashes of all that was read."""
    config = load_config(**reading, output=output, student="1", method="soft-targets", baselines="none")
    opened, data = open_teacher(config, read_data(config))
    if not isinstance(opened, TeacherModel):
        raise ConfigError(f"--teacher {config.teacher}: the blocks of one encoder are learned; name one")
    rest, held_out = hold_out(data.train, data.task, HELD_OUT_SHARE, seed, HELD_OUT_AT_MOST)
    if rows is not None and rows < len(rest):
        rest = hold_out(rest, data.task, rows / len(rest), seed, rows)[1]
    learned, judged = (
        tokenise(part, opened.tokenizer, config.max_length, data.task.kind).remove_columns(["labels", "length"])
        for part in (rest, held_out)
    )
    material = Material(opened.model, opened.tokenizer, data.task, learned, judged, config.max_length)
    material.student("af")  # an encoder that gives no operators is refused now
    return material, {"teacher": opened.fingerprint, **file_hashes(data)}


def _measure_costs(
    study: ChainStudy, material: Material, plan: Plan, timing: dict[str, Any]
) -> tuple[dict[str, ChainCost], ChainCost]:
    """What each operator takes on this machine, noted once for the whole search."""
    table, outside = operator_costs(material.student, plan.operators, **timing)
    rows = {name: [cost.parameters, cost.milliseconds] for name, cost in table.items()}
    study.note("costs", operators=rows, outside=[outside.parameters, outside.milliseconds], **timing)
    for name, cost in {**table, "outside": outside}.items():
        say(f"{name}: {cost.parameters:,} parameters, {cost.milliseconds:.2f} ms")
    return table, outside


def _check_reach(allowed: Sequence[Limit], plan: Plan, table: Mapping[str, ChainCost], outside: ChainCost) -> None:
    """Raise ConfigError for a limit that no chain keeps."""
    least = ChainCost(
        outside.parameters + plan.blocks * min(cost.parameters for cost in table.values()),
        outside.milliseconds + plan.blocks * min(cost.milliseconds for cost in table.values()),
    )
    for limit in allowed:
        if not limit.allows(least):
            raise ConfigError(
                f"--limits {limit}: the smallest chain of these operators has {least.parameters / 1e6:.4g}M "
                f"parameters, the fastest takes {least.milliseconds:.3g}ms; give more, or a smaller teacher"
            )


def _learn(study: ChainStudy, material: Material, plan: Plan, table: Mapping[str, ChainCost]) -> Supernet:
    """The supernet after all rounds, those that are done already passed over."""
    supernet = Supernet(material.teacher, plan.operators, plan.blocks, seed=plan.seed)
    places = _order(material, plan)
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=plan.learning_rate, weight_decay=0.0)
    warm_up = max(1, round(WARM_UP * len(places)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, max(0.0, 1 - step / len(places)))
    )
    parts: dict[str, Any] = {"supernet": supernet, "optimizer": optimizer, "schedule": schedule}
    supernet.scale_by(_judging_states(material, supernet))
    study.restore(**parts)
    every = [list(candidates(plan.operators, count)) for count in supernet.places]
    study.survivors = study.survivors or every
    bins = [
        dict(zip(block, bins_of([cost_of(name, table) for name in block], plan.bins), strict=True)) for block in every
    ]
    for number in range(study.round, plan.rounds):
        part = places[number * len(places) // plan.rounds : (number + 1) * len(places) // plan.rounds]
        states = (block_states(material.teacher, supernet, batch) for batch in material.batches(material.learned, part))
        losses = train(supernet, states, study.survivors, optimizer, schedule, f"{plan.seed}-{number}")
        if number >= plan.rounds // 3:
            _shrink(study, material, plan, supernet, bins, number)
        study.round = number + 1
        counts = [len(block) for block in study.survivors]
        study.note("round", number=study.round, steps=len(part), losses=losses, survivors=counts)
        study.save(**parts)
        shown = ", ".join(f"{loss:.3f}" for loss in losses)
        say(f"round {study.round} of {plan.rounds}: losses by block {shown}; candidates left {counts}")
    return supernet


def _order(material: Material, plan: Plan) -> list[list[int]]:
    """The rows of every step of the training."""
    sampler = LengthGroupedSampler(list(map(len, material.learned["input_ids"])), plan.batch_size, plan.seed)

    def epoch(number: int) -> list[list[int]]:
        sampler.set_epoch(number)
        return sampler.batches()

    per_epoch = len(epoch(0))
    steps = max(plan.rounds, round(plan.epochs * per_epoch))
    return list(joined.from_iterable(epoch(number) for number in range(-(-steps // per_epoch))))[:steps]


def _shrink(
    study: ChainStudy, material: Material, plan: Plan, supernet: Supernet, bins: Sequence[Mapping[BlockCandidate, int]],
    number: int,
) -> None:  # fmt: skip
    """Of each block and bin the worse half of those judged goes."""
    states = _judging_states(material, supernet)
    for block, survivors in enumerate(study.survivors):
        chosen = drawn(bins[block], survivors, plan.judged, f"{plan.seed}-{number}-{block}")
        losses = supernet.block_losses(block, chosen, states)
        study.survivors[block] = shrunk(bins[block], survivors, losses, plan.survivors)


def _judging_states(material: Material, supernet: Supernet) -> list[BlockStates]:
    return [block_states(material.teacher, supernet, batch) for batch in material.judging]


def _choose(
    study: ChainStudy,
    material: Material,
    plan: Plan,
    supernet: Supernet,
    costs: tuple[Mapping[str, ChainCost], ChainCost],
    allowed: Sequence[Limit],
) -> list[FoundChain]:
    """For each limit the best in truth among those that the sum of the blocks' losses puts first."""
    table, outside = costs
    states = _judging_states(material, supernet)
    losses = [supernet.block_losses(block, names, states) for block, names in enumerate(study.survivors)]
    study.events = [event for event in study.events if event["event"] not in ("survivors", "student")]
    study.note("survivors", losses=[{"".join(name): loss for name, loss in block.items()} for block in losses])
    every = {name: cost_of(name, table) for block in losses for name in block}
    found = []
    for limit in allowed:
        chains = best_chains(losses, every, limit, JUDGED_EXACTLY, outside)
        if not chains:
            raise ConfigError(f"--limits {limit}: no surviving chain keeps it; give more, or more --bins")
        errors = {chain: supernet.end_error(chain.blocks, states) for chain in chains}
        best = min(chains, key=lambda chain: errors[chain])
        folder = study.folder / STUDENTS / best.word
        found.append(FoundChain(limit, best, errors[best], 0.0, folder))
    return found


def _save(
    study: ChainStudy, material: Material, supernet: Supernet, found: Sequence[FoundChain], timing: dict[str, Any]
) -> list[FoundChain]:
    """The students' folders, their measured times, and the table."""
    students = {}
    for chain in {one.chain for one in found}:
        student = students[chain.word] = material.student(chain.word)
        take_over(student, supernet, chain.blocks)
    times = milliseconds(students, **timing)
    for one in found:
        student = students[one.chain.word]
        remember_reading(student, material.tokenizer, material.task, material.max_length)
        save_student(student, material.tokenizer, one.folder)
    found = [replace(one, milliseconds=times[one.chain.word]) for one in found]
    lines = []
    for one in found:
        chain = one.chain
        study.note(
            "student", limit=str(one.limit), operators=chain.word, blocks=chain.blocks, loss=chain.loss,
            end_error=one.end_error, parameters=chain.cost.parameters, predicted_ms=chain.cost.milliseconds,
            measured_ms=one.milliseconds,
        )  # fmt: skip
        cells = (chain.loss, one.end_error, chain.cost.parameters / 1e6, chain.cost.milliseconds, one.milliseconds)
        lines.append([str(one.limit), f"chain:{chain.word}", *map(short, cells)])
    study.write_log()
    headings = ["limit", "student", "loss of\nblocks", "error at\nthe end", "params\n(millions)", "ms\npredicted"]
    print_table(Table([*headings, "ms\nmeasured"], lines, words=(0, 1)))
    say(f"distil one further: emdistill distill --student {found[0].folder} ...")
    return found
