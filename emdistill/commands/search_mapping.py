"""Which teacher layer should teach which student layer, on your tasks? The spine of `emdistill search-mapping`."""

import inspect
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emdistill.commands.distill import distill
from emdistill.config import Birth, CacheChoice, DataConfig, RunConfig, as_option, read_by, run_options
from emdistill.console import conclude, say, say_scores
from emdistill.data.read import hold_out, read_data
from emdistill.errors import ConfigError, Interrupted
from emdistill.mapping import write_mapping
from emdistill.methods import load_method
from emdistill.options import load_config, load_options
from emdistill.runs.answers import PREDICTIONS, Logits, teacher_logits
from emdistill.runs.describe import file_hashes
from emdistill.runs.open_run import keep_record_alone, remove
from emdistill.runs.places import check_folder, check_not_read
from emdistill.search.genes import Gene, gene_name, gene_pairs
from emdistill.search.layer_mapping import SearchResult, search
from emdistill.search.shared_study import GeneTrial
from emdistill.show.page import PLOTLY
from emdistill.show.search_report import search_notes, search_table, trial_line, write_record, write_search_report
from emdistill.tasks.task import RAW_TEXT, TaskData
from emdistill.teachers.open_teacher import open_teacher
from emdistill.training.arguments import LEAN

STUDY, TRIALS, CACHE = "study", "trials", "teacher_cache"
BEST, RECORD, PAGE = "best.json", "search.json", "report.html"
REPLACED = (STUDY, TRIALS, CACHE, BEST, RECORD, PAGE, PLOTLY, "search.png")  # the last one is of earlier versions
MOST_TASKS = 3
SCORED_ON = "rows of train that no student learned from; the development sets are untouched"


OF_A_TASK = ("teacher", "data", "task", "head")


@dataclass(frozen=True, kw_only=True)
class MappingConfig(DataConfig):
    """Everything that decides a search for a layer mapping.

    Args:
        teacher: folders or hub ids of the fine-tuned teachers, one per task, separated by commas.
        data: the tasks' data, separated by commas; each as for `distill`.
        output: folder of the search; best.json in it is the mapping found, for `distill --mapping`.
        task: the tasks' names, separated by commas (see `emdistill tasks`); files of your own need none.
        head: of teachers of several tasks, the tasks whose heads teach, one per teacher, separated by commas.
        student: 3 (so many teacher layers), 1,3,5 (these), 4x312 (layers x width), or a folder or hub id.
        student_birth: where the weights of a student of a given shape come from, as for `distill`.
        student_source: encoder whose layers the student keeps instead of the teachers', a folder or hub id.
        method: a method that maps layers, by name, or path.py:function for your own.
        rows: learn from so many training rows of each task.
        score_rows: score on so many other training rows; the development set is left for the final comparison.
        epochs: passes over the rows.
        evaluations: different mappings that the genetic search evaluates.
        random_evaluations: different mappings drawn at random, to compare with; as many if not given.
        population: how many of the best mappings so far are parents of new ones.
        mutation: probability that a layer of a new mapping gets another teacher layer, or none.
        monotone: only mappings in which a higher student layer learns from no lower teacher layer.
        objective: the method's own settings.
        training: settings of the short distillations, over the method's recipe.
        check_teacher: refuse a teacher that scores near chance.
        teacher_cache: which of the teachers' outputs are computed once for all mappings, as for `distill`.
        seed: seed of the search, the rows drawn, the student's initial weights and its training.
        overwrite: replace a search that stands in the output folder.
    """

    teacher: str
    head: str | None = None
    student: str = "3"
    student_birth: Birth = "importance"
    student_source: str | None = None
    method: str = "tinybert"
    rows: int = 1000
    score_rows: int = 500
    epochs: float = 1.0
    evaluations: int = 60
    random_evaluations: int | None = None
    population: int = 10
    mutation: float = 0.2
    monotone: bool = False
    objective: dict[str, Any] = field(default_factory=dict)
    check_teacher: bool = True
    teacher_cache: CacheChoice = "states"
    seed: int = 42


@dataclass(frozen=True)
class ProxyTask:
    """A task made small: some training rows to learn from, some others to be scored on.

    config   the distillation of a gene, but for its mapping and output
    """

    name: str
    config: RunConfig
    data: TaskData
    fingerprint: str
    student_layers: int
    teacher_layers: int

    @property
    def metric(self) -> str:
        """What a student of this task is scored by."""
        return self.data.task.metrics[0]


