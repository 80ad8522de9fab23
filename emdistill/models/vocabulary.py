"""A smaller vocabulary: the tokens that a corpus uses, and those that spell any other text.

    table' = table[ids_kept]    ids_kept: old ids, increasing; a token's new id is its place among them

The corpus is split as before, because the choices of each algorithm stay and there are no new ones:
WordPiece   takes the longest piece at every step; it stays, and a longer one would have been taken before. Of a word
            that becomes [UNK] the pieces before the dead end stay too, so that it ends there again.
Unigram     takes the path of the best score; it stays, and no other scores more than before: single characters stay,
            so there are no new unknown ones, and so does the lowest score, which makes that of an unknown character.
BPE         takes the merge of lowest rank at every step; every merge that makes a kept token stays, with both parts.
Other texts are spelled of smaller pieces: every single character stays, in WordPiece with its continuation "##c".
"""

import copy
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.errors import ConfigError, HeadError, ModelError, TokenizerError
from emdistill.models.encoder import load_classifier, load_encoder, load_tokenizer
from emdistill.models.families import family_of
from emdistill.models.inputs import first_position, longest_text
from emdistill.models.stored_config import Source
from emdistill.models.tokenizer_rules import pieces_before_dead_ends, read_rules, renumber, spelling

TEXTS_AT_ONCE = 1000
CHECKED = 64  # tokens


@dataclass(frozen=True)
class Encoder:
    """A model, with or without a head, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_with_tokenizer(source: Source, head: str | None = None) -> Encoder:
    """A classifier as stored; else an encoder without a task, with its masked-LM head where a trained one is stored.

    head   the one that a classifier of several heads is taken with
    """
    try:
        model = load_classifier(source, task=head)
    except HeadError:
        model = load_encoder(source)
    return Encoder(model, load_tokenizer(source))


def prune(encoder: Encoder, used: Counter[int], *, min_count: int = 1) -> tuple[Encoder, tuple[int, ...]]:
    """The same encoder over a smaller vocabulary, and the old ids of its tokens.

    used        the uses of each token (used_tokens)
    min_count   tokens of fewer uses are dropped
    Raises ConfigError for a min_count below 1; TokenizerError as kept_tokens and prune_tokenizer do; ModelError for a
    model that reads ids otherwise than by its embedding table.
    """
    if min_count < 1:
        raise ConfigError(f"--min-count must be at least 1, not {min_count}")
    frequent = [id for id, count in used.items() if count >= min_count]
    ids_kept = kept_tokens(encoder.tokenizer, frequent, fixed=first_position(encoder.model))
    pruned = Encoder(prune_model(encoder.model, ids_kept), prune_tokenizer(encoder.tokenizer, ids_kept))
    _check_same_states(encoder.model, pruned.model, ids_kept)
    return pruned, ids_kept


def used_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Counter[int]:
    """The uses of each token in the texts, {id: count}, without the special tokens around a text.

    Of a word that WordPiece cannot spell, the pieces before the dead end count too.
    Raises TokenizerError for a tokenizer whose rules cannot be read.
    """
    model = read_rules(tokenizer)["model"]
    counts = Counter[int]()
    for batch in _batches(texts):
        encoded = tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
        for text, ids in zip(batch, encoded, strict=True):
            counts.update(ids)
            if model["type"] == "WordPiece" and tokenizer.unk_token_id in ids:
                counts.update(pieces_before_dead_ends(tokenizer, model, text))
    return counts


def kept_tokens(tokenizer: PreTrainedTokenizerBase, used: Collection[int], *, fixed: int = 0) -> tuple[int, ...]:
    """The ids to keep, increasing: special and added tokens, the used ones, and those that spell everything else.

    fixed   so many first ids keep their places, where positions are counted from padding's id (first_position)
    Raises TokenizerError for a tokenizer other than WordPiece, Unigram and BPE.
    """
    rules = read_rules(tokenizer)
    vocabulary = tokenizer.get_vocab()
    names = {id: token for token, id in vocabulary.items()}
    around = tokenizer("a", "b")["input_ids"]  # special tokens that the rules add, declared or not
    special = {*tokenizer.all_special_ids, *(token["id"] for token in rules["added_tokens"]), *around}
    tokens = {names[id] for id in {*used, *special, *range(fixed)} if id in names}
    tokens |= spelling(rules["model"], tokens)
    return tuple(sorted({vocabulary[token] for token in tokens if token in vocabulary} | set(range(fixed))))


def prune_tokenizer(tokenizer: PreTrainedTokenizerBase, ids_kept: Sequence[int]) -> PreTrainedTokenizerBase:
    """The same tokenizer over the kept tokens, renumbered by their places in `ids_kept`.

    Raises TokenizerError for a tokenizer whose rules cannot be read or whose ids cannot be renumbered so.
    """
    new_ids = {old: new for new, old in enumerate(ids_kept)}
    rules = renumber(read_rules(tokenizer), new_ids)
    with TemporaryDirectory() as folder:  # the tokenizer's other files stay as they are
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(rules, ensure_ascii=False), encoding="utf-8")
        pruned = load_tokenizer(folder)
    if pruned.get_vocab() != {token: new_ids[id] for token, id in tokenizer.get_vocab().items() if id in new_ids}:
        raise TokenizerError(
            f"the ids of this {type(tokenizer).__name__} cannot be renumbered without gaps (its added tokens lie among "
            "its other tokens), so its vocabulary cannot be pruned"
        )
    return pruned


def prune_model(model: PreTrainedModel, ids_kept: Sequence[int]) -> PreTrainedModel:
    """A copy of the model with these rows of its embedding table and of its masked-LM head's decoder.

    A decoder tied to the table stays tied; the config has the new ids.
    """
    pruned = copy.deepcopy(model)
    new_ids = {old: new for new, old in enumerate(ids_kept)}
    table: Any = pruned.get_input_embeddings()
    decoder: Any = pruned.get_output_embeddings()  # type: ignore[no-untyped-call]
    tensors = [*table.parameters(), *table.buffers()]
    tensors += [] if decoder is None else _decoder_parameters(pruned, decoder)
    for tensor in {id(tensor): tensor for tensor in tensors}.values():  # a tied one stands there twice
        tensor.data = tensor.data[list(ids_kept)].clone()
    for name in family_of(pruned).word_columns if decoder is not None else ():
        matrix: Any = pruned.get_submodule(name)
        matrix.weight.data = matrix.weight.data[:, list(ids_kept)].clone()
        matrix.in_features = len(ids_kept)
    table.num_embeddings = len(ids_kept)
    table.padding_idx = new_ids.get(table.padding_idx)
    if decoder is not None:
        decoder.out_features = len(ids_kept)
    for name, value in pruned.config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(pruned.config, name, new_ids.get(value))
    pruned.config.vocab_size = len(ids_kept)
    return pruned


def _decoder_parameters(model: PreTrainedModel, decoder: nn.Module) -> list[nn.Parameter]:
    """The decoder's, and the bias that BERT and RoBERTa have beside it: another one where nothing is tied."""
    place = next(name for name, module in model.named_modules() if module is decoder)
    names = {f"{place}.weight", f"{place}.bias", f"{place.rpartition('.')[0]}.bias"}
    return [parameter for name, parameter in model.named_parameters(remove_duplicate=False) if name in names]


