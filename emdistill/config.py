"""Typed options of the commands that train, and `as_command`: the line that made a run."""

import json
import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from inspect import signature
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Literal

from emdistill.errors import ConfigError
from emdistill.values import parse_yaml, read_values, with_choices

Birth = Literal["importance", "random", "fresh", "gradual"]
CacheChoice = Literal["none", "logits", "states"]
Selection = Literal["held-out", "dev", "last"]
SoftLoss = Literal["cross-entropy", "squared"]
TemperatureSchedule = Literal["constant", "flsw", "cwsm"]

# The least and the most that a number may be, by the option's name.
LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "max_length": (3, 1_000_000),
    **dict.fromkeys(("rows", "unlabelled_rows"), (1, 2**62)),
    "labelled_share": (0, 0.99),
    "mutation": (0, 1),
    "population": (2, math.inf),  # two parents
    **dict.fromkeys(("evaluations", "random_evaluations"), (0, math.inf)),
    **dict.fromkeys(("batch_size", "candidates", "copies", "min_count", "score_rows", "threads"), (1, math.inf)),
    **dict.fromkeys(("bins", "finals", "judged", "length", "rounds", "survivors"), (1, math.inf)),
    **dict.fromkeys(("epochs", "hours"), (1e-9, 1e6)),
    "learning_rate": (0, math.inf),
}
RECIPES = Path(__file__).parent / "recipes"
SECTIONS = ("objective", "training")
NO_TEACHER = "none"  # --teacher of a run in which nobody teaches
LABELS_ALONE = "hard-labels"  # the method that learns from labels and nothing else
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What every verb that trains reads, and where it writes.

    Args:
        data: a GLUE folder, a CSV, TSV, JSONL, Parquet, CoNLL or SQuAD file, a hub dataset or a folder of one, or
            'messages'.
        output: folder of the run.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label.
        training: set one by one, --training.NAME VALUE: transformers' TrainingArguments, but for what a run decides by
            other options (seed, which checkpoint is kept), and gradient_norm_steps, flow_steps,
            early_stopping_patience, tokens_per_batch, compile_costs, teacher_bf16, skip_bad_batches.
        max_length: tokens per sentence or pair at most.
        overwrite: replace what stands in the output folder.
    """

    data: str
    output: str
    task: str | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    training: dict[str, Any] = field(default_factory=dict)
    max_length: int = 128
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class CommonConfig(DataConfig):
    """The options of every run, alike for all runs of a comparison.

    Args:
        rows: learn from at most so many training rows, drawn once for all seeds.
        dev: file of the development set; without it a stratified part of the data is held out.
        kind: kind of task: classification, regression, multi-label, scores, tagging, span-answers or
            span-answers-or-none; found from the data if not given.
        select: which checkpoint is kept: the best on a held-out part of train, the best on dev, or the last.
        keep_checkpoints: leave the checkpoints in the run folder when the run has finished.
    """

    rows: int | None = None
    dev: str | None = None
    kind: str | None = None
    select: Selection = "held-out"
    keep_checkpoints: bool = False


@dataclass(frozen=True, kw_only=True)
class LearningConfig(CommonConfig):
    """The options that a distillation and a fine-tuning share.

    Args:
        seed: seed of initial weights, order and dropout.
        resume: go on with the run that stands in the output folder.
    """

    seed: int = 42
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class TeachingConfig(CommonConfig):
    """Who teaches whom.

    Args:
        data: a GLUE folder, a CSV, TSV, JSONL, Parquet, CoNLL or SQuAD file, a hub dataset or a folder of one, or
            'messages'; raw text for task text; a YAML file of several tasks, for a student of them all; nothing where
            a teacher and unlabelled text are all there is.
        rows: learn from at most so many training rows, drawn once for all seeds; of raw text, so many pieces.
        teacher: folder or hub id of the fine-tuned teacher; several of one task, separated by commas, teach by the mean
            of their answers; or a file of its answers, with the columns of the text and logits, probabilities or a
            label (.jsonl, .csv, .tsv, .parquet); or none, for labels alone.
        teacher_weights: weights of several teachers' answers, separated by commas; equal ones if not given.
        head: of a teacher of several tasks, the task whose head teaches.
        student: 3 (so many teacher layers), 1,3,5 (these), 4x312 (layers x width), chain:afafaf (operators),
            mobilebert:6x384x96x2, bilstm, bag, or a folder or hub id.
        student_birth: where the weights of a student of a given shape come from: the teacher's units, chosen by
            importance or at random, or fresh ones; gradual: units leave one by one while the teacher teaches.
        student_source: folder or hub id of an encoder whose layers and tokenizer the student keeps instead of the
            teacher's; under a file of answers also the one that a student of a shape is cut from.
        embedding_rank: width of factorised embedding tables, below the student's own; a BERT student only.
        augmented: further rows to learn from, made by `emdistill augment`.
        unlabelled: text without labels, to learn from the teacher's answers to it: files as for data, .txt with a text
            per line, all of them perhaps compressed, or hub datasets; several are separated by commas, or named by a
            pattern in quotes, "texts/*.txt".
        unlabelled_rows: learn from at most so many of these texts, the first ones.
        labelled_share: repeat the labelled rows until they are this share of an epoch's rows; each once if not given.
        check_teacher: refuse a teacher that scores near chance.
        teacher_cache: which of the teacher's outputs are computed once and kept on disk: its logits, for stages that
            read nothing else; its logits and the layer states that are read, in half precision; or none.
        teacher_cache_folder: folder of the cache, for runs to share; the run folder, until the run has finished, if
            not given. The tokens of a raw text stand there too.
        baselines: what else is measured on the same rows, for a user could take it instead of the student: names
            separated by commas (tfidf, frozen, static, labels, int8-teacher; int8: the student itself), all, or none.
    """

    data: str = ""
    teacher: str
    teacher_weights: str | None = None
    head: str | None = None
    student: str = "3"
    student_birth: Birth = "importance"
    student_source: str | None = None
    embedding_rank: int | None = None
    augmented: str | None = None
    unlabelled: str | None = None
    unlabelled_rows: int | None = None
    labelled_share: float | None = None
    check_teacher: bool = True
    teacher_cache: CacheChoice = "logits"
    teacher_cache_folder: str | None = None
    baselines: str = "tfidf"


@dataclass(frozen=True, kw_only=True)
class RunConfig(TeachingConfig, LearningConfig):
    """Everything that decides a distillation.

    Args:
        method: a method's name (see `emdistill methods`), or path.py:function for your own; under a file of answers,
            and for a bag, soft-targets if not given. `--method NAME --help` lists its settings.
        mapping: which layer learns from which: a mapping's name (see `emdistill mappings`), or a file of pairs.
        objective: the method's own settings.
    """

    method: str = "balanced"
    mapping: str | None = None
    objective: dict[str, Any] = field(default_factory=dict)


@with_choices
@dataclass(frozen=True, kw_only=True)
class SharedSettings:
    """The settings of --objective that every method has beside its own.

    Args:
        soft_loss: soft targets by the cross-entropy of probabilities, or by the squared difference of logits.
        temperature_schedule: one temperature for all answers (constant), or for each answer its own, lower where the
            student is far from the teacher (flsw) or in doubt (cwsm).
        temperature_beta: how far the temperatures of flsw and cwsm spread.
        temperature_gamma: exponent of flsw; above 1 the farthest answers stand out.
        unmasked_share: on raw text, share of the tokens that are not masked whose answers are learned too; 1 for all.
        grow: terms whose weight grows from 0 over their stage, separated by commas.
        fade: terms whose weight falls to 0 over their stage, separated by commas.
    """

    soft_loss: SoftLoss = "cross-entropy"
    temperature_schedule: TemperatureSchedule = "constant"
    temperature_beta: float = 1.0
    temperature_gamma: float = 1.0
    unmasked_share: float = 0.0
    grow: str | None = None
    fade: str | None = None


@dataclass(frozen=True, kw_only=True)
class CompareConfig(TeachingConfig):
    """Everything that decides a comparison.

    Args:
        output: folder of the comparison.
        methods: entries, separated by commas: a method's name, METHOD@MAPPING, or a YAML file with method, mapping and
            objective.
        seeds: so many seeds (5: from 0 to 4), or these: 3,7,11.
        baseline: the entry that the others are compared with; the first one if not given.
    """

    methods: str
    seeds: str = "5"
    baseline: str | None = None

    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("method", "mapping", "objective"),
        "an entry has its own; name it in --methods as METHOD, METHOD@MAPPING, or a YAML file",
    ) | {"seed": "a comparison has several; give --seeds 5, or --seeds 3,7,11"}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(LearningConfig):
    """Everything that decides the fine-tuning of a teacher.

    Args:
        output: folder of the fine-tuned model.
        model: folder or hub id of a pretrained encoder.
    """

    model: str


CONFIGS: dict[str, type[CommonConfig]] = {"distill": RunConfig, "finetune": FinetuneConfig, "compare": CompareConfig}


def config_dict(config: DataConfig) -> dict[str, Any]:
    """The resolved configuration as plain values, without what only says how to treat the output folder."""
    return {name: value for name, value in asdict(config).items() if name not in ("overwrite", "resume")}


def run_options(config: DataConfig) -> dict[str, Any]:
    """Those of a search's options that each of its distillations has too."""
    shared = {setting.name for setting in fields(RunConfig)}
    return {name: value for name, value in config_dict(config).items() if name in shared}


