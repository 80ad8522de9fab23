"""What an encoder can read: the longest text, token types and ids, and whether padding changes its answers."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from emdistill.errors import ModelError, TokenizerError
from emdistill.models.families import FAMILIES, family_of
from emdistill.models.families.family import as_it_is

PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "Don't panic: it's only 3.14 % (or so)!",
    "naïve CAFÉ, Straße, 北京, 🙂",
    "  two  spaces\tand a tab ",
)
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]  # that a tokenizer gives; the first is what it pads
PADDING = ("[PAD]", "<pad>")
ROUNDING = 1e-3  # of a text's largest number


def token_types(config: PreTrainedConfig) -> int:
    """The number of token types in the encoder's table; 0 where it reads none."""
    return int(getattr(config, "type_vocab_size", 0) or 0)


def first_position(model: PreTrainedModel) -> int:
    """The row of a text's first token in the table of positions.

    RoBERTa and its kin count from the row after padding's; others from 0, or have no table.
    """
    for name, module in model.base_model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            return int(padding) + 1
    return 0


def longest_text(model: PreTrainedModel) -> int:
    """The number of positions, special tokens included; raises ModelError where the config does not say it."""
    config: Any = model.config
    try:
        return int(config.max_position_embeddings) - first_position(model)
    except AttributeError as error:
        raise ModelError(f"a {config.model_type!r} config does not say how long a text may be: {error}") from error


def fit_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig | None, source: object) -> None:
    """Make the tokenizer of `source` pad on the right, mark padding, give the inputs that are known and, where the
    encoder has fewer than two token types, leave them out.

    Raises TokenizerError for one without a padding token, with ids or types that the encoder has no row for, or with
    hardly any tokens, where its files are not there or of another kind.
    """
    vocabulary = tokenizer.get_vocab()
    if tokenizer.pad_token is None:
        token = next((token for token in PADDING if token in vocabulary), PADDING[0])
        raise TokenizerError(
            f"the tokenizer of {source} has no padding token, so it makes no batches of texts of different lengths; "
            f'name the one that the encoder was trained with in tokenizer_config.json: "pad_token": "{token}"'
        )
    tokenizer.padding_side = "right"  # positions are counted from the left
    named = tokenizer.model_input_names
    if named[:1] != INPUTS[:1] or "attention_mask" not in named or not {*named} <= {*INPUTS}:
        _give(tokenizer, [name for name in INPUTS if name != "token_type_ids" or name in named])
    if config is None:
        return
    rows: int = getattr(config, "vocab_size", len(vocabulary))
    tokens = {id: token for token, id in vocabulary.items()}
    given = tokenizer("a", "b")["input_ids"]  # special tokens may be given by ids that the vocabulary has for others
    if outside := sorted(id for id in {*tokens, *given} if id >= rows):
        raise TokenizerError(
            f"the tokenizer of {source} has {len(outside)} tokens beyond the {rows} that its encoder has rows for, "
            f"e.g. {tokens.get(outside[0], 'a special token')!r} of id {outside[0]}; take the tokenizer "
            "that belongs to the encoder, or add rows to it and train them: resize_token_embeddings()"
        )
    read = {id for ids in tokenizer(list(PROBES), verbose=False)["input_ids"] for id in ids}
    if 2 * len(tokens) < rows and read <= {*tokenizer.all_special_ids}:  # transformers makes one of what is not there
        raise TokenizerError(
            f"the tokenizer of {source}, a {type(tokenizer).__name__} of {len(tokens)} tokens, knows nothing that it "
            f"reads, and its encoder has rows for {rows}; save all files of the tokenizer that belongs to the encoder, "
            "or name its tokenizer_class in tokenizer_config.json"
        )
    padding = getattr(config, "pad_token_id", None)
    if padding not in (None, tokenizer.pad_token_id) and family_of(config).put_right is not as_it_is:
        raise TokenizerError(  # the row of the one would be emptied, and batches filled with the other
            f"the tokenizer of {source} pads with {tokenizer.pad_token!r}, of id {tokenizer.pad_token_id}, and its "
            f"encoder's config.json says pad_token_id {padding}; correct the one that is wrong"
        )
    if "token_type_ids" not in tokenizer.model_input_names:
        return
    types = token_types(config)
    if types < 2:
        _give(tokenizer, [name for name in tokenizer.model_input_names if name != "token_type_ids"])
    elif (last := max(tokenizer("a", "b")["token_type_ids"], default=0)) >= types:
        raise TokenizerError(
            f"the tokenizer of {source} gives token type {last}, and its encoder has rows for {types}; take the "
            "tokenizer that belongs to the encoder"
        )


def _give(tokenizer: PreTrainedTokenizerBase, inputs: list[str]) -> None:
    """Let the tokenizer give these inputs, now and once it is saved."""
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = inputs


def check_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: object) -> None:
    """Raise ModelError unless texts have the same states padded and alone, and the longest one has positions."""
    what = f"{source} is a {model.config.model_type!r} model, no family that is known ({', '.join(FAMILIES)})"
    options: Any = {"truncation": True, "max_length": min(longest_text(model), 128), "return_tensors": "pt"}
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            together = _states(model, tokenizer(list(PROBES), padding=True, **options))
            alone = [_states(model, tokenizer(probe, **options)) for probe in PROBES]
            difference = max(_difference(states, together, row) for row, states in enumerate(alone))
            _read_longest(model)
    except Exception as error:  # whatever its own code raises
        raise ModelError(f"{what}, and it cannot read texts as they do: {type(error).__name__}: {error}") from error
    if not difference <= ROUNDING:
        raise ModelError(
            f"{what}, and it gives a text other states in a padded batch than alone (by {difference:.1%} of the "
            "largest number), so its answers depend on the batch; take an encoder of a known family"
        )


def _states(model: PreTrainedModel, inputs: Any) -> list[Tensor]:
    """The last hidden states, and the logits of a classifier."""
    outputs = model(**inputs, output_hidden_states=True, return_dict=True)
    return [outputs.hidden_states[-1], *([outputs.logits] if "logits" in outputs else [])]


def _difference(alone: list[Tensor], together: list[Tensor], row: int) -> float:
    """The largest difference between a text's states alone and in its row of a batch, relative to the largest."""
    pairs = [(one[0], other[row][: len(one[0])]) for one, other in zip(alone, together, strict=True)]
    return max(float((one - other).abs().max() / one.abs().max()) for one, other in pairs)


def _read_longest(model: PreTrainedModel) -> None:
    """Look up the positions of the longest text; the whole model would take seconds."""
    ids = torch.full((1, longest_text(model)), model.config.vocab_size - 1)
    embed = getattr(model.base_model, "embeddings", None)
    read = model.base_model if embed is None or isinstance(embed, nn.Embedding) else embed
    read(input_ids=ids)
