"""Which operators, in which order, make a student of a size? The spine of `emdistill search-chain`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emdistill.commands._supernet import Material, Plan, choose, learn
from emdistill.commands.distill import distill
from emdistill.config import LIMITS, check_limits, command_of, config_dict
from emdistill.console import conclude, say
from emdistill.data.batches import tokenise
from emdistill.data.read import hold_out, read_data
from emdistill.errors import ConfigError, Interrupted
from emdistill.models.chain import read_operators
from emdistill.models.encoder import save_student
from emdistill.models.size import parameter_count
from emdistill.options import load_config
from emdistill.runs.chain_search import DISTILLED, OUTSIDE, STATES, STUDENTS, TEACHER, ChainSearch, ChainStudy
from emdistill.runs.describe import file_hashes
from emdistill.runs.open_run import holds_run, remove
from emdistill.runs.places import check_folder, one_owner
from emdistill.runs.reading import remember_reading
from emdistill.runs.record import RunRecord
from emdistill.runs.search_record import taken_up, write_search
from emdistill.search.chains import ChainCost, check_count, check_reach, read_limits
from emdistill.search.supernet import Supernet, take_over
from emdistill.ship.measurement import busy_notes, machine
from emdistill.ship.operators import Runtime, milliseconds, operator_costs
from emdistill.show.chain_report import limits_table, notes, verdict, write_chain_report
from emdistill.show.page import PLOTLY
from emdistill.students.chain import check_gives_operators
from emdistill.teachers.open_teacher import input_hashes, open_teacher
from emdistill.teachers.opened import TeacherModel
from emdistill.training.evaluate import score_sets

PAGE = "report.html"
HELD_OUT_SHARE, HELD_OUT_AT_MOST = 0.1, 128  # rows that candidates are judged on
READING = ("teacher", "head", "data", "task", "text", "text_pair", "label", "max_length")
DECIDE_NOTHING = ("output", "limits", "method", "training", "overwrite")  # about the supernet


def search_chain(
    teacher: str,
    data: str,
    output: str,
    task: str | None = None,
    text: str = "text",
    text_pair: str | None = None,
    label: str = "label",
    head: str | None = None,
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
    method: str | None = None,
    training: dict[str, Any] | None = None,
    seed: int = 42,
    overwrite: bool = False,
) -> ChainSearch:
    """Search chains of operators for several sizes at once, by one supernet that learns the teacher's blocks.

    A step draws a candidate per block and teaches it the block's states; round by round the worse half of those judged
    go, size by size. A chain's loss is the sum of its blocks'. Found chains are saved with the supernet's weights, for
    `distill --student OUTPUT/students/NAME`, and for `compress --chains OUTPUT`; --method distils them at once. The
    same command goes on with a search that was stopped.
    Raises ConfigError, DataError, ModelError and OutputError before any training, BusyError where another process is at
    this search; Interrupted after Ctrl-C.

    Args:
        teacher: folder or hub id of the fine-tuned teacher: a BERT, RoBERTa, XLM-R or CamemBERT.
        data: the task's data, as for `distill`; of its training rows only the texts are read.
        output: folder of the search; search.json in it has all that happened, report.html is its page.
        task: the task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label.
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
        max_length: tokens per sentence or pair at most.
        runtime: what latencies are measured in: pytorch, or onnx, which exports two models per operator.
        length: tokens of the text that is timed.
        threads: CPU threads that answer that text.
        method: distil every student that is found by this method, and score it.
        training: settings of these distillations, over the method's recipe.
        seed: seed of fresh weights, order and draws.
        overwrite: replace a search that stands in the output folder.
    """
    options = dict(locals())
    check_limits(**{name: options[name] for name in LIMITS.keys() & options.keys()})
    allowed, names, folder = read_limits(limits), tuple(read_operators(operators)), Path(output)
    if len({*names}) < len(names):
        raise ConfigError(f"--operators {operators}: name each operator once")
    if training and method is None:
        raise ConfigError("--training is that of the students' distillations; name their --method")
    check_folder(folder, ChainSearch.FILE, "search")
    distilled = {"method": method or "soft-targets", "training": training or {}, "rows": rows, "seed": seed}
    reading = {name: options[name] for name in READING} | distilled
    material, hashes = _material(reading, output)
    layers = material.opened.model.shape.layers
    blocks = max(1, layers // 2) if blocks is None else blocks
    if not 1 <= blocks <= layers:
        raise ConfigError(f"--blocks {blocks}: this teacher has {layers} layers; give 1 to {layers}")
    check_count(names, layers, blocks)
    plan = Plan(names, blocks, epochs, rounds, bins, judged, survivors, batch_size, learning_rate, seed)
    settings = {name: value for name, value in options.items() if name not in DECIDE_NOTHING}
    known = material.data.task
    record = ChainSearch(
        command=command_of("search-chain", search_chain, options),
        settings=settings | {"blocks": blocks, "hashes": hashes},
        task=known.name, metric=known.metrics[0], machine=machine(threads),
    )  # fmt: skip
    with one_owner(folder, "search"):
        if overwrite:
            states = (path.name for path in folder.glob(STATES))
            remove(folder, (ChainSearch.FILE, *states, STUDENTS, DISTILLED, PAGE, PLOTLY))
        study = ChainStudy(folder, taken_up(folder, record, status="searching"))
        timing: dict[str, Any] = {"runtime": runtime, "length": length, "threads": threads}
        costs = study.record.costs or _measure_costs(study, material, plan, timing)
        check_reach(allowed, [costs[name] for name in names], blocks, costs[OUTSIDE])
        logits = material.opened.logits(
            material.data.evaluation, max_length=max_length, description="the teacher's answers"
        )
        study.record.teacher = score_sets(known, logits, material.data.evaluation)
        study.record.dev_rows = len(next(iter(material.data.evaluation.values())))
        try:
            supernet = learn(study, material, plan, costs)
            choose(study, material, supernet, costs, allowed)
            _save(study, material, supernet, timing)
            if method is not None:
                _distil(study, material, reading, logits)
        except KeyboardInterrupt:
            raise Interrupted("the search stopped; its finished rounds are kept") from None
        _finish(study)
    return study.record


def _material(reading: dict[str, Any], output: str) -> tuple[Material, dict[str, str]]:
    """What is learned from, and the hashes of all that was read."""
    config = load_config(**reading, output=output, student="1", baselines="none")
    opened, data = open_teacher(config, read_data(config))
    if not isinstance(opened, TeacherModel):
        raise ConfigError(f"--teacher {config.teacher}: the blocks of one encoder are learned; name one")
    check_gives_operators(opened.model.model, "search with a teacher of those")
    rest, held_out = hold_out(data.train, data.task, HELD_OUT_SHARE, config.seed, HELD_OUT_AT_MOST)
    if config.rows is not None and config.rows < len(rest):
        rest = hold_out(rest, data.task, config.rows / len(rest), config.seed, config.rows)[1]
    learned, judged = (
        tokenise(part, opened.tokenizer, config.max_length, data.task.kind).remove_columns(["labels", "length"])
        for part in (rest, held_out)
    )
    material = Material(config, opened, data, learned, judged)
    material.student("af")  # texts longer than its positions are refused now
    return material, {"teacher": opened.fingerprint, **file_hashes(data)}


def _measure_costs(study: ChainStudy, material: Material, plan: Plan, timing: dict[str, Any]) -> dict[str, ChainCost]:
    """What each operator takes on this machine, and what is outside, noted once for the whole search."""
    table, outside = operator_costs(material.student, plan.operators, **timing)
    study.record.costs = costs = {**table, OUTSIDE: outside}
    study.folder.mkdir(parents=True, exist_ok=True)
    write_search(study.folder, study.record)
    for name, cost in costs.items():
        say(f"{name}: {cost.parameters:,} parameters, {cost.milliseconds:.2f} ms")
    return costs


def _save(study: ChainStudy, material: Material, supernet: Supernet, timing: dict[str, Any]) -> None:
    """The students' folders, what they and the teacher take as measured, and their scores."""
    record, task = study.record, material.data.task
    models = {TEACHER: material.opened.model.model}
    for word, row in record.students.items():
        student = models[word] = material.student(word)
        take_over(student, supernet, row.blocks)
        remember_reading(student, material.opened.tokenizer, task, material.config.max_length)
        save_student(student, material.opened.tokenizer, study.folder / STUDENTS / word)
        record.chains[word] = replace(row, found=material.score(student))
    with busy_notes(record.machine.threads) as record.notes:
        times = milliseconds(models, **timing)
    record.measured = {name: ChainCost(parameter_count(model), times[name]) for name, model in models.items()}
    write_search(study.folder, record)


