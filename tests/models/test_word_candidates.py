"""Candidates for a word: from a masked-LM in its context, and from the embedding table."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import names
from torch.nn import functional
from transformers import (
    BertForMaskedLM,
    BertModel,
    DistilBertForMaskedLM,
    ElectraForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from emdistill.errors import ModelError, TokenizerError
from emdistill.models import fingerprint
from emdistill.models.word_candidates import (
    MaskedWordCandidates,
    NeighbourCandidates,
    check_special_tokens,
    check_word_pieces,
    load_masked_lm,
)

KINDS = {"bert": BertForMaskedLM, "distilbert": DistilBertForMaskedLM, "electra": ElectraForMaskedLM}
WORDS = {"the", "good", "bad", "movie", "book", "was", "is", "not", "very", "it", "and", "of", "to", "in"}
TEXT = "The good movie, was unhappily bad."


def masked_lm(tiny_encoder: Callable[..., PreTrainedModel], family: str = "bert", **options: Any) -> PreTrainedModel:
    config = tiny_encoder(family, **options).config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return KINDS[family](config).eval()


def take_apart(text: str) -> tuple[list[str], list[int]]:
    pieces = re.split(r"(\w+)", text)
    return pieces, list(range(1, len(pieces), 2))


def expected(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, masked: str, original: str, word: str, count: int
) -> list[str]:
    """The likeliest whole words, from the full logits of the pair as transformers encodes it."""
    inputs = tokenizer(masked, original, return_tensors="pt")
    if not isinstance(model, DistilBertForMaskedLM):
        second = inputs["input_ids"] == tokenizer.sep_token_id
        inputs["token_type_ids"] = second.cumsum(1) - second.int()
    (place,) = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    with torch.no_grad():
        logits = model(**inputs).logits[0, place]
    ranked = [tokenizer.convert_ids_to_tokens(index) for index in logits.argsort(descending=True).tolist()]
    return [token for token in ranked if token in WORDS - {word}][:count]


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_candidates_in_context_are_the_models_own_predictions(
    tiny_encoder, tiny_tokenizer, family: str, batch_size: int
) -> None:
    model = masked_lm(tiny_encoder, family)
    pieces, places = take_apart(TEXT)
    found = MaskedWordCandidates(model, tiny_tokenizer, 5, batch_size=batch_size)(pieces, places)
    assert [pieces[place] for place in found] == ["The", "good", "movie", "was", "bad"]  # not 'unhappily', of 9 pieces
    for place, words in found.items():
        masked = "".join("[MASK]" if other == place else piece for other, piece in enumerate(pieces))
        assert list(words) == expected(model, tiny_tokenizer, masked, TEXT, pieces[place].lower(), 5)
    rankings = set(found.values())
    assert len(rankings) > 2  # the context counts


def test_all_words_where_more_are_asked_for_than_there_are(tiny_encoder, tiny_tokenizer) -> None:
    candidates = MaskedWordCandidates(masked_lm(tiny_encoder), tiny_tokenizer, 1000)
    pieces, places = take_apart("it was GOOD")
    found = candidates(pieces, places)
    assert {place: set(words) for place, words in found.items()} == {
        place: WORDS - {pieces[place].lower()} for place in places
    }
    assert candidates(pieces, []) == {}
    assert candidates([""], []) == {}


@pytest.mark.parametrize("positions", [7, 8, 19, 20])
def test_of_a_long_text_the_model_reads_the_words_around(tiny_encoder, tiny_tokenizer, positions: int) -> None:
    model = masked_lm(tiny_encoder, max_position_embeddings=positions)
    pieces, places = take_apart("the good movie was bad and it is the very good book of the bad")
    words = [pieces[place] for place in places]
    found = MaskedWordCandidates(model, tiny_tokenizer, 4)(pieces, places)
    assert len(found) == len(words)
    room = (positions - 3) // 2
    for index, place in enumerate(places):
        start = min(max(index - room // 2, 0), len(words) - room)
        around = words[start : start + room]
        masked = ["[MASK]" if start + other == index else word for other, word in enumerate(around)]
        texts = " ".join(masked), " ".join(around)
        assert list(found[place]) == expected(model, tiny_tokenizer, *texts, words[index], 4)


def test_neighbours_are_the_nearest_by_cosine(tiny_encoder, tiny_tokenizer) -> None:
    table = tiny_encoder().get_input_embeddings().weight
    vocabulary = tiny_tokenizer.get_vocab()
    whole = sorted(word for word in WORDS if len(word) > 2)
    found = NeighbourCandidates(table, tiny_tokenizer, 4)(["good", "Movie", "unhappily", "good"])
    assert list(found) == ["good", "Movie", "unhappily"]
    for word, tokens in {
        "good": ["good"],
        "Movie": ["movie"],
        "unhappily": ["u", *(f"##{c}" for c in "nhappily")],
    }.items():
        mean = torch.stack([table[vocabulary[token]] for token in tokens]).mean(0)
        cosines = {
            other: functional.cosine_similarity(mean, table[vocabulary[other]], dim=0).item()
            for other in whole
            if other not in tokens
        }
        assert list(found[word]) == sorted(cosines, key=lambda other: -cosines[other])[:4]


def test_neighbours_are_looked_up_once(tiny_encoder, tiny_tokenizer, monkeypatch) -> None:
    candidates = NeighbourCandidates(tiny_encoder().get_input_embeddings().weight, tiny_tokenizer)
    looked_up: list[str] = []
    look_up = NeighbourCandidates._look_up
    monkeypatch.setattr(
        NeighbourCandidates, "_look_up", lambda self, words: (looked_up.extend(words), look_up(self, words))
    )
    first = candidates(["good", "bad", "good"])
    assert candidates(["bad", "movie"])["bad"] == first["bad"]
    assert looked_up == ["good", "bad", "movie"]
    monkeypatch.setattr("emdistill.models.word_candidates.WORDS_KEPT", 2)  # a stream of words must not fill the memory
    assert candidates(["bad"])["bad"] == first["bad"]
    assert (looked_up[3:], len(candidates._known)) == (["bad"], 1)
    assert all(
        len(words) == 8 and word not in words for word, words in first.items()
    )  # 9 words of three letters or more
    assert candidates([]) == {}
    without = NeighbourCandidates(candidates.table, tiny_tokenizer, without={"the", "was"})(["good"])["good"]
    assert without == tuple(word for word in first["good"] if word not in ("the", "was"))


def test_a_word_the_vocabulary_cannot_spell_has_no_candidates(tiny_encoder, tokenizer_factory) -> None:
    full = tokenizer_factory().get_vocab()
    tokenizer = tokenizer_factory(tuple(token for token in sorted(full, key=full.get) if token.strip("#") != "z"))
    assert NeighbourCandidates(tiny_encoder().get_input_embeddings().weight, tokenizer)(["zz", "aa"])["zz"] == ()
    masked = MaskedWordCandidates(masked_lm(tiny_encoder), tokenizer)
    assert list(masked(["", "zz", " ", "good", ""], [1, 3])) == [3]


def test_a_masked_lm_is_loaded_with_the_head_it_was_saved_with(tiny_encoder, tmp_path: Path) -> None:
    for family in KINDS:
        model = masked_lm(tiny_encoder, family)
        model.save_pretrained(tmp_path / family)
        loaded = load_masked_lm(tmp_path / family)
        assert fingerprint(loaded) == fingerprint(model)
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_an_encoder_without_a_trained_head_is_refused(tiny_encoder, tmp_path: Path) -> None:
    classifier = tiny_encoder()
    classifier.save_pretrained(tmp_path / "classifier")
    BertModel(classifier.config).save_pretrained(tmp_path / "bare")
    for name in ("classifier", "bare"):
        with names(ModelError, tmp_path / name, "--masked-lm"):
            load_masked_lm(tmp_path / name)
    with names(ModelError, tmp_path / "absent"):
        load_masked_lm(tmp_path / "absent")


def test_a_masked_lm_names_its_special_tokens(tiny_tokenizer) -> None:
    check_special_tokens(tiny_tokenizer, "words")
    tiny_tokenizer.mask_token = tiny_tokenizer.sep_token = None
    with names(TokenizerError, "words", "mask_token", "sep_token"):
        check_special_tokens(tiny_tokenizer, "words")


def test_only_word_pieces_are_read(tiny_tokenizer, tokenizer_factory) -> None:
    check_word_pieces(tiny_tokenizer, "teacher")
    bytes_only = tokenizer_factory(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "Ġgood"))
    with names(TokenizerError, "teacher", "'##'", "bert"):
        check_word_pieces(bytes_only, "teacher")
