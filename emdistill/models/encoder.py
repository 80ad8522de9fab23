"""Load and save Hugging Face encoders: safetensors only, no remote code, always float32."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from emdistill.config import HUB_ID
from emdistill.errors import ModelError, TokenizerError, listing, shown
from emdistill.files import FETCH, files_written_whole, is_inside, is_pointer, storage_errors
from emdistill.models import bag, bilstm, chain
from emdistill.models.families import FAMILIES, family_of, require
from emdistill.models.inputs import PROBES, check_padding, fit_tokenizer
from emdistill.models.masked_lm import has_masked_lm_head
from emdistill.models.multi_task import (
    MultiTaskModel,
    TaskOutputs,
    build_task_model,
    chosen_task,
    load_task_tensors,
    saved_tasks,
)
from emdistill.states import SEQUENCE, EncoderShape
from emdistill.tasks import KINDS
from emdistill.values import read_values, typed

Source = str | Path

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHTS = "model.safetensors"
# Of what a config.json says, how often some part of a model is made; and what may be made without being stored.
REPEATED = ("num_hidden_layers", "num_hidden_groups", "inner_group_num", "num_feedforward_networks")
FEW, MOST_FRESH = 100, 10_000_000
MOST_LABELS = 100_000
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
NAMED_LOGITS = 'write there a name of its own for each logit, from 0 on: {"0": "negative", "1": "positive"}'
QUANTISED = ("I8", "U8", "F8", "F4")  # safetensors' names of types
UNQUANTISED = "its weights are quantised, and are read here in 16 bits or more; name the model that they were made from"
CUSTOM_CODE = "custom code"  # in transformers' errors where a model brings its own
CODE_OF_ITS_OWN = (
    "brings code of its own (auto_map), which is never run here; name a model of one of transformers' own classes, or, "
    "where those read its weights as well, take auto_map out of its .json files"
)

for family in (bilstm, bag, chain):
    family.register()


@dataclass(frozen=True)
class Classifier:
    """A model as it lies on the disk, loaded, with its tokenizer."""

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_classifier(
    source: Source,
    *,
    labels: Sequence[str] = (),
    problem_type: str | None = None,
    head: str = SEQUENCE,
    task: str | None = None,
) -> PreTrainedModel:
    """Load an encoder with the head of its task, in float32 and eval mode.

    Without `problem_type` the model must have a head and is taken as stored; of several heads that of `task`.
    With it the model is to be trained: its outputs get these label names, or one output without labels, and a `head`
    (TaskKind.head) that is absent or of another size is drawn from torch's random generator (seed it before).
    Raises ModelError: no such folder, no safetensors, a broken file, no encoder, no head, an unknown family that reads
    padding in its own way (check_padding).
    """
    config = _load_config(source)
    tasks = _saved_tasks(source, config)
    if tasks and problem_type is None:
        name = chosen_task([*tasks], task, source)
        return _checked(source, _task_models(source, config, {name: tasks[name]})[name])
    if task is not None:
        raise ModelError(f"{source} has one head, and no {task!r} among several; leave out --head")
    if problem_type is None:
        head = stored_head(config)
        _check_label_names(source, config)
    else:
        name_outputs(config, labels=labels, problem_type=problem_type)
    auto_class = getattr(transformers, f"AutoModelFor{head}")
    if type(config) not in auto_class._model_mapping:
        raise ModelError(f"{source} is a {config.model_type!r} model, and transformers has no {head} head for it")
    model, absent = _load_weights(auto_class, source, config)
    _check_encoder(source, {key for key in absent if key.startswith(f"{model.base_model_prefix}.")})
    if absent and problem_type is None:
        raise ModelError(
            f"{source} has no trained classification head ({min(absent)} is absent or of another size); "
            "fine-tune it first: emdistill finetune"
        )
    return _checked(source, model)


def load_tasks(source: Source) -> MultiTaskModel:
    """Load an encoder with the heads of all its tasks, in float32 and eval mode; raises ModelError."""
    config = _load_config(source)
    if not (tasks := _saved_tasks(source, config)):
        raise ModelError(f"{source} has one head, and not several")
    return MultiTaskModel(_task_models(source, config, tasks), tasks)


def tasks_of(source: Source) -> tuple[str, ...]:
    """The names of a model's heads where it has several, else (); raises ModelError for what is no encoder."""
    return tuple(_saved_tasks(source, _load_config(source)))


