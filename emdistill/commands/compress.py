"""`emdistill compress`: a budget in, the best student that keeps it out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emdistill.commands._candidate_runs import TRIALS
from emdistill.commands._compression import REPLACED, search_within
from emdistill.commands._delivery import CACHE, forget_what_is_gone, is_delivered
from emdistill.config import DataConfig, command_of, config_dict, read_by, run_options
from emdistill.console import say
from emdistill.data.read import read_data
from emdistill.errors import ConfigError, Interrupted
from emdistill.models.arithmetic import has_bfloat16
from emdistill.options import load_config, load_options
from emdistill.runs.chain_search import STUDENTS, ChainRow, ChainSearch
from emdistill.runs.compression import CompressionRecord, CompressionStudy
from emdistill.runs.open_run import PLACES, remove
from emdistill.runs.places import check_folder, check_not_read, one_owner
from emdistill.runs.search_record import read_search, taken_up
from emdistill.search.budget import read_budget
from emdistill.ship.candidates import Nursery, check_students
from emdistill.ship.measurement import machine
from emdistill.ship.onnx import check_onnx_packages
from emdistill.ship.onnx_folder import check_shippable
from emdistill.tasks.task import RAW_TEXT
from emdistill.teachers.open_teacher import input_hashes, open_teacher


@dataclass(frozen=True, kw_only=True)
class CompressConfig(DataConfig):
    """Everything that decides a compression.

    Args:
        teacher: folder or hub id of the fine-tuned teacher.
        data: the data, as for `distill`.
        budget: the most it may cost, '5ms, 30MB': the 95th percentile of one text of 128 tokens, and the model file.
        output: folder of the search; model/ in it is what is delivered, report.html its page.
        hours: how long the search may take.
        unlabelled: text without labels, as for `distill`.
        unlabelled_rows: learn from at most so many of these texts.
        dev: file of the development set; without it a part of the data is held out.
        kind: kind of task; found from the labels if not given.
        students: students to try, as for `distill`, separated by spaces: '3 2 4x312'; those worth it if not given.
        chains: folder of a finished `search-chain` of this teacher, whose students are tried too, with their weights.
        student_source: encoder whose layers the students keep instead of the teacher's, a folder or hub id.
        methods: methods to try, separated by commas.
        finals: how many students are trained whole.
        epochs: passes of a whole training over all rows; 1 with --unlabelled, 10 without, if not given.
        training: further settings of all trainings.
        threads: CPU threads that the student may use; as many as PyTorch takes if not given.
        seed: seed of the rows held out, the students and their training.
        check_teacher: refuse a teacher that scores near chance.
        overwrite: replace a search that stands in the output folder.
    """

    teacher: str
    budget: str
    hours: float = 1.0
    unlabelled: str | None = None
    unlabelled_rows: int | None = None
    dev: str | None = None
    kind: str | None = None
    students: str | None = None
    chains: str | None = None
    student_source: str | None = None
    methods: str = "balanced,soft-targets"
    finals: int = 3
    epochs: float | None = None
    threads: int | None = None
    seed: int = 42
    check_teacher: bool = True

    @property
    def tried(self) -> list[str] | None:
        """The students; None: those worth it."""
        return self.students.split() if self.students else None

    @property
    def taught_by(self) -> list[str]:
        """The methods."""
        return [name.strip() for name in self.methods.split(",")]

    @property
    def training_epochs(self) -> float:
        """Of a whole training."""
        return self.epochs if self.epochs is not None else 10.0 if self.unlabelled is None else 1.0


def compress(config: CompressConfig | None = None, **options: Any) -> CompressionRecord:
    """Find the best student within a budget, and deliver it as a folder that runs without PyTorch.

    Candidates are priced on this machine before any is trained; those that fit learn in turns, ever fewer of them for
    ever longer, and are chosen by rows of train that none of them learned from. The best ones are trained whole,
    exported and measured. The same command goes on with a search that was stopped.
    Raises ConfigError, DataError and OutputError before any training, BusyError where another process is at this
    search; Interrupted after Ctrl-C.

    config   a CompressConfig, or its fields as keywords: compress(teacher=..., data=..., budget="5ms", output=...)
    """
    started = time.perf_counter()
    config = config if config is not None else load_options(CompressConfig, None, options)
    check_onnx_packages()
    budget, folder = read_budget(config.budget), Path(config.output)
    _check(config)
    of_runs = _run_options(config)
    run, *_ = [load_config(**of_runs, method=method) for method in config.taught_by]  # a wrong name is refused now
    teacher, data = open_teacher(run, read_data(run))
    if teacher.classifier is None or teacher.born_from is None:  # nobody, a file of answers, or several
        raise ConfigError(
            f"--teacher {config.teacher}: students keep the layers of one teacher; name one fine-tuned encoder"
        )
    chains = {} if config.chains is None else _found_chains(Path(config.chains), teacher.fingerprint)
    places = {f"chain:{word}": Path(str(config.chains), STUDENTS, word) for word in chains}
    nursery = Nursery(run, data, teacher, budget, folder, config.threads or torch.get_num_threads(), places)
    check_shippable(nursery.tokenizer)
    check_students(nursery, config.tried or ())
    record = _new_record(config, nursery, chains)
    with one_owner(folder, "search"):
        if config.overwrite:
            remove(folder, REPLACED)
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        study = CompressionStudy(folder, taken_up(folder, record, hours=config.hours), started)
        if is_delivered(study):
            say(f"{folder} is finished already; nothing to do")
            return study.record
        forget_what_is_gone(study)
        if study.record.bfloat16:
            of_runs["training"] |= {"bf16": True}
        try:
            search_within(
                study, nursery, of_runs, students=config.tried, methods=config.taught_by, finals=config.finals
            )
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted("the search stopped; what it has tried is kept") from None
        finally:
            if study.record.candidates:  # before that there is nothing to go on with
                study.save()
    return study.record


def command(config: CompressConfig) -> int:
    """Find the best student within a budget, and deliver it as a folder that runs without PyTorch."""
    return 0 if compress(config).delivered else 1


def _check(config: CompressConfig) -> None:
    """Refuse what no search can be made of, and a folder that it cannot be written to."""
    if config.task == RAW_TEXT:
        raise ConfigError(f"--task {RAW_TEXT} has no score to choose by; name a task with labels")
    for name in ("num_train_epochs", "max_steps"):
        if name in config.training:
            raise ConfigError(f"--training.{name}: --hours and --epochs say how long trainings are; leave it out")
    if config.chains is not None and config.student_source is not None:
        raise ConfigError(
            f"--chains {config.chains} has students with the teacher's layers; leave out --student-source"
        )
    folder = Path(config.output)
    mark = CompressionRecord.FILE if (folder / CompressionRecord.FILE).exists() else TRIALS  # before there is a record
    check_folder(folder, mark, "compression")
    check_not_read(folder, REPLACED, read_by(config))


def _run_options(config: CompressConfig) -> dict[str, Any]:
    """The options of every training."""
    return run_options(config) | {
        "training": config.training | {"num_train_epochs": config.training_epochs}, "select": "last",
        "baselines": "none", "teacher_cache": "logits", "teacher_cache_folder": str(Path(config.output) / CACHE),
    }  # fmt: skip


def _new_record(config: CompressConfig, nursery: Nursery, chains: Mapping[str, ChainRow]) -> CompressionRecord:
    """What the search is asked; another one of its settings does not go on with it."""
    options, task = config_dict(config), nursery.data.task
    elsewhere = {*PLACES, "hours"}  # may differ
    return CompressionRecord(
        command=command_of("compress", CompressConfig, options),
        settings={
            **{name: value for name, value in options.items() if name not in elsewhere},
            "budget": str(nursery.budget), "students": config.tried, "methods": ",".join(config.taught_by),
            "chains": {word: row.end_error for word, row in chains.items()} or None,
            "epochs": config.training_epochs, "training": config.training or None, "threads": nursery.threads,
            **input_hashes(nursery.config, nursery.teacher, nursery.data),
        },
        task=task.name, metric=task.metrics[0], budget=str(nursery.budget), hours=config.hours,
        machine=machine(nursery.threads),
        bfloat16=not config.training.keys() & {"bf16", "fp16", "use_cpu"} and has_bfloat16(),
    )  # fmt: skip


def _found_chains(folder: Path, teacher: str) -> dict[str, ChainRow]:
    """Those of the search that stands there; raises ConfigError where none does, or one of another teacher."""
    search = read_search(folder, ChainSearch)
    if search is None or search.status != "finished":
        raise ConfigError(f"--chains {folder}: there is no finished search of `emdistill search-chain` in it")
    if search.settings["hashes"]["teacher"] != teacher:
        raise ConfigError(f"--chains {folder}: that search was of another teacher, {search.settings['teacher']}")
    return search.students