def search_mapping(config: MappingConfig | None = None, **options: Any) -> SearchResult:
    """Search the layer mapping by which short distillations on parts of one to three tasks score best.

    Every mapping has the same student at birth, data and seed. The same command goes on with a search that was
    stopped, and several processes may work on one search at once.
    Raises ConfigError, DataError and OutputError before any training; Interrupted after Ctrl-C.

    config   a MappingConfig, or its fields as keywords: search_mapping(teacher=..., data=..., output=..., rows=500)
    """
    config = config if config is not None else load_options(MappingConfig, None, options)
    folder = Path(config.output)
    if "num_train_epochs" in config.training:
        raise ConfigError("training.num_train_epochs: the budget of a short distillation is given as --epochs")
    tasks = _tasks({name: getattr(config, name) for name in OF_A_TASK})
    check_folder(folder, STUDY, "search")
    check_not_read(folder, REPLACED, read_by(config))
    of_runs = _run_options(config)
    proxies = [_proxy(load_config(**of_runs | one), config.rows, config.score_rows) for one in tasks]
    student_layers, teacher_layers = _layers(proxies)
    about = _about(config, proxies)
    logits: dict[str, dict[str, Logits]] = {}  # the teachers', by task and set

    def evaluate(gene: Gene) -> dict[str, float]:
        return _distil(proxies, gene, folder / TRIALS / gene_name(gene), logits)

    def report(trial: GeneTrial, so_far: SearchResult) -> None:
        say(trial_line(trial, so_far))
        write_record(folder / RECORD, so_far, status="searching", about=about)

    if config.overwrite:
        remove(folder, REPLACED)
    try:
        result = search(
            evaluate,
            student_layers=student_layers,
            teacher_layers=teacher_layers,
            storage=folder / STUDY,
            evaluations=config.evaluations,
            random_evaluations=config.random_evaluations,
            population=config.population,
            mutation=config.mutation,
            seed=config.seed,
            monotone=config.monotone,
            about=about,
            report=report,
        )
    except KeyboardInterrupt:
        raise Interrupted("the search stopped; what it has evaluated is kept") from None
    _finish(folder, result, about)
    return result


def _run_options(config: MappingConfig) -> dict[str, Any]:
    """The options of every short distillation, but for its task; its rows are drawn here."""
    return run_options(config) | {
        "rows": None, "training": config.training | {"num_train_epochs": config.epochs}, "select": "last",
        "teacher_cache_folder": str(Path(config.output) / CACHE), "baselines": "none",
    }  # fmt: skip


def _about(config: MappingConfig, proxies: Sequence[ProxyTask]) -> dict[str, Any]:
    """What decides a mapping's scores."""
    run = proxies[0].config
    names = ("method", "student", "student_birth", "student_source", "max_length", "rows", "score_rows")
    tasks = {
        proxy.name: {"metric": proxy.metric, "teacher": proxy.fingerprint, **file_hashes(proxy.data)}
        for proxy in proxies
    }
    return {
        **{name: getattr(config, name) for name in names},
        "objective": run.objective,
        "training": run.training,
        "scored_on": SCORED_ON,
        "tasks": tasks,
    }


