"""Which operators, in which order, make a student of a size? The spine of `emdistill search-chain`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emdistill.commands._supernet import ChainConfig, Material, choose, learn
from emdistill.commands.distill import distill
from emdistill.config import command_of, config_dict, read_by, run_options
from emdistill.console import conclude, say
from emdistill.data.batches import tokenise
from emdistill.data.read import hold_out, read_data
from emdistill.errors import ConfigError, Interrupted
from emdistill.models.encoder import save_student
from emdistill.models.size import parameter_count
from emdistill.options import load_config, load_options
from emdistill.runs.chain_search import DISTILLED, OUTSIDE, STATES, STUDENTS, TEACHER, ChainSearch, ChainStudy
from emdistill.runs.describe import file_hashes
from emdistill.runs.open_run import holds_run, remove
from emdistill.runs.places import check_folder, check_not_read, one_owner
from emdistill.runs.reading import remember_reading
from emdistill.runs.record import RunRecord
from emdistill.runs.search_record import taken_up, write_search
from emdistill.search.chains import ChainCost, check_count, check_reach, read_limits
from emdistill.search.supernet import Supernet, take_over
from emdistill.ship.measurement import busy_notes, machine
from emdistill.ship.operators import milliseconds, operator_costs
from emdistill.show.chain_report import limits_table, notes, verdict, write_chain_report
from emdistill.show.page import PLOTLY
from emdistill.students.chain import check_gives_operators
from emdistill.teachers.open_teacher import input_hashes, open_teacher
from emdistill.teachers.opened import TeacherModel
from emdistill.training.evaluate import score_sets

PAGE = "report.html"
REPLACED = (ChainSearch.FILE, STUDENTS, DISTILLED, PAGE, PLOTLY)
HELD_OUT_SHARE, HELD_OUT_AT_MOST = 0.1, 128  # rows that candidates are judged on
DECIDE_NOTHING = {"output", "limits", "method", "training"}  # about the supernet


def search_chain(config: ChainConfig | None = None, **options: Any) -> ChainSearch:
    """Search chains of operators for several sizes at once, by one supernet that learns the teacher's blocks.

    A step draws a candidate per block and teaches it the block's states; round by round the worse half of those judged
    go, size by size. A chain's loss is the sum of its blocks'. Found chains are saved with the supernet's weights, for
    `distill --student OUTPUT/students/NAME`, and for `compress --chains OUTPUT`; --method distils them at once. The
    same command goes on with a search that was stopped.
    Raises ConfigError, DataError, ModelError and OutputError before any training, BusyError where another process is at
    this search, TrainingError where a loss is NaN or infinite; Interrupted after Ctrl-C.

    config   a ChainConfig, or its fields as keywords: search_chain(teacher=..., data=..., output=..., limits="16M,8ms")
    """
    config = config if config is not None else load_options(ChainConfig, None, options)
    allowed, names, folder = read_limits(config.limits), config.operator_names, Path(config.output)
    if len({*names}) < len(names):
        raise ConfigError(f"--operators {config.operators}: name each operator once")
    if config.training and config.method is None:
        raise ConfigError("--training is that of the students' distillations; name their --method")
    check_folder(folder, ChainSearch.FILE, "search")
    check_not_read(folder, REPLACED, read_by(config))
    material = _material(config)
    record = _new_record(material)
    with one_owner(folder, "search"):
        if config.overwrite:
            states = (path.name for path in folder.glob(STATES))
            remove(folder, (*states, *REPLACED))
        study = ChainStudy(folder, taken_up(folder, record, status="searching"))
        costs = study.record.costs or _measure_costs(study, material)
        check_reach(allowed, [costs[name] for name in names], material.blocks, costs[OUTSIDE])
        logits = _score_teacher(study.record, material)
        try:
            supernet = learn(study, material, costs)
            choose(study, material, supernet, costs, allowed)
            _save(study, material, supernet)
            if config.method is not None:
                _distil(study, material, logits)
        except KeyboardInterrupt:
            raise Interrupted("the search stopped; its finished rounds are kept") from None
        _finish(study)
    return study.record


def _material(config: ChainConfig) -> Material:
    """What is learned from; raises what opening it raises, and ConfigError where no such blocks can be made of it."""
    run = load_config(**_run_options(config), output=config.output, student="1")
    opened, data = open_teacher(run, read_data(run))
    if not isinstance(opened, TeacherModel):
        raise ConfigError(f"--teacher {config.teacher}: the blocks of one encoder are learned; name one")
    check_gives_operators(opened.model.model, "search with a teacher of those")
    layers = opened.model.shape.layers
    blocks = max(1, layers // 2) if config.blocks is None else config.blocks
    if not 1 <= blocks <= layers:
        raise ConfigError(f"--blocks {blocks}: this teacher has {layers} layers; give 1 to {layers}")
    check_count(config.operator_names, layers, blocks)
    rest, held_out = hold_out(data.train, data.task, HELD_OUT_SHARE, config.seed, HELD_OUT_AT_MOST)
    if config.rows is not None and config.rows < len(rest):
        rest = hold_out(rest, data.task, config.rows / len(rest), config.seed, config.rows)[1]
    learned, judged = (
        tokenise(part, opened.tokenizer, config.max_length, data.task.kind).remove_columns(["labels", "length"])
        for part in (rest, held_out)
    )
    material = Material(config, run, opened, data, learned, judged, blocks)
    material.student("af")  # texts longer than its positions are refused now
    return material


def _run_options(config: ChainConfig) -> dict[str, Any]:
    """The options of every distillation but its student and output."""
    options = run_options(config) | {"method": config.method or "soft-targets", "baselines": "none"}
    return {name: value for name, value in options.items() if name != "output"}


def _new_record(material: Material) -> ChainSearch:
    """What the search is asked; another one of its settings does not go on with it."""
    config, task = material.config, material.data.task
    options = config_dict(config)
    settings = {name: value for name, value in options.items() if name not in DECIDE_NOTHING}
    hashes = {"teacher": material.opened.fingerprint, **file_hashes(material.data)}
    return ChainSearch(
        command=command_of("search-chain", ChainConfig, options),
        settings=settings | {"blocks": material.blocks, "hashes": hashes},
        task=task.name,
        metric=task.metrics[0],
        machine=machine(config.threads),
    )


def _score_teacher(record: ChainSearch, material: Material) -> Mapping[str, Any]:
    """The teacher's logits on dev, by set; its scores are noted."""
    data, length = material.data, material.config.max_length
    logits = material.opened.logits(data.evaluation, max_length=length, description="the teacher's answers")
    record.teacher = score_sets(data.task, logits, data.evaluation)
    record.dev_rows = len(next(iter(data.evaluation.values())))
    return logits


