"""The rules of a tokenizer, as tokenizer.json writes them: which tokens spell the others, and how to renumber.

WordPiece  {"vocab": {token: id}}, "##" before a piece that continues a word
Unigram    {"vocab": [[token, score]]}, an id is a place in it
BPE        {"vocab": {token: id}, "merges": [[left, right]]}, the first merges first
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from emdistill.errors import TokenizerError

Rules = dict[str, Any]  # tokenizer.json, or a part of it
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}


def read_rules(tokenizer: PreTrainedTokenizerBase) -> Rules:
    """All rules of a tokenizer; raises TokenizerError for one without tokenizer.json."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise TokenizerError(f"a {type(tokenizer).__name__} has no tokenizer.json, so its vocabulary cannot be pruned")
    rules: Rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return rules


def renumber(rules: Rules, new_ids: Mapping[int, int]) -> Rules:
    """The rules over the tokens that `new_ids` {old: new} holds, special tokens included."""
    padding = rules["padding"]
    return rules | {
        "model": _renumber_model(rules["model"], new_ids),
        "added_tokens": [token | {"id": new_ids[token["id"]]} for token in rules["added_tokens"]],
        "post_processor": _renumber_processor(rules["post_processor"], new_ids),
        "padding": padding and padding | {"pad_id": new_ids[padding["pad_id"]]},
    }


def spelling(model: Rules, tokens_kept: set[str]) -> set[str]:
    """The tokens that must stay beside `tokens_kept` to spell any text; raises TokenizerError where none can."""
    if model["type"] not in SPELLING:
        raise TokenizerError(
            f"a {model['type']} vocabulary cannot be pruned: no smaller tokens spell a dropped word; "
            f"those that can: {', '.join(SPELLING)}"
        )
    return SPELLING[model["type"]](model, tokens_kept)


def pieces_before_dead_ends(tokenizer: PreTrainedTokenizerBase, model: Rules, text: str) -> list[int]:
    """WordPiece's longest pieces from the left of every word, up to its end or a place where none fits."""
    backend: Any = tokenizer.backend_tokenizer
    normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
    words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)] if backend.pre_tokenizer else [normal]
    vocabulary, pieces = model["vocab"], []
    for word in words:
        start, end = 0, len(word)
        while start < end <= model["max_input_chars_per_word"]:
            piece = (model["continuing_subword_prefix"] if start else "") + word[start:end]
            if piece in vocabulary:
                pieces.append(vocabulary[piece])
                start, end = end, len(word)
            else:
                end -= 1
    return pieces


def _spelling_of_word_pieces(model: Rules, tokens_kept: set[str]) -> set[str]:
    """Single characters, at the beginning of a word and further on."""
    prefix = model["continuing_subword_prefix"]
    return {token for token in model["vocab"] if len(token.removeprefix(prefix)) == 1} | {model["unk_token"]}


def _spelling_of_unigrams(model: Rules, tokens_kept: set[str]) -> set[str]:
    """Single characters and bytes, the unknown token, and the token of the lowest score."""
    scores: dict[str, float] = dict(model["vocab"])
    unknown = {model["vocab"][model["unk_id"]][0]} if model["unk_id"] is not None else set()
    lowest = min(scores, key=scores.__getitem__)
    return {token for token in scores if len(token) == 1 or token in BYTES} | unknown | {lowest}


def _spelling_of_bpe(model: Rules, tokens_kept: set[str]) -> set[str]:
    """Tokens that no merge makes; both parts of every merge that makes a kept token, and so on for these parts."""
    makers = defaultdict[str, list[tuple[str, str]]](list)
    for pair in _merges(model):
        makers[_merged(model, *pair)].append(pair)
    parts = set(model["vocab"]) - makers.keys()
    rest = list(tokens_kept)
    while rest:
        for pair in makers[rest.pop()]:
            rest += set(pair) - parts
            parts |= set(pair)
    return parts


SPELLING: dict[str, Callable[[Rules, set[str]], set[str]]] = {
    "WordPiece": _spelling_of_word_pieces,
    "Unigram": _spelling_of_unigrams,
    "BPE": _spelling_of_bpe,
}


def _merges(model: Rules) -> list[tuple[str, str]]:
    """BPE's merges; tokenizer.json has them as ["a", "b"], older files as "a b"."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def _merged(model: Rules, left: str, right: str) -> str:
    return left + right[len(model.get("continuing_subword_prefix") or "") :]


def _renumber_model(model: Rules, new_ids: Mapping[int, int]) -> Rules:
    """The kept tokens, and BPE's merges among them."""
    if model["type"] == "Unigram":
        vocabulary = [entry for id, entry in enumerate(model["vocab"]) if id in new_ids]
        return model | {"vocab": vocabulary, "unk_id": new_ids.get(model["unk_id"])}
    tokens_kept = {token: new_ids[id] for token, id in model["vocab"].items() if id in new_ids}
    if model["type"] != "BPE":
        return model | {"vocab": tokens_kept}
    merges = [[*pair] for pair in _merges(model) if {*pair, _merged(model, *pair)} <= tokens_kept.keys()]
    return model | {"vocab": tokens_kept, "merges": merges}


def _renumber_processor(processor: Rules | None, new_ids: Mapping[int, int]) -> Rules | None:
    """The rule that adds the special tokens to a text."""
    if processor is None:
        return None
    if processor["type"] == "Sequence":
        return processor | {"processors": [_renumber_processor(part, new_ids) for part in processor["processors"]]}
    if processor["type"] == "TemplateProcessing":
        special = {
            name: token | {"ids": [new_ids[id] for id in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        return processor | {"special_tokens": special}
    ends = {name: [processor[name][0], new_ids[processor[name][1]]] for name in ("cls", "sep") if name in processor}
    return processor | ends