def _tasks(options: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Teacher, data, name, head of each task; raises ConfigError for lists of different lengths, or too long ones."""
    lists = {name: words.split(",") for name, words in options.items() if words is not None}
    counts = {name: len(values) for name, values in lists.items()}
    if len(set(counts.values())) > 1:
        numbers = ", ".join(f"{as_option(name)} {count}" for name, count in counts.items())
        raise ConfigError(f"one teacher and one data set per task, separated by commas; these name: {numbers}")
    if counts["teacher"] > MOST_TASKS:
        raise ConfigError(f"{counts['teacher']} tasks: a search is scored on {MOST_TASKS} at most")
    if RAW_TEXT in lists.get("task", []):
        raise ConfigError(f"--task {RAW_TEXT} has no score to search by; name tasks with labels")
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _proxy(config: RunConfig, rows: int, score_rows: int) -> ProxyTask:
    """The task, its rows drawn by the seed with the classes' shares, and its numbers of layers.

    Raises what a distillation with this configuration would, and ConfigError where the rows are too few.
    """
    data = read_data(config)
    name, available = data.task.name, len(data.train)
    if rows + score_rows > available:
        raise ConfigError(
            f"{name} has {available} training rows, and --rows {rows} and --score-rows {score_rows} are "
            f"{rows + score_rows}: give fewer of either"
        )
    rest, scored = hold_out(data.train, data.task, score_rows / available, config.seed, score_rows)
    learned = hold_out(rest, data.task, rows / len(rest), config.seed, rows)[1] if rows < len(rest) else rest
    small = replace(data, train=learned, evaluation={"scored": scored}, held_out=f"scored on {len(scored)} {SCORED_ON}")
    config = replace(config, training=config.training | LEAN)
    teacher, data = open_teacher(config, data)
    shape = teacher.student_shape(data.task)
    if "mapping" not in inspect.signature(load_method(config.method)).parameters:
        raise ConfigError(
            f"--method {config.method} maps no layers, so there is nothing to search; take another method"
        )
    # A method that cannot be composed is refused now; any mapping will do.
    teacher.stages(replace(config, mapping="uniform"), shape, data.task)
    assert teacher.source is not None  # where nobody teaches, no mapping is composed
    return ProxyTask(name, config, small, teacher.fingerprint, shape.layers, teacher.source.shape.layers)


def _layers(proxies: Sequence[ProxyTask]) -> tuple[int, int]:
    """Student and teacher layers; raises ConfigError where tasks differ in them, or two tasks have one name."""
    names = [proxy.name for proxy in proxies]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two tasks are called '{min(twice)}'; name each task once")
    counts = {proxy.name: (proxy.student_layers, proxy.teacher_layers) for proxy in proxies}
    if len(set(counts.values())) > 1:
        layers = "; ".join(f"{name}: student {ours}, teacher {theirs}" for name, (ours, theirs) in counts.items())
        raise ConfigError(f"a layer mapping is for one student and one teacher size, but the layers are: {layers}")
    return proxies[0].student_layers, proxies[0].teacher_layers


def _distil(
    proxies: Sequence[ProxyTask], gene: Gene, folder: Path, logits: dict[str, dict[str, Logits]]
) -> dict[str, float]:
    """Score by task of short distillations with this gene's mapping; of each run only its run.json is kept.

    logits  the teachers' by task and set; those of a task's first run are added
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was stopped
    mapping = folder / "mapping.json"
    write_mapping(mapping, gene_pairs(gene), proxies[0].student_layers, proxies[0].teacher_layers)
    scores = {}
    for proxy in proxies:
        run = folder / proxy.name
        try:
            artifact = distill(
                replace(proxy.config, mapping=str(mapping), output=str(run)),
                examples=proxy.data,
                teacher_logits=logits.get(proxy.name),
                quiet=True,
            )
        except Interrupted as stop:
            raise KeyboardInterrupt(str(stop)) from None
        if proxy.name not in logits and (answers := teacher_logits(run / PREDICTIONS)):
            logits[proxy.name] = answers
        scores[proxy.name] = artifact.scores["student"][proxy.metric]
        keep_record_alone(run)
    return scores


def _finish(folder: Path, result: SearchResult, about: dict[str, Any]) -> None:
    """best.json, search.json, the page, and the table on the terminal."""
    best = result.best
    notes = {
        "found_by": "emdistill search-mapping", "gene": gene_name(best.gene), "proposer": best.proposer,
        "method": about["method"], "scored_on": SCORED_ON, "scores": say_scores(best.scores),
    }  # fmt: skip
    layers = result.space.student_layers, result.space.teacher_layers
    write_mapping(folder / BEST, gene_pairs(best.gene), *layers, about=notes)
    write_record(folder / RECORD, result, status="finished", about=about)
    shutil.rmtree(folder / CACHE, ignore_errors=True)
    sentences = [*search_notes(result), f"scored on {SCORED_ON}"]
    comparison = f"emdistill compare --methods {about['method']}@{folder / BEST},{about['method']}@uniform ..."
    write_search_report(folder / PAGE, result, notes=sentences, command=comparison)
    luck = "The best of many is partly luck; what it is worth, over seeds and on dev:"
    conclude([search_table(result)], [*sentences, luck], comparison, f"the page: {folder / PAGE}")