def _distil(study: ChainStudy, material: Material, reading: dict[str, Any], logits: Mapping[str, Any]) -> None:
    """Distil the students; a distillation that was begun is gone on with, one of other settings replaced."""
    record, folder = study.record, study.folder
    for word, row in record.students.items():
        place = folder / DISTILLED / word
        config = load_config(
            **reading, student=str(folder / STUDENTS / word), output=str(place), baselines="none", select="last",
        )  # fmt: skip
        hashes = input_hashes(config, material.opened, material.data)
        resume = holds_run(place, RunRecord(config=config_dict(config), seed=config.seed, hashes=hashes))
        config = replace(config, resume=resume, overwrite=not resume)
        say(f"chain:{word}: a distillation by {config.method}")
        run = distill(config, examples=material.data, teacher_logits=logits, quiet=True).run
        record.chains[word] = replace(row, distilled=run.scores["student"][record.metric])


def _finish(study: ChainStudy) -> None:
    """The table, the notes, the verdict and the page."""
    record, page = study.record, study.folder / PAGE
    record.verdict, record.notes, record.status = verdict(record), [*record.notes, *notes(record)], "finished"
    write_search(study.folder, record)
    write_chain_report(page, record)
    conclude([limits_table(record)], record.notes, record.verdict, f"the page: {page}")