def same_words(
    tokenizer: PreTrainedTokenizerBase, pruned: PreTrainedTokenizerBase, texts: Iterable[str]
) -> tuple[int, int]:
    """(words that both tokenizers split alike, all words) of the texts, by occurrences."""
    new_vocabulary = pruned.get_vocab()
    new_ids = {id: new_vocabulary.get(token, -1) for token, id in tokenizer.get_vocab().items()}
    same = total = 0
    for batch in _batches(texts):
        before, after = (each(batch, add_special_tokens=False, verbose=False) for each in (tokenizer, pruned))
        for place in range(len(batch)):
            old = _by_word([new_ids[id] for id in before["input_ids"][place]], before.word_ids(place))
            new = _by_word(after["input_ids"][place], after.word_ids(place))
            total += len(old)
            same += sum(new.get(word) == ids for word, ids in old.items())
    return same, total


def _by_word(ids: Sequence[int], words: Sequence[int | None]) -> dict[int | None, list[int]]:
    """The tokens of each word; added tokens belong to no word and are taken together."""
    tokens: dict[int | None, list[int]] = {}
    for id, word in zip(ids, words, strict=True):
        tokens.setdefault(word, []).append(id)
    return tokens


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while batch := list(islice(remaining, TEXTS_AT_ONCE)):
        yield batch


def _check_same_states(model: PreTrainedModel, pruned: PreTrainedModel, ids_kept: Sequence[int]) -> None:
    """Raise ModelError unless kept tokens give the same states, bit for bit, by old and by new ids."""
    places = torch.linspace(0, len(ids_kept) - 1, min(CHECKED, len(ids_kept), longest_text(model))).round().long()
    old = torch.tensor(ids_kept)[places]
    states = []
    for each, ids in ((model, old), (pruned, places)):
        training = each.training
        each.train(False)
        with torch.inference_mode():
            text = ids[None].to(each.device)
            states.append(each.base_model(input_ids=text, attention_mask=torch.ones_like(text))[0])
        each.train(training)
    if not torch.equal(*states):
        raise ModelError(
            f"a {model.config.model_type!r} model reads token ids otherwise than by its embedding table, so its "
            "vocabulary cannot be pruned"
        )
