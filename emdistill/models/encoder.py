"""Load and save Hugging Face encoders: safetensors only, no remote code, always float32."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from emdistill.errors import HeadError, ModelError, TokenizerError
from emdistill.files import files_written_whole, storage_errors
from emdistill.models import bag, bilstm, chain
from emdistill.models.families import FAMILIES, family_of, require
from emdistill.models.inputs import PROBES, check_padding, fit_tokenizer
from emdistill.models.label_names import check_label_names, name_outputs, sigmoids, tell_sigmoid
from emdistill.models.masked_lm import has_masked_lm_head
from emdistill.models.multi_task import MultiTaskModel, TaskOutputs, build_task_model, chosen_task, load_task_tensors
from emdistill.models.stored_config import (
    CODE_OF_ITS_OWN,
    CUSTOM_CODE,
    Source,
    class_with_head,
    encoder_config,
    fills_masks,
    in_short,
    local_folder,
    read_config,
    safely,
    stored_head,
    stored_tasks,
)
from emdistill.models.stored_weights import (
    check_beginnings,
    load_weights,
    quiet_transformers,
    weight_files,
)
from emdistill.states import SEQUENCE, EncoderShape
from emdistill.values import read_values

SETFIT_HEAD = "model_head.pkl"
SENTENCE_PIECES = ("spiece.model", "sentencepiece.bpe.model", "spm.model")
CAPITAL = re.compile("[A-Z][a-z]+")  # of a word; [CLS] and [UNK] have none such
LEAST_CAPITALS, SOME_WORDS = 0.02, 20  # of the tokens; bert-base-cased has a third
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", *SENTENCE_PIECES)

# transformers' Auto classes know the families that emdistill brings.
for encoder, heads in ((bilstm.BiLstmModel, bilstm.HEADS), (bag.BagModel, bag.HEADS), (chain.ChainModel, chain.HEADS)):
    family: Any = encoder.config_class
    transformers.AutoConfig.register(family.model_type, family, exist_ok=True)
    transformers.AutoModel.register(family, encoder, exist_ok=True)
    for name, with_head in heads.items():
        getattr(transformers, f"AutoModelFor{name}").register(family, with_head, exist_ok=True)


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
    Raises ModelError: no such folder, no safetensors, a broken file, no encoder, an unknown family that reads padding
    in its own way (check_padding); HeadError for an encoder without a trained head.
    """
    config = encoder_config(source)
    tasks = stored_tasks(source, config)
    if tasks and problem_type is None:
        name = chosen_task([*tasks], task, source)
        return _checked(source, _task_models(source, config, {name: tasks[name]})[name])
    if task is not None:
        raise ModelError(f"{source} has one head, and no {task!r} among several; leave out --head")
    if problem_type is None:
        head = stored_head(config)
        check_label_names(source, config)
        if config.num_labels == 1 and (entries := sigmoids(config)):
            tell_sigmoid(source, entries)
    else:
        name_outputs(config, labels=labels, problem_type=problem_type)
    auto_class = getattr(transformers, f"AutoModelFor{head}")
    if type(config) not in auto_class._model_mapping:
        raise ModelError(f"{source} is a {config.model_type!r} model, and transformers has no {head} head for it")
    loaded = load_weights(auto_class, source, config)
    loaded.check_encoder(source)
    if loaded.other_sizes and problem_type is None:
        name, (stored, made) = min(loaded.other_sizes.items())
        raise ModelError(
            f"{source}: its head is stored for {stored[0]} outputs ({name}), and config.json describes {made[0]}; name "
            f"all {stored[0]} in its id2label, without num_labels, which goes before it"
        )
    if loaded.absent and problem_type is None:
        name, mend = min(loaded.absent), _mend_head(source, loaded.other_head)
        raise HeadError(f"{source} has no trained classification head ({name} is absent); {mend}")
    return _checked(source, loaded.model)


def load_tasks(source: Source) -> MultiTaskModel:
    """Load an encoder with the heads of all its tasks, in float32 and eval mode; raises ModelError."""
    config = encoder_config(source)
    if not (tasks := stored_tasks(source, config)):
        raise ModelError(f"{source} has one head, and not several")
    return MultiTaskModel(_task_models(source, config, tasks), tasks)