def class_with_head(config: PreTrainedConfig, head: str) -> type[PreTrainedModel]:
    """transformers' class for a configuration with a head (TaskKind.head); raises ModelError where it has none."""
    mapping = getattr(transformers, f"AutoModelFor{head}")._model_mapping
    if type(config) not in mapping:
        raise ModelError(f"this is a {config.model_type!r} model, and transformers has no {head} head for it")
    return cast(type[PreTrainedModel], mapping[type(config)])


def stored_head(config: PreTrainedConfig) -> str:
    """The head (TaskKind.head) of a stored model; of one that no kind of task has, that of classes."""
    named = config.architectures if isinstance(config.architectures, list) else []
    heads = [str(name).partition("For")[2] for name in named]
    return next((head for head in heads if any(head == kind.head for kind in KINDS.values())), SEQUENCE)


def head_of(model: nn.Module) -> str:
    """What stands on an encoder: 'TokenClassification' of a BertForTokenClassification; '' of a bare one."""
    return type(model).__name__.partition("For")[2]


def head_logits(outputs: Mapping[str, Any]) -> Tensor:
    """The logits that a head gives: [B, C], or [B, L, C] of tokens; of a span's ends [B, L, 2]."""
    if "start_logits" in outputs:
        return torch.stack((outputs["start_logits"], outputs["end_logits"]), dim=-1)
    logits: Tensor = outputs["logits"]
    return logits


def load_encoder(source: Source) -> PreTrainedModel:
    """Load an encoder without a task, in float32 and eval mode: with its masked-LM head where a trained one is stored.

    Else the bare encoder, with its pooler where one is stored. Nothing in it is fresh, and torch's random state stays.
    Raises ModelError: no such folder, no safetensors, a broken file, no encoder.
    """
    config = _load_config(source)
    with torch.random.fork_rng(devices=[]):  # absent weights are drawn before they are known to be absent
        with_head = transformers.AutoModelForMaskedLM if _fills_masks(config) else transformers.AutoModel
        model, absent = _load_weights(with_head, source, config)
        if absent or not has_masked_lm_head(model):
            model, absent = _load_weights(transformers.AutoModel, source, config)
    _check_encoder(source, absent)
    if absent:
        model.register_module("pooler", None)
    return _checked(source, model)


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """Load the tokenizer beside an encoder, made to fit it (fit_tokenizer).
    Raises ModelError where there is none, TokenizerError where it does not belong to the encoder.
    """
    folder = local_folder(source)
    if folder is not None:
        files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
        if not files:
            raise ModelError(f"{source} holds no tokenizer (one of {', '.join(TOKENIZER_FILES)}); save it there too")
        _check_fetched(files)
    tokenizer: PreTrainedTokenizerBase
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder or str(source), **_safely(folder))
        tokenizer(list(PROBES), verbose=False)  # some faults of a vocabulary are met by the first unknown word
    except Exception as error:  # the tokenizers library raises bare Exception for a broken tokenizer.json
        if CUSTOM_CODE in str(error):
            raise ModelError(f"the tokenizer of {source} {CODE_OF_ITS_OWN}") from None
        raise ModelError(f"{source}: its tokenizer cannot be loaded: {error}") from error
    has_config = folder is None or (folder / "config.json").is_file()
    fit_tokenizer(tokenizer, _read_config(source) if has_config else None, source)
    return tokenizer


def save_student(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Source) -> None:
    """Save a plain transformers model (safetensors) and tokenizer, loadable where emdistill is not installed.

    Each file is replaced whole, once all are on the disk. Raises OutputError where the disk refuses them.
    """
    with storage_errors(Path(folder)), files_written_whole(Path(folder)) as part, _quiet_transformers():
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def name_outputs(config: PreTrainedConfig, *, labels: Sequence[str], problem_type: str) -> None:
    """Write the label names (or one output without labels) and the kind of problem into `config`."""
    config.num_labels = len(labels) or 1
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: index for index, name in enumerate(labels)}
    config.problem_type = problem_type  # type: ignore[assignment]


def encoder_shape(encoder: PreTrainedModel | PreTrainedConfig) -> EncoderShape:
    """Number of Transformer layers, width and attention heads; raises ModelError where the config lacks them."""
    config = encoder.config if isinstance(encoder, PreTrainedModel) else encoder
    try:
        family = family_of(config)
        return EncoderShape(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            family.attending(config),
            biased=family.own_attention is not None,
        )
    except AttributeError as error:
        raise ModelError(f"a {config.model_type!r} config does not say its layers, width and heads: {error}") from error


def encoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The stored layers (of an ALBERT one per group); raises ModelError for an unknown family."""
    path, _, below = require(model, "keep").layers.partition(".*")
    return [layer.get_submodule(below.removeprefix(".")) for layer in model.base_model.get_submodule(path).children()]


def same_tokens(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> None:
    """Raise TokenizerError unless both tokenizers give the same ids: vocabulary, special tokens, probe sentences.

    Only raw text needs that (--task text); on a task each reads its own tokens (training/two_vocabularies.py).
    """
    ours, others = teacher.get_vocab(), student.get_vocab()
    mend = (
        "; with --task text both read the same tokens: take a student encoder with the teacher's tokenizer, or let it "
        "keep the teacher's layers"
    )
    if differing := sorted(token for token in {*ours, *others} if ours.get(token) != others.get(token)):
        token = differing[0]
        raise TokenizerError(
            f"teacher ({len(ours)} tokens) and student ({len(others)} tokens) differ in the ids of {len(differing)} "
            f"tokens, e.g. {token!r}: {ours.get(token)} and {others.get(token)}{mend}"
        )
    if teacher.special_tokens_map != student.special_tokens_map:
        raise TokenizerError(
            "teacher and student have different special tokens: "
            f"{teacher.special_tokens_map} and {student.special_tokens_map}{mend}"
        )
    for probe in PROBES:
        teacher_ids, student_ids = (each(probe, PROBES[0], verbose=False)["input_ids"] for each in (teacher, student))
        if teacher_ids != student_ids:
            raise TokenizerError(
                f"teacher and student split {probe!r} differently: {teacher.convert_ids_to_tokens(teacher_ids)} "
                f"and {student.convert_ids_to_tokens(student_ids)}{mend}"
            )


def fingerprint(model: nn.Module) -> str:
    """SHA-256, in hex, of the name, type, shape and bytes of every tensor in the state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def local_folder(source: Source) -> Path | None:
    """The folder that `source` names, or None for a hub id; raises ModelError for anything else."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{source} is a file; name the folder of the encoder, which holds config.json")
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise ModelError(f"there is no folder {source}; name a folder with an encoder in it, or a hub id")
    return None


def _checked(source: Source, model: PreTrainedModel) -> PreTrainedModel:
    """The model, put right; raises ModelError for an unknown family that reads padding in its own way."""
    family_of(model).put_right(model)
    if model.config.model_type not in FAMILIES:
        check_padding(model, load_tokenizer(source), source)
    return model


def _safely(folder: Path | None) -> dict[str, Any]:
    """Options of every from_pretrained: no remote code; no network for a folder."""
    return {"trust_remote_code": False, "local_files_only": folder is not None}


def _read_config(source: Source) -> PreTrainedConfig:
    folder = local_folder(source)
    place = source if folder is None else folder / "config.json"
    names = _checked_labels(folder / "config.json") if folder is not None else {}
    try:
        config: PreTrainedConfig = transformers.AutoConfig.from_pretrained(folder or str(source), **_safely(folder))
    except Exception as error:  # a wrong value of some field raises whatever the config's own code raises
        if CUSTOM_CODE in str(error):
            raise ModelError(f"{place} {CODE_OF_ITS_OWN}") from None
        if folder is None:
            raise ModelError(f"{source} is neither a folder nor a model the hub can give: {error}") from error
        raise ModelError(f"{place} cannot be used: {_in_short(error)}") from error
    if getattr(config, "auto_map", None):
        raise ModelError(f"{place} {CODE_OF_ITS_OWN}")
    if not isinstance(getattr(config, "emdistill", {}), dict):
        raise ModelError(f"{place} cannot be used: its entry 'emdistill' is no object; copy it again")
    if names:
        config.id2label, config.label2id = names, {name: place for place, name in names.items()}
    return config


def _checked_labels(path: Path) -> dict[int, str]:
    """The labels where label2id alone names them, which transformers passes over; else {}.

    Raises ModelError for a file that is no JSON, or whose labels transformers could not read or never end to name.
    """
    try:
        content = read_values(path)
    except ValueError as error:
        raise ModelError(f"{path} cannot be used: {error}") from None
    labels = content if isinstance(content, dict) else {}
    count, names = labels.get("num_labels"), labels.get("id2label") or {}
    if isinstance(count, int) and count > MOST_LABELS:
        raise ModelError(f"{path} cannot be used: num_labels is {count}, and {MOST_LABELS:,} are the most")
    if not isinstance(names, dict) or not all(map(str.isdecimal, names)):
        raise ModelError(f"{path} cannot be used: id2label is {shown(names)}; {NAMED_LOGITS}")
    numbered = labels.get("label2id")
    if names or not isinstance(numbered, dict):
        return {}
    named = {place: name for name, place in numbered.items() if type(place) is int}
    return dict(sorted(named.items())) if sorted(named) == [*range(len(numbered))] else {}


def _check_label_names(source: Source, config: PreTrainedConfig) -> None:
    """Raise ModelError unless every logit has a name of its own, the same in id2label and in label2id."""
    names: dict[Any, str | None] = dict(config.id2label or {})
    numbered: object = config.label2id
    places = {str(name): str(place) for name, place in numbered.items()} if isinstance(numbered, dict) else {}
    otherwise = [name for place, name in names.items() if places.get(str(name), str(place)) != str(place)]
    if otherwise and {*places} == {*map(str, names.values())}:
        raise ModelError(
            f"{source}: config.json says id2label {shown(names)} and label2id {shown(config.label2id)}, which number "
            f"{otherwise[0]!r} differently; correct the one that is wrong"
        )
    different = {str(name) for name in names.values() if name not in (None, "")}
    if sorted(names) != [*range(len(names))] or len(different) < len(names):
        raise ModelError(f"{source}: config.json says id2label {shown(names)}; {NAMED_LOGITS}")


def _saved_tasks(source: Source, config: PreTrainedConfig) -> dict[str, TaskOutputs]:
    try:
        return saved_tasks(config)
    except ValueError as error:
        raise ModelError(f"{source}: config.json cannot be used (emdistill.{error}); copy it again") from None


def _load_config(source: Source) -> PreTrainedConfig:
    folder = local_folder(source)
    if adapters := [name for name in ADAPTER_FILES if folder is not None and (folder / name).is_file()]:
        raise ModelError(
            f"{source} holds adapters ({', '.join(adapters)}), which are not applied here; merge them into the weights "
            "with PEFT's merge_and_unload(), and name the folder that save_pretrained() then writes"
        )
    if folder is not None and not (folder / "config.json").is_file():
        inner = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
        mend = f"name a folder in it: {listing(inner)}" if inner else "name the folder that save_pretrained wrote"
        raise ModelError(f"{source} holds no config.json, so no encoder; {mend}")
    config = _read_config(source)
    if getattr(config, "quantization_config", None):
        raise ModelError(f"{source}: config.json has a quantization_config: {UNQUANTISED}")
    # Of the models that can classify sequences, those that can also fill masks are encoders.
    classifies = type(config) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    known = config.model_type in FAMILIES or _fills_masks(config)
    if not (classifies and known) or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        raise ModelError(
            f"{source} is a {config.model_type!r} model, no encoder with a sequence-classification head; "
            f"supported families: {', '.join(FAMILIES)}"
        )
    return config


def _fills_masks(config: PreTrainedConfig) -> bool:
    return type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING


def _load_weights(auto_class: Any, source: Source, config: PreTrainedConfig) -> tuple[PreTrainedModel, set[str]]:
    """The model, and the names of its fresh tensors: those not stored, or of another size."""
    folder = local_folder(source)
    if folder is not None:
        _check_weight_files(folder)
    model: PreTrainedModel
    try:
        if folder is not None:
            _check_sizes(folder, auto_class, config)
        with _quiet_transformers():
            model, report = auto_class.from_pretrained(
                folder or str(source),
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # sizes are checked later, apart for encoder and head
                output_loading_info=True,
                **_safely(folder),
            )
    except SafetensorError as error:
        raise ModelError(f"{source}: its safetensors file is damaged or cut short ({error}); copy it again") from error
    except ModelError:
        raise
    except Exception as error:  # a wrong value in config.json raises whatever the model's own code raises
        place = folder / "config.json" if folder is not None else source
        raise ModelError(f"{source}: its weights cannot be loaded as {place} says: {_in_short(error)}") from error
    _check_layers_read(source, model, report["unexpected_keys"])
    return model, {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}


def _check_layers_read(source: Source, model: PreTrainedModel, unread: Iterable[str]) -> None:
    """Raise ModelError where layers hold what the model has no place for: further layers, adapters, other attention."""
    below = f"{model.base_model_prefix}."
    if foreign := [key for key in unread if family_of(model).place(key.removeprefix(below))[0] is not None]:
        raise ModelError(
            f"{source}: {len(foreign)} tensors of its layers have no place in the model that config.json describes, "
            f"e.g. {min(foreign)}; config.json and the weights do not belong together: copy both again, and merge "
            "adapters into the weights"
        )


def _check_sizes(folder: Path, auto_class: Any, config: PreTrainedConfig) -> None:
    """Raise ModelError for a config.json whose model is much larger than its weights: making it would never end.

    And for weights in less than 16 bits, which are no numbers without their scales.
    """
    shapes: list[list[int]] = []
    for file in weight_parts(folder) or [folder / WEIGHTS]:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                part = tensors.get_slice(name)
                shapes.append(part.get_shape())
                if part.get_dtype().startswith(QUANTISED):
                    raise ModelError(f"{file}: {name} is stored as {part.get_dtype()}: {UNQUANTISED}")
    stored = sum(map(math.prod, shapes))
    repeated = {name: getattr(config, name, 0) for name in REPEATED}
    if too_many := {name: count for name, count in repeated.items() if count > max(len(shapes), FEW)}:
        name, count = next(iter(too_many.items()))
        raise ModelError(f"{folder / 'config.json'}: {name} is {count}, but its weights are {len(shapes)} tensors")
    with torch.device("meta"):
        parameters = sum(weights.numel() for weights in auto_class.from_config(config).parameters())
    if parameters > MOST_FRESH + 2 * stored:
        raise ModelError(
            f"{folder / 'config.json'} describes {parameters:,} parameters, but its weights are {stored:,} numbers; "
            "they do not belong together: copy both again"
        )


def _task_models(
    source: Source, config: PreTrainedConfig, tasks: Mapping[str, TaskOutputs]
) -> dict[str, PreTrainedModel]:
    """The stored models of these tasks, each with an encoder of its own."""
    folder = local_folder(source)
    if folder is not None:
        _check_weight_files(folder)
    try:
        tensors = load_file(str(cached_file(folder or str(source), "model.safetensors", local_files_only=bool(folder))))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{source}: its safetensors file is damaged or cut short ({error}); copy it again") from error
    models = {}
    for name, outputs in tasks.items():
        with torch.random.fork_rng(devices=[]):
            models[name] = build_task_model(class_with_head(config, outputs.head), config, outputs)
        load_task_tensors(models[name], name, tensors, source)
    return models


def _in_short(error: Exception) -> str:
    """The first line of another library's error; some bring a whole C++ stack."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no words').splitlines()[0][:300]}"


