"""`emdistill compress`: a budget in, the best student that keeps it out."""

import time
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from emdistill.commands._candidate_runs import TRIALS
from emdistill.commands._compression import REPLACED, search_within
from emdistill.commands._delivery import CACHE, forget_what_is_gone, is_delivered
from emdistill.config import LIMITS, check_limits, command_of
from emdistill.console import say
from emdistill.data.read import read_data
from emdistill.errors import ConfigError, Interrupted
from emdistill.options import load_config
from emdistill.runs.chain_search import STUDENTS, ChainSearch
from emdistill.runs.compression import CompressionRecord, CompressionStudy
from emdistill.runs.open_run import PLACES, remove
from emdistill.runs.places import check_folder, check_not_read, one_owner
from emdistill.runs.search_record import read_search, taken_up
from emdistill.search.budget import read_budget
from emdistill.ship.candidates import Nursery, check_students
from emdistill.ship.measurement import machine
from emdistill.ship.onnx import check_onnx_packages
from emdistill.tasks.task import RAW_TEXT
from emdistill.teachers.open_teacher import input_hashes, open_teacher

READING = (
    "teacher", "data", "task", "text", "text_pair", "label", "dev", "kind", "student_source", "unlabelled",
    "unlabelled_rows", "max_length", "seed", "check_teacher",
)  # fmt: skip


def compress(
    teacher: str,
    data: str,
    budget: str,
    output: str,
    hours: float = 1.0,
    unlabelled: str | None = None,
    unlabelled_rows: int | None = None,
    task: str | None = None,
    text: str = "text",
    text_pair: str | None = None,
    label: str = "label",
    dev: str | None = None,
    kind: str | None = None,
    students: str | None = None,
    chains: str | None = None,
    student_source: str | None = None,
    methods: str = "balanced,soft-targets",
    finals: int = 3,
    epochs: float | None = None,
    training: dict[str, Any] | None = None,
    max_length: int = 128,
    threads: int | None = None,
    seed: int = 42,
    check_teacher: bool = True,
    overwrite: bool = False,
) -> CompressionRecord:
    """Find the best student within a budget, and deliver it as a folder that runs without PyTorch.

    Candidates are priced on this machine before any is trained; those that fit learn in turns, ever fewer of them for
    ever longer, and are chosen by rows of train that none of them learned from. The best ones are trained whole,
    exported and measured. The same command goes on with a search that was stopped.
    Raises ConfigError, DataError and OutputError before any training, BusyError where another process is at this
    search; Interrupted after Ctrl-C.

    Args:
        teacher: folder or hub id of the fine-tuned teacher.
        data: the data, as for `distill`.
        budget: the most it may cost, '5ms, 30MB': the 95th percentile of one text of 128 tokens, and the model file.
        output: folder of the search; model/ in it is what is delivered, report.html its page.
        hours: how long the search may take.
        unlabelled: text without labels, as for `distill`.
        unlabelled_rows: learn from at most so many of these texts.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label.
        dev: file of the development set; without it a part of the data is held out.
        kind: kind of task; found from the labels if not given.
        students: students to try, as for `distill`, separated by spaces: '3 2 4x312'; those worth it if not given.
        chains: folder of a finished `search-chain` of this teacher, whose students are tried too, with their weights.
        student_source: encoder whose layers the students keep instead of the teacher's, a folder or hub id.
        methods: methods to try, separated by commas.
        finals: how many students are trained whole.
        epochs: passes of a whole training over all rows; 1 with --unlabelled, 10 without, if not given.
        training: further settings of all trainings.
        max_length: tokens per sentence or pair at most.
        threads: CPU threads that the student may use; as many as PyTorch takes if not given.
        seed: seed of the rows held out, the students and their training.
        check_teacher: refuse a teacher that scores near chance.
        overwrite: replace a search that stands in the output folder.
    """
    call, started = dict(locals()), time.perf_counter()
    check_onnx_packages()
    limits = read_budget(budget)
    check_limits(**{name: call[name] for name in LIMITS.keys() & call.keys()})
    if task == RAW_TEXT:
        raise ConfigError(f"--task {RAW_TEXT} has no score to choose by; name a task with labels")
    for name in ("num_train_epochs", "max_steps"):
        if name in (training or {}):
            raise ConfigError(f"--training.{name}: --hours and --epochs say how long trainings are; leave it out")
    folder = Path(output)
    mark = CompressionRecord.FILE if (folder / CompressionRecord.FILE).exists() else TRIALS  # before there is a record
    check_folder(folder, mark, "compression")
    check_not_read(folder, REPLACED, [teacher, data, dev, student_source, chains, *(unlabelled or "").split(",")])
    given = {name: call[name] for name in READING}
    if epochs is None:
        epochs = 10.0 if unlabelled is None else 1.0
    options = given | {
        "training": (training or {}) | {"num_train_epochs": epochs}, "output": output, "select": "last",
        "baselines": "none", "teacher_cache": "logits", "teacher_cache_folder": str(folder / CACHE),
    }  # fmt: skip
    taught = [name.strip() for name in methods.split(",")]
    config, *_ = [load_config(**options, method=method) for method in taught]  # a wrong name is refused now
    opened, examples = open_teacher(config, read_data(config))
    if opened.classifier is None or opened.born_from is None:  # nobody, a file of answers, or several
        raise ConfigError(f"--teacher {teacher}: students keep the layers of one teacher; name one fine-tuned encoder")
    threads = threads or torch.get_num_threads()
    if chains is not None and student_source is not None:
        raise ConfigError(f"--chains {chains} has students with the teacher's layers; leave out --student-source")
    found = {} if chains is None else _finished_search(Path(chains), opened.fingerprint).students
    places = {f"chain:{word}": Path(str(chains), STUDENTS, word) for word in found}
    nursery = Nursery(config, examples, opened, limits, folder, threads, places)
    words = students.split() if students else None
    check_students(nursery, words or ())
    record = CompressionRecord(
        command=command_of("compress", compress, call),
        settings={
            **{name: value for name, value in given.items() if name not in PLACES},
            "budget": str(limits), "students": words, "methods": ",".join(taught),
            "chains": {word: row.end_error for word, row in found.items()} or None,
            "finals": finals, "epochs": epochs,
            "training": training, "threads": threads, **input_hashes(config, opened, examples),
        },
        task=examples.task.name, metric=examples.task.metrics[0], budget=str(limits), hours=hours,
        machine=machine(threads),
    )  # fmt: skip
    with one_owner(folder, "search"):
        if overwrite:
            remove(folder, REPLACED)
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        study = CompressionStudy(folder, taken_up(folder, record, hours=hours), started)
        if is_delivered(study):
            say(f"{folder} is finished already; nothing to do")
            return study.record
        forget_what_is_gone(study)
        try:
            search_within(study, nursery, options, students=words, methods=taught, finals=finals)
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted("the search stopped; what it has tried is kept") from None
        finally:
            if study.record.candidates:  # before that there is nothing to go on with
                study.save()
    return study.record


def _finished_search(folder: Path, teacher: str) -> ChainSearch:
    """The search that stands there; raises ConfigError where none does, or one of another teacher."""
    search = read_search(folder, ChainSearch)
    if search is None or search.status != "finished":
        raise ConfigError(f"--chains {folder}: there is no finished search of `emdistill search-chain` in it")
    if search.settings["hashes"]["teacher"] != teacher:
        raise ConfigError(f"--chains {folder}: that search was of another teacher, {search.settings['teacher']}")
    return search


@wraps(compress)
def command(**options: Any) -> int:
    return 0 if compress(**options).delivered else 1