def tasks_of(source: Source) -> tuple[str, ...]:
    """The names of a model's heads where it has several, else (); raises ModelError for what is no encoder."""
    return tuple(stored_tasks(source, encoder_config(source)))


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
    config = encoder_config(source)
    with torch.random.fork_rng(devices=[]):  # absent weights are drawn before they are known to be absent
        with_head = transformers.AutoModelForMaskedLM if fills_masks(config) else transformers.AutoModel
        loaded = load_weights(with_head, source, config)
        if loaded.absent or loaded.other_sizes or not has_masked_lm_head(loaded.model):
            loaded = load_weights(transformers.AutoModel, source, config)
    loaded.check_encoder(source)
    if loaded.absent or loaded.other_sizes:
        loaded.model.register_module("pooler", None)
    return _checked(source, loaded.model)


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """Load the tokenizer beside an encoder, made to fit it (fit_tokenizer).
    Raises ModelError where there is none, TokenizerError where it does not belong to the encoder.
    """
    folder, files = local_folder(source), []
    if folder is not None:
        files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
        if not files:
            raise ModelError(f"{source} holds no tokenizer (one of {', '.join(TOKENIZER_FILES)}); save it there too")
        check_beginnings([*files, folder / TOKENIZER_CONFIG])
    config = read_config(source) if folder is None or (folder / "config.json").is_file() else None
    tokenizer: PreTrainedTokenizerBase
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder or str(source), config=config, **safely(folder))
        tokenizer(list(PROBES), verbose=False)  # some faults of a vocabulary are met by the first unknown word
    except Exception as error:  # the tokenizers library raises bare Exception for a broken tokenizer.json
        if CUSTOM_CODE in str(error):
            raise ModelError(f"the tokenizer of {source} {CODE_OF_ITS_OWN}") from None
        raise ModelError(f"{source}: its tokenizer cannot be loaded: {in_short(error)}{_mend_pieces(files)}") from error
    fit_tokenizer(tokenizer, config, source)
    if files and files[0].name == "vocab.txt":
        _check_case(tokenizer, files[0])
    return tokenizer


def _check_case(tokenizer: PreTrainedTokenizerBase, vocabulary: Path) -> None:
    """Raise TokenizerError where words lose their capitals, a vocabulary has them, and nobody has said so.

    transformers lower-cases where no file says do_lower_case, and cased models were published without one.
    """
    written = vocabulary.with_name(TOKENIZER_CONFIG)
    said = read_values(written) if written.is_file() else {}
    words = [token for token in tokenizer.get_vocab() if CAPITAL.match(token)]
    if "do_lower_case" in said or len(words) < LEAST_CAPITALS * len(tokenizer.get_vocab()):
        return
    if any(tokenizer.tokenize(word) == [word] for word in words[:SOME_WORDS]):
        return
    raise TokenizerError(
        f"{vocabulary} has {len(words):,} tokens with capitals, e.g. {words[0]!r}, and no tokenizer_config.json says "
        'whether texts are lower-cased; say it there as the encoder was trained: {"do_lower_case": false}, or true'
    )


def _mend_head(source: Source, other: str | None) -> str:
    """What to do about an encoder without a trained head; SetFit's stands beside it, an `other` among its weights."""
    folder = local_folder(source)
    if folder is not None and (folder / SETFIT_HEAD).is_file():
        return (
            f"SetFit's, {SETFIT_HEAD}, is a pickle, which is never loaded: let SetFit answer your texts, and name the "
            "file of its answers: --teacher answers.jsonl"
        )
    if other is None:
        return "fine-tune it first: emdistill finetune"
    return (
        f"where {other}, which has no place here, is of its trained head, save the weights under transformers' names "
        "(of PEFT's after merge_and_unload()); else fine-tune it first: emdistill finetune"
    )


def _mend_pieces(files: Sequence[Path]) -> str:
    """What to do about a tokenizer that is a SentencePiece model alone, where that cannot be read."""
    if not files or files[0].name not in SENTENCE_PIECES:
        return ""
    return (
        f"; {files[0].name} alone needs further packages, pip install sentencepiece protobuf; or load it with "
        "transformers where they are and save_pretrained() it, which writes tokenizer.json"
    )


def save_student(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Source) -> None:
    """Save a plain transformers model (safetensors) and tokenizer, loadable where emdistill is not installed.

    Each file is replaced whole, once all are on the disk. Raises OutputError where the disk refuses them.
    """
    with storage_errors(Path(folder)), files_written_whole(Path(folder)) as part, quiet_transformers():
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


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
            attention_width=getattr(config, "true_hidden_size", None),
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


def _checked(source: Source, model: PreTrainedModel) -> PreTrainedModel:
    """The model, put right; raises ModelError for an unknown family that reads padding in its own way."""
    family_of(model).put_right(model)
    if model.config.model_type not in FAMILIES:
        check_padding(model, load_tokenizer(source), source)
    return model


def _task_models(
    source: Source, config: PreTrainedConfig, tasks: Mapping[str, TaskOutputs]
) -> dict[str, PreTrainedModel]:
    """The stored models of these tasks, each with an encoder of its own."""
    folder = local_folder(source)
    if folder is not None:
        weight_files(folder)
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