def check_limits(places: Mapping[str, str] | None = None, /, **options: Any) -> None:
    """Raise ConfigError for a number beyond LIMITS or infinite, with its option and place; None is no number."""
    for name in options.keys() & LIMITS.keys():
        value, (least, most) = options[name], LIMITS[name]
        if value is not None and not (math.isfinite(value) and least <= value <= most):
            bound = "finite" if math.isinf(value) else f"at most {most}" if value > most else f"at least {least}"
            raise ConfigError(f"{as_option(name)} must be {bound}, not {value}{(places or {}).get(name, '')}")


def as_option(name: str) -> str:
    """max_length -> --max-length; those of the sections keep Python's names: --training.max_steps."""
    return f"--{name if '.' in name else name.replace('_', '-')}"


def flatten(options: Mapping[str, Any]) -> dict[str, Any]:
    """{'training': {'seed': 1}, 'text': 'a'} -> {'training.seed': 1, 'text': 'a'}."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if name in SECTIONS and (value is None or isinstance(value, Mapping)):
            flat |= {f"{name}.{key}": inner for key, inner in (value or {}).items()}
        else:
            flat[name] = value
    return flat


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises ConfigError with the file and, of broken YAML, the line."""
    try:
        options = read_values(path, parse_yaml)
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as a YAML file of options: {error}") from None
    if not isinstance(options, dict):
        raise ConfigError(f"{path} must hold options as 'name: value'")
    if other := [name for name in options if not isinstance(name, str)]:
        raise ConfigError(f"{path}: {other[0]!r} is no name of an option; options are written as 'name: value'")
    return options