def _check_weight_files(folder: Path) -> None:
    """Raise ModelError where the weights are not there, not fetched, or stand in a pickle."""
    if files := [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else weight_parts(folder):
        _check_fetched(files)
        return
    if pickles := sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES):
        raise ModelError(
            f"{folder} has its weights only in {pickles[0]}, a pickle, which is never loaded; convert it where you "
            "trust it: load the model with transformers and save_pretrained() it, which writes model.safetensors"
        )
    raise ModelError(f"{folder} holds no weights (model.safetensors)")


def _check_fetched(files: Iterable[Path]) -> None:
    if pointers := [file for file in files if is_pointer(file)]:
        raise ModelError(f"{pointers[0]}: {FETCH}")


def weight_parts(folder: Path) -> list[Path]:
    """The files of weights that stand in several; [] of others. Raises ModelError for an index that is broken."""
    index = folder / INDEX
    if not index.is_file():
        return []
    try:
        parts = typed(read_values(index), _Index).weight_map.values()
    except ValueError as error:
        raise ModelError(f"{index} is broken ({error}); copy the whole folder") from None
    if absent := [part for part in sorted(set(parts)) if not is_inside(part) or not (folder / part).is_file()]:
        raise ModelError(f"{index} names {listing(absent)}, which is not in its folder; copy the whole folder")
    return [folder / part for part in sorted(set(parts))]


@dataclass(frozen=True)
class _Index:
    """Which file each tensor stands in."""

    weight_map: dict[str, str]


def _check_encoder(source: Source, absent: set[str]) -> None:
    """Of an encoder's tensors only the pooler's may be absent."""
    if encoder_keys := {key for key in absent if "pooler" not in key}:
        raise ModelError(
            f"{source}: {len(encoder_keys)} of the encoder's tensors are absent or of another size than config.json "
            f"says, e.g. {min(encoder_keys)}; config.json and the weights do not belong together"
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars, and no notice of fresh weights, for which there are errors."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
