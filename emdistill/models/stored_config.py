"""What a stored model's config.json says: read without code of its own, and refused where it cannot be used."""

import math
from pathlib import Path
from typing import Any, cast

import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from emdistill.config import HUB_ID
from emdistill.errors import ModelError, listing, shown
from emdistill.hub import can_be_asked, nearest_here
from emdistill.models.families import FAMILIES, family_of
from emdistill.models.label_names import NAMED_LOGITS, names_by_label2id
from emdistill.models.multi_task import TaskOutputs, saved_tasks
from emdistill.states import SEQUENCE
from emdistill.tasks import KINDS
from emdistill.values import read_values

Source = str | Path

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
MOST_LABELS = 100_000
UNQUANTISED = "its weights are quantised, and are read here in 16 bits or more; name the model that they were made from"
# How some former program ran the model, which says nothing of what it answers: how it is run here is not read there.
AS_IT_IS_RUN = {
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "chunk_size_feed_forward": 0,
    "attn_implementation": None,
}
CUSTOM_CODE = "custom code"  # in transformers' errors where a model brings its own
NO_TYPE = "`model_type` key"  # likewise
CODE_OF_ITS_OWN = (
    "brings code of its own (auto_map), which is never run here; name a model of one of transformers' own classes, or, "
    "where those read its weights as well, take auto_map out of its .json files"
)