def recipe_of(config: Any, method: str | None, student: str | None = None) -> dict[str, Any]:
    """The numbers that lie below the options of a configuration class, flat: the student's own over the method's.

    A method of one's own has none.
    """
    name = {RunConfig: method, FinetuneConfig: "finetune"}.get(config)
    file = RECIPES / f"{name}.yaml"
    numbers = flatten(read_yaml(file)) if file.is_file() else {}
    own = student_recipe(student) if config is RunConfig else {}
    return numbers | {name: value for name, value in own.items() if name != "method"}


def student_recipe(student: str | None) -> dict[str, Any]:
    """What a form of student brings along, flat: method and numbers; of bag:64 those in recipes/students/bag.yaml."""
    form = str(student).partition(":")[0]
    file = RECIPES / "students" / f"{form}.yaml"
    return flatten(read_yaml(file)) if form.isidentifier() and file.is_file() and not holds_model(str(student)) else {}


def holds_model(student: str) -> bool:
    """Whether `--student` is a folder with an encoder in it, which goes before the form that its name may have.

    A number is never a folder; nor is one without an encoder, such as that of a run: `--student bag --output bag`.
    """
    return bool(student) and not student.isdigit() and (Path(student).expanduser() / "config.json").is_file()


READ = ("model", "teacher", "data", "dev", "student", "student_source", "augmented", "unlabelled", "chains")