def _measure_costs(study: ChainStudy, material: Material) -> dict[str, ChainCost]:
    """What each operator takes on this machine, and what is outside, noted once for the whole search."""
    config = material.config
    table, outside = operator_costs(material.student, config.operator_names, **config.timing)
    study.record.costs = costs = {**table, OUTSIDE: outside}
    study.folder.mkdir(parents=True, exist_ok=True)
    write_search(study.folder, study.record)
    for name, cost in costs.items():
        say(f"{name}: {cost.parameters:,} parameters, {cost.milliseconds:.2f} ms")
    return costs


def _save(study: ChainStudy, material: Material, supernet: Supernet) -> None:
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
        times = milliseconds(models, **material.config.timing)
    record.measured = {name: ChainCost(parameter_count(model), times[name]) for name, model in models.items()}
    write_search(study.folder, record)


def _distil(study: ChainStudy, material: Material, logits: Mapping[str, Any]) -> None:
    """Distil the students; a distillation that was begun is gone on with, one of other settings replaced."""
    record, folder, options = study.record, study.folder, _run_options(material.config)
    for word, row in record.students.items():
        place = folder / DISTILLED / word
        config = load_config(**options, student=str(folder / STUDENTS / word), output=str(place), select="last")
        hashes = input_hashes(config, material.opened, material.data)
        resume = holds_run(place, RunRecord(config=config_dict(config), seed=config.seed, hashes=hashes))
        config = replace(config, resume=resume, overwrite=not resume)
        say(f"chain:{word}: a distillation by {config.method}")
        run = distill(config, examples=material.data, teacher_logits=logits, quiet=True).run
        record.chains[word] = replace(row, distilled=run.scores["student"][record.metric])


def _finish(study: ChainStudy) -> None:
    """The table, the notes, the verdict and the page."""
    record, page = study.record, study.folder / PAGE
    record.verdict = verdict(record)
    write_chain_report(page, record)
    record.status = "finished"
    write_search(study.folder, record)
    conclude([limits_table(record)], notes(record), record.verdict, f"the page: {page}")
