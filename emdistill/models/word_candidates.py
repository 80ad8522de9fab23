"""The words that may replace a word: a masked-LM's predictions in its context, or its neighbours among the embeddings.

Both read word-pieces as BERT writes them ("##" continues a word) and give whole words of letters only.
Source: TinyBERT (Jiao et al., Findings EMNLP 2020), data augmentation.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.errors import ModelError, TokenizerError
from emdistill.models.arithmetic import fast_float32
from emdistill.models.encoder import load_encoder
from emdistill.models.inputs import longest_text, token_types
from emdistill.models.masked_lm import has_masked_lm_head, word_logits
from emdistill.models.stored_config import Source

CONTINUATION = "##"
WHOLE_WORD = re.compile(r"[A-Za-z]{2,}")
WORDS_AT_ONCE = 256
WORDS_KEPT = 2**18


def load_masked_lm(source: Source) -> PreTrainedModel:
    """An encoder with its trained masked-LM head, frozen, in float32 and eval mode.

    Raises ModelError where none is stored, as in sentence encoders and fine-tuned classifiers (a fresh head predicts
    nothing), and where the encoder cannot be loaded.
    """
    model = load_encoder(source)
    if not has_masked_lm_head(model):
        raise ModelError(
            f"{source} holds no trained masked-LM head, so it predicts no words; name an encoder that has one, such as "
            "bert-base-uncased, or leave out --masked-lm: words are then replaced by neighbours in the teacher's table"
        )
    return model.requires_grad_(False)


def check_word_pieces(tokenizer: PreTrainedTokenizerBase, source: Source) -> None:
    """Raise TokenizerError unless the tokenizer of `source` writes word-pieces as BERT does, with "##"."""
    if not any(token.startswith(CONTINUATION) for token in tokenizer.get_vocab()):
        raise TokenizerError(
            f"the tokenizer of {source} has no word-pieces that begin with {CONTINUATION!r}, so its whole words are "
            "not known (byte-level BPE, as RoBERTa's, is not supported here); take an encoder with BERT's kind of "
            "vocabulary (bert, distilbert, electra, mpnet)"
        )


def check_special_tokens(tokenizer: PreTrainedTokenizerBase, source: Source) -> None:
    """Raise TokenizerError unless the tokenizer of `source`, a masked-LM, names [MASK], [CLS] and [SEP]."""
    special = {name: getattr(tokenizer, name) for name in ("mask_token", "cls_token", "sep_token")}
    if absent := [name for name, token in special.items() if token is None]:
        raise TokenizerError(
            f"the tokenizer of {source} names no {' and no '.join(absent)}; name them in its tokenizer_config.json"
        )


class MaskedWordCandidates:
    """The `count` likeliest words in a word's place by a masked-LM, for words of one word-piece.

    The model reads "text with [MASK] [SEP] text as it is", as published; of a longer text, the tokens around the word.
    Predictions that continue a word, are no letters, or are the word itself are left out.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int = 15, *, batch_size: int = 64
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.count = count
        self.batch_size = batch_size
        config: Any = model.config
        self.words = _whole_words(tokenizer)
        self.admitted = torch.zeros(config.vocab_size, dtype=torch.bool, device=model.device)
        self.admitted[list(self.words)] = True
        # [CLS] a [SEP] b [SEP]
        self.room = (min(longest_text(model), tokenizer.model_max_length) - 3) // 2
        self.reads_segments = token_types(config) > 1

    def __call__(self, pieces: Sequence[str], places: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """The candidates of those words that are one word-piece, by place.

        pieces  of a text; joined they are the text
        places  of the words to replace
        """
        ids = self.tokenizer(list(pieces), add_special_tokens=False)["input_ids"]
        starts = list(accumulate(map(len, ids), initial=0))
        tokens = list(chain.from_iterable(ids))
        single = [place for place in places if len(ids[place]) == 1 and ids[place][0] != self.tokenizer.unk_token_id]
        candidates = {}
        for start in range(0, len(single), self.batch_size):
            batch = single[start : start + self.batch_size]
            ranked = self._predict(tokens, [starts[place] for place in batch])
            for place, predicted in zip(batch, ranked, strict=True):
                words = (self.words[token] for token in predicted)
                others = [word for word in words if word.lower() != pieces[place].lower()]
                candidates[place] = tuple(others[: self.count])
        return candidates

    def _predict(self, tokens: list[int], masked: list[int]) -> list[list[int]]:
        """The likeliest whole words at each of the `masked` tokens; all rows have one length, so none is padded."""
        length = min(len(tokens), self.room)
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        rows, places = [], []
        for place in masked:
            start = min(max(place - length // 2, 0), len(tokens) - length)
            original = tokens[start : start + length]
            hidden = [*original]
            hidden[place - start] = self.tokenizer.mask_token_id
            rows.append([cls, *hidden, sep, *original, sep])
            places.append(1 + place - start)
        inputs = {"input_ids": torch.tensor(rows, device=self.model.device)}
        if self.reads_segments:
            segments = [0] * (length + 2) + [1] * (length + 1)
            inputs["token_type_ids"] = torch.tensor([segments] * len(rows), device=self.model.device)
        with torch.inference_mode(), fast_float32():
            states = self.model.base_model(**inputs).last_hidden_state
            asked = functional.one_hot(torch.tensor(places, device=states.device), states.shape[1]).bool()
            logits = word_logits(self.model, states, asked)
            # Three more: the word itself may be among them, in three spellings where case counts.
            count = min(self.count + 3, len(self.words))
            best: list[list[int]] = logits.masked_fill(~self.admitted, -torch.inf).topk(count).indices.tolist()
        return best


class NeighbourCandidates:
    """The `count` whole words of the vocabulary whose embeddings are nearest to a word's, by cosine.

    table    [V, d], the word embeddings of an encoder, instead of the published code's GloVe vectors
    without  words that are no neighbours
    A word of several word-pieces has the mean of their embeddings, a poorer vector than GloVe's; its pieces and the
    word itself are no neighbours. A word is looked up once, or again after 2¹⁸ others.
    """

    def __init__(
        self, table: Tensor, tokenizer: PreTrainedTokenizerBase, count: int = 15, *, without: Collection[str] = ()
    ) -> None:
        self.table = table.detach().float().cpu()
        self.tokenizer = tokenizer
        self.count = count
        whole = _whole_words(tokenizer)
        # Tokens of two letters are mostly parts of words or abbreviations, which only a context tells from words.
        tokens = sorted(t for t, word in whole.items() if word.islower() and len(word) > 2 and word not in without)
        self.words = [whole[token] for token in tokens]
        self.columns = {token: place for place, token in enumerate(tokens)}
        self.directions = functional.normalize(self.table[tokens], dim=-1)
        self._known: dict[str, tuple[str, ...]] = {}

    def __call__(self, words: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The neighbours of each word, the nearest first; none of a word that the vocabulary cannot spell."""
        different = list(dict.fromkeys(words))
        if len(self._known) > WORDS_KEPT:  # a stream of text has ever more different words
            self._known.clear()
        new = [word for word in different if word not in self._known]
        for start in range(0, len(new), WORDS_AT_ONCE):
            self._look_up(new[start : start + WORDS_AT_ONCE])
        return {word: self._known[word] for word in different}

    def _look_up(self, words: list[str]) -> None:
        ids = self.tokenizer(words, add_special_tokens=False)["input_ids"]
        means = torch.stack([self.table[pieces].mean(0) for pieces in ids])
        with fast_float32():
            cosines = functional.normalize(means, dim=-1) @ self.directions.T
        for row, pieces in zip(cosines, ids, strict=True):
            row[[self.columns[token] for token in pieces if token in self.columns]] = -torch.inf
        nearest = cosines.topk(min(self.count + 1, len(self.words)))
        for word, pieces, values, places in zip(words, ids, nearest.values, nearest.indices.tolist(), strict=True):
            spelt = self.tokenizer.unk_token_id not in pieces
            others = [self.words[place] for place, value in zip(places, values, strict=True) if value > -torch.inf]
            self._known[word] = tuple(other for other in others if other != word.lower())[: self.count * spelt]


def _whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Token id -> word, of all tokens that are whole words of two letters or more."""
    special = set(tokenizer.all_special_ids)
    return {
        id: token for token, id in tokenizer.get_vocab().items() if WHOLE_WORD.fullmatch(token) and id not in special
    }