def read_by(config: DataConfig) -> list[str]:
    """The files and folders that a verb is given to read; of a list each, and the whole: a name may have commas."""
    given = {name: getattr(config, name, None) for name in READ}
    if given["student"] is not None and not holds_model(given["student"]):  # a form: `--student bag --output bag`
        given["student"] = None
    return [place.strip() for value in given.values() if value for place in {value, *value.split(",")}]


FIRST = ("methods", "seeds", "baseline", "model", "teacher", "task", "data", "student", "method", "output")
ALWAYS = ("student", "method", "seeds", "seed", "max_length", "select")  # even where they are the defaults
NEVER = ("keep_checkpoints", "teacher_cache_folder", "overwrite", "resume")  # they decide nothing about the student
SOURCES = ("model", "teacher", "data", "dev", "student", "student_source", "method", "mapping", "augmented")
WIDTH = 100


def as_command(verb: str, options: Mapping[str, Any]) -> str:
    """The `emdistill VERB` of a configuration, as lines of a shell: what differs from the defaults and the recipe.

    options   as config_dict gives them, or as a run.json keeps them, of this version or an earlier one
    Paths are cut to their last part, for they tell about the machine: it runs where these files lie in its folder.
    """
    config = CONFIGS.get(verb)
    settings = fields(config) if config else ()
    usual = {setting.name: setting.default for setting in settings if setting.default is not MISSING}
    usual |= {f"objective.{setting.name}": setting.default for setting in fields(SharedSettings)}
    usual |= recipe_of(config, options.get("method"), options.get("student"))
    written = {
        name: _cut(name, value)
        for name, value in flatten(options).items()
        if name not in NEVER and (name in ALWAYS or value != usual.get(name))
    }
    return command_line(verb, {name: written[name] for name in dict.fromkeys([*FIRST, *written]) if name in written})


def command_of(verb: str, function: Callable[..., object], options: Mapping[str, Any]) -> str:
    """The `emdistill VERB` of a call of its function: what differs from the defaults."""
    defaults = {name: parameter.default for name, parameter in signature(function).parameters.items()}
    return command_line(verb, flatten({name: value for name, value in options.items() if value != defaults[name]}))


def command_line(verb: str, options: Mapping[str, Any]) -> str:
    """`emdistill VERB --name value …`, values as a shell needs them, broken into lines that a shell takes as one."""
    lines = [f"emdistill {verb}"]
    for name, value in options.items():
        cut = plain(value)
        text = shlex.quote(cut if isinstance(cut, str) else json.dumps(cut))
        word = f"{as_option(name)}={text}" if text.startswith("-") else f"{as_option(name)} {text}"
        if len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("   ")
        lines[-1] += f" {word}"
    return " \\\n".join(lines)


def _cut(name: str, value: Any) -> Any:
    if name == "output":
        return folder_name(value)
    if name in ("methods", "baseline") and value is not None:  # method, METHOD@MAPPING, file.yaml
        return ",".join("@".join(map(source_name, entry.split("@"))) for entry in value.split(","))
    if name in ("unlabelled", "teacher") and value is not None:
        return source_names(value)
    return source_name(value) if name in SOURCES and value is not None else value


def folder_name(place: str) -> str:
    """The last part of a path of either system."""
    return PureWindowsPath(place).name or place


def source_name(place: str) -> str:
    """A hub id as it is; of a path, which tells about the machine, only the last part."""
    return place if HUB_ID.fullmatch(place) else folder_name(place)


def source_names(places: str) -> str:
    """The names of several sources, separated by commas."""
    return ",".join(map(source_name, places.split(",")))


def plain(value: Any) -> Any:
    """A value of plain types, absolute paths cut to their last part."""
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return folder_name(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