def local_folder(source: Source) -> Path | None:
    """The folder that `source` names, or None for a hub id; raises ModelError for anything else."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{source} is a file; name the folder of the encoder, which holds config.json")
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        mend = f"name a folder with an encoder in it, or a hub id.{nearest_here(str(source))}"
        raise ModelError(f"there is no folder {source}; {mend}")
    return None


def encoder_config(source: Source) -> PreTrainedConfig:
    """The configuration of an encoder that can have a head; raises ModelError for adapters and for other models."""
    folder = local_folder(source)
    if adapters := [name for name in ADAPTER_FILES if folder is not None and (folder / name).is_file()]:
        raise ModelError(
            f"{source} holds adapters ({', '.join(adapters)}), which are not applied here; merge them into the weights "
            "with PEFT's merge_and_unload(), and name the folder that save_pretrained() then writes"
        )
    graphs = [] if folder is None else sorted(path.name for path in folder.glob("*.onnx"))
    if graphs and folder is not None and not _has_weights(folder):
        raise ModelError(
            f"{source} holds a graph ({graphs[0]}), which answers texts and gives no states to learn from; name the "
            "folder of the model that it was exported from, or a file of its answers: --teacher answers.jsonl"
        )
    if folder is not None and not (folder / "config.json").is_file():
        found = [
            *folder.glob("*/config.json"),
            *folder.glob("snapshots/*/config.json"),
        ]  # the latter in the hub's cache
        inner = [str(path.parent.relative_to(folder)) for path in sorted(found) if _has_weights(path.parent)]
        mend = f"name a folder in it: {listing(inner)}" if inner else "name the folder that save_pretrained wrote"
        raise ModelError(f"{source} holds no config.json, so no encoder; {mend}")
    config = read_config(source)
    if getattr(config, "quantization_config", None):
        raise ModelError(f"{source}: config.json has a quantization_config: {UNQUANTISED}")
    # Of the models that can classify sequences, those that can also fill masks are encoders.
    classifies = type(config) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    known = config.model_type in FAMILIES or fills_masks(config)
    decodes = next((name for name in ("is_encoder_decoder", "is_decoder") if getattr(config, name, False)), None)
    if not (classifies and known) or decodes:
        why = f" ({decodes} in config.json)" if decodes else ""
        raise ModelError(
            f"{source} is a {config.model_type!r} model, no encoder with a sequence-classification head{why}; "
            f"supported families: {', '.join(FAMILIES)}. Any other model teaches by a file of its answers: "
            "--teacher answers.jsonl"
        )
    _check_padding_id(source, config)
    return config


def _has_weights(folder: Path) -> bool:
    return any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir())


def _check_padding_id(source: Source, config: PreTrainedConfig) -> None:
    """Raise ModelError for an id of padding that the table of tokens has no row for, or that positions lack."""
    padding, rows = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", math.inf)
    counts = family_of(config).counts_padding
    least = 0 if counts else -rows  # PyTorch counts from the end
    if (padding is None and counts) or not (padding is None or least <= padding < rows):
        where = ", which positions are counted from," if counts else ""
        raise ModelError(
            f"{source}: config.json says pad_token_id {padding}{where} and has {rows} tokens; write there the id of "
            "its tokenizer's padding token"
        )


def read_config(source: Source) -> PreTrainedConfig:
    """The configuration as it is stored, of whatever model; raises ModelError for one that cannot be read."""
    folder = local_folder(source)
    place = source if folder is None else folder / "config.json"
    names = _checked_labels(folder / "config.json") if folder is not None else {}
    try:
        config: PreTrainedConfig = transformers.AutoConfig.from_pretrained(
            folder or str(source), **AS_IT_IS_RUN, **safely(folder)
        )
    except Exception as error:  # a wrong value of some field raises whatever the config's own code raises
        if CUSTOM_CODE in str(error):
            raise ModelError(f"{place} {CODE_OF_ITS_OWN}") from None
        if NO_TYPE in str(error):  # as in TinyBERT's
            raise ModelError(
                f"{place} says no model_type; write there what its weights are, one of {', '.join(FAMILIES)}: "
                '"model_type": "bert"'
            ) from None
        if folder is None:
            fault = f"{source} is neither a folder nor a model the hub can give: {error}"
            raise ModelError(f"{fault}{nearest_here(str(source))}") from error
        raise ModelError(f"{place} cannot be used: {in_short(error)}") from error
    if getattr(config, "auto_map", None):
        raise ModelError(f"{place} {CODE_OF_ITS_OWN}")
    if not isinstance(getattr(config, "emdistill", {}), dict):
        raise ModelError(f"{place} cannot be used: its entry 'emdistill' is no object; copy it again")
    config._attn_implementation = None
    vars(config).pop("torchscript", None)
    if names:
        config.id2label, config.label2id = names, {name: place for place, name in names.items()}
    return config


def stored_tasks(source: Source, config: PreTrainedConfig) -> dict[str, TaskOutputs]:
    """Task -> what its head puts out, of a model with several; {} of one with one head."""
    try:
        return saved_tasks(config)
    except ValueError as error:
        raise ModelError(f"{source}: config.json cannot be used (emdistill.{error}); copy it again") from None


def stored_head(config: PreTrainedConfig) -> str:
    """The head (TaskKind.head) of a stored model; of one that no kind of task has, that of classes."""
    named = config.architectures if isinstance(config.architectures, list) else []
    heads = [str(name).partition("For")[2] for name in named]
    return next((head for head in heads if any(head == kind.head for kind in KINDS.values())), SEQUENCE)


def class_with_head(config: PreTrainedConfig, head: str) -> type[PreTrainedModel]:
    """transformers' class for a configuration with a head (TaskKind.head); raises ModelError where it has none."""
    mapping = getattr(transformers, f"AutoModelFor{head}")._model_mapping
    if type(config) not in mapping:
        raise ModelError(f"this is a {config.model_type!r} model, and transformers has no {head} head for it")
    return cast(type[PreTrainedModel], mapping[type(config)])


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
    if "num_labels" in labels and not (type(count) is int and 0 < count <= MOST_LABELS):
        raise ModelError(
            f"{path} cannot be used: num_labels is {shown(count)}, and is a whole number from 1 to {MOST_LABELS:,}; "
            "correct it, or leave it out where id2label names each logit"
        )
    if not isinstance(names, dict) or not all(map(str.isdecimal, names)):
        raise ModelError(f"{path} cannot be used: id2label is {shown(names)}; {NAMED_LOGITS}")
    return names_by_label2id(labels)


def fills_masks(config: PreTrainedConfig) -> bool:
    """Whether transformers has a masked-LM head for such a model, as it has for encoders."""
    return type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING


def safely(folder: Path | None) -> dict[str, Any]:
    """Options of every from_pretrained: no remote code; no network for a folder, or where the hub cannot be asked."""
    return {"trust_remote_code": False, "local_files_only": folder is not None or not can_be_asked()}


def in_short(error: Exception) -> str:
    """The beginning of another library's error, on one line; some bring a whole C++ stack."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300] or 'no words'}"
