"""A pruned vocabulary: the corpus keeps its tokens and logits to the bit, other text is still spelled."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import names
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from emdistill.errors import ConfigError, ModelError, TokenizerError
from emdistill.models.encoder import load_classifier, load_encoder, load_tokenizer, save_student
from emdistill.models.tokenizer_rules import read_rules
from emdistill.models.vocabulary import (
    Encoder,
    first_position,
    kept_tokens,
    load_with_tokenizer,
    prune,
    prune_tokenizer,
    same_words,
    used_tokens,
)

MRPC = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "glue" / "MRPC" / "train.tsv"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
NAMES = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
CORPUS = ["the movie was good", "the book: not very good!", "it is a [MASK] movie ☃ was☃good"]


def sentences() -> list[str]:
    if not MRPC.is_file():
        pytest.skip("no MRPC beside the repository")
    rows = [line.split("\t") for line in MRPC.read_text(encoding="utf-8").splitlines()[1:]]
    return [text for row in rows[:2000] for text in row[-2:]]


def random_words(count: int, seed: int) -> list[str]:
    """Texts of random words, of few letters, so that pieces of a vocabulary meet; and of characters in none."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("eeettaaoinshrdlu" + "☃ß", k=draw.randint(1, 9))) for _ in range(8 * count)]
    return [" ".join(words[8 * i : 8 * i + 8]) for i in range(count)]


def trained(kind: str, texts: list[str], size: int = 3000) -> PreTrainedTokenizerFast:
    """A tokenizer that was trained on these texts: WordPiece as BERT's, Unigram as XLM-R's, BPE as RoBERTa's."""
    options: dict[str, Any] = {"special_tokens": SPECIAL, "vocab_size": size, "show_progress": False}
    if kind == "WordPiece":
        backend = Tokenizer(models.WordPiece({}, unk_token="<unk>"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(**options)
    elif kind == "Unigram":
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        backend.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", n_sub_iterations=1, **options)
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    backend.train_from_iterator(texts, trainer)
    ids = backend.get_vocab()
    backend.post_processor = (
        processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
        if kind == "BPE"
        else processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B </s>",
            special_tokens=[(end, ids[end]) for end in ("<s>", "</s>")],
        )
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **NAMES)


@pytest.fixture(scope="module")
def of_mrpc() -> Callable[[str], PreTrainedTokenizerFast]:
    """Factory: a tokenizer of a kind that was trained on MRPC; leave it as it is."""
    known: dict[str, PreTrainedTokenizerFast] = {}

    def make(kind: str) -> PreTrainedTokenizerFast:
        if kind not in known:
            known[kind] = trained(kind, sentences())
        return known[kind]

    return make


def smaller(tokenizer: PreTrainedTokenizerBase, corpus: list[str], **options: Any) -> PreTrainedTokenizerBase:
    return prune_tokenizer(tokenizer, kept_tokens(tokenizer, used_tokens(tokenizer, corpus), **options))


def tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[str]]:
    return [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(texts, truncation=True)["input_ids"]]


# ------------------------------------------------------------------------------------------------- the tokens


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "BPE"])
def test_the_corpus_keeps_its_tokens(of_mrpc: Callable[[str], PreTrainedTokenizerFast], kind: str) -> None:
    tokenizer, texts = of_mrpc(kind), sentences()
    corpus = texts[:600]
    pruned = smaller(tokenizer, corpus)
    assert len(pruned) < 0.96 * len(tokenizer)
    assert sorted(pruned.get_vocab().values()) == list(range(len(pruned)))
    assert tokens(pruned, corpus) == tokens(tokenizer, corpus)
    assert pruned(corpus[0], corpus[1])["input_ids"][0] == pruned.bos_token_id
    assert same_words(tokenizer, pruned, corpus)[0] == same_words(tokenizer, pruned, corpus)[1]
    same, total = same_words(tokenizer, pruned, texts[600:])
    assert 0.8 * total < same < total
    assert tokens(pruned, texts) != tokens(tokenizer, texts)


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "BPE"])
@pytest.mark.parametrize("seed", range(4))
def test_random_words_keep_their_tokens(
    of_mrpc: Callable[[str], PreTrainedTokenizerFast], kind: str, seed: int
) -> None:
    tokenizer, corpus = of_mrpc(kind), random_words(250, seed)
    assert tokens(smaller(tokenizer, corpus), corpus) == tokens(tokenizer, corpus)


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "BPE"])
def test_other_text_is_spelled_and_only_what_was_unknown_is_unknown(
    of_mrpc: Callable[[str], PreTrainedTokenizerFast], kind: str
) -> None:
    tokenizer, texts = of_mrpc(kind), [*sentences()[3000:], *random_words(300, 9)]
    pruned = smaller(tokenizer, ["the movie"])
    assert len(pruned) < 600
    before, after = tokens(tokenizer, texts), tokens(pruned, texts)
    assert [each.count("<unk>") for each in before] == [each.count("<unk>") for each in after]
    assert sum(map(len, after)) > 1.5 * sum(map(len, before))  # in smaller pieces
    for text_before, text_after in zip(before[:500], after[:500], strict=True):
        if len(text_after) < 128:
            assert spelled(text_before) == spelled(text_after)


def spelled(pieces: list[str]) -> str:
    return "".join(piece.removeprefix("##") for piece in pieces)


def test_a_word_without_spelling_stays_without(tokenizer_factory: Callable[..., PreTrainedTokenizerFast]) -> None:
    """ "abc" begins with "ab" and ends there: "##c" is missing. "a" and "##bc" would spell it."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokenizer = tokenizer_factory((*special, "a", "b", "ab", "##b", "##bc"))
    corpus = ["abc", "bbc"]
    wanted = [["[CLS]", "[UNK]", "[SEP]"], ["[CLS]", "b", "##bc", "[SEP]"]]
    assert tokens(tokenizer, corpus) == tokens(smaller(tokenizer, corpus), corpus) == wanted
    without = kept_tokens(tokenizer, tokenizer.convert_tokens_to_ids(["b", "##bc"]))
    assert tokens(prune_tokenizer(tokenizer, without), ["abc"]) == [["[CLS]", "a", "##bc", "[SEP]"]]


def test_an_unknown_character_keeps_its_score() -> None:
    """It costs 10 more than the lowest score there is: without "zz" it would be cheaper than what is used here."""
    scores = [*((token, 0.0) for token in SPECIAL), ("☃b", -8.0), ("b", -8.0), ("c", -8.0), ("d", -8.0), ("bcd", -1.0)]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram([*scores, ("zz", -20.0)], unk_id=3)), model_max_length=128, **NAMES
    )
    corpus = ["☃bcd", "bcd"]
    assert tokens(tokenizer, corpus) == tokens(smaller(tokenizer, corpus), corpus) == [["☃b", "c", "d"], ["bcd"]]
    kept = kept_tokens(tokenizer, used_tokens(tokenizer, corpus))
    without = [id for id in kept if id != tokenizer.convert_tokens_to_ids("zz")]
    assert tokens(prune_tokenizer(tokenizer, without), ["☃bcd"]) == [["<unk>", "bcd"]]


def test_rarer_tokens_go_where_a_count_is_asked_for(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = ["the movie was good", "the book was good"]
    used = used_tokens(tiny_tokenizer, corpus)
    frequent = [id for id, count in used.items() if count >= 2]
    pruned = prune_tokenizer(tiny_tokenizer, kept_tokens(tiny_tokenizer, frequent))
    assert {"the", "was", "good"} <= pruned.get_vocab().keys()
    assert not {"movie", "book"} & pruned.get_vocab().keys()
    assert same_words(tiny_tokenizer, pruned, corpus) == (6, 8)


def test_special_and_added_tokens_stay_what_they_are(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tiny_tokenizer.add_tokens(["<url>"])
    tiny_tokenizer.add_special_tokens({"additional_special_tokens": ["[E1]"]})
    texts = ["see <url> [E1] good", "[MASK] a"]
    pruned = smaller(tiny_tokenizer, ["the [MASK] movie"])
    assert tokens(pruned, texts)[0][1:6] == ["s", "##e", "##e", "<url>", "[E1]"]
    assert pruned.convert_tokens_to_ids("[E1]") == len(pruned) - 1
    assert pruned.special_tokens_map == tiny_tokenizer.special_tokens_map
    assert sorted(pruned.all_special_ids) == sorted(
        map(pruned.convert_tokens_to_ids, tiny_tokenizer.all_special_tokens)
    )
    assert pruned.model_max_length == tiny_tokenizer.model_max_length
    assert type(pruned) is type(tiny_tokenizer)


def test_every_written_file_holds_the_same_vocabulary(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    pruned = smaller(tiny_tokenizer, CORPUS)
    pruned.save_pretrained(tmp_path)
    rules = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert rules["model"]["vocab"] == pruned.get_vocab() == load_tokenizer(tmp_path).get_vocab()
    if (tmp_path / "vocab.txt").is_file():
        written = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
        assert written == sorted(pruned.get_vocab(), key=pruned.get_vocab().__getitem__)
    assert tokens(load_tokenizer(tmp_path), CORPUS) == tokens(tiny_tokenizer, CORPUS)


def test_what_cannot_be_pruned_is_refused() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with names(TokenizerError, "WordLevel", "WordPiece, Unigram, BPE"):
        kept_tokens(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"), [0])
    with names(TokenizerError, "tokenizer.json"):
        read_rules(object())  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- the model


def logits(encoder: Encoder, texts: list[str]) -> torch.Tensor:
    inputs = encoder.tokenizer(texts, texts[::-1], padding=True, return_tensors="pt")
    with torch.inference_mode():
        return encoder.model(**inputs).logits


def make(
    family: str, tiny_encoder: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerBase, **options: Any
) -> Encoder:
    options = {"vocab_size": len(tokenizer) + 3, "pad_token_id": tokenizer.pad_token_id} | options  # 3 rows are padding
    if family != "albert":
        return Encoder(tiny_encoder(family, **options), tokenizer)
    sizes = {"embedding_size": 8, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    return Encoder(AlbertForSequenceClassification(AlbertConfig(**sizes, **options)).eval(), tokenizer)


FAMILIES = ["bert", "roberta", "distilbert", "electra", "albert"]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_on_the_corpus_are_the_same_bit_for_bit(
    tmp_path: Path,
    tiny_encoder: Callable[..., PreTrainedModel],
    tiny_tokenizer: PreTrainedTokenizerFast,
    family: str,
) -> None:
    before = make(family, tiny_encoder, tiny_tokenizer)
    untouched = copy.deepcopy(before.model.state_dict())
    after, kept = prune(before, used_tokens(tiny_tokenizer, CORPUS))
    assert len(kept) == after.model.config.vocab_size == len(after.tokenizer) < len(tiny_tokenizer)
    assert after.model.config.pad_token_id == after.tokenizer.pad_token_id
    assert torch.equal(logits(before, CORPUS), logits(after, CORPUS))
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in before.model.state_dict().items())
    saved = sum(tensor.numel() for tensor in untouched.values())
    rows = untouched[next(name for name in untouched if "word_embeddings" in name)]
    assert sum(tensor.numel() for tensor in after.model.state_dict().values()) == saved - (
        (rows.shape[0] - len(kept)) * rows.shape[1]
    )
    save_student(after.model, after.tokenizer, tmp_path)
    again = load_with_tokenizer(tmp_path)
    assert torch.equal(logits(again, CORPUS), logits(before, CORPUS))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_padding_token_among_the_others(
    tiny_encoder: Callable[..., PreTrainedModel],
    tokenizer_factory: Callable[..., PreTrainedTokenizerFast],
    tiny_tokenizer: PreTrainedTokenizerFast,
    family: str,
) -> None:
    """RoBERTa counts positions from its id on: it must keep it. BERT's may change."""
    vocabulary = [token for token, _ in sorted(tiny_tokenizer.get_vocab().items(), key=lambda item: item[1])]
    tokenizer = tokenizer_factory((*vocabulary[1:3], "unused", *vocabulary[3:5], vocabulary[0], *vocabulary[5:]))
    before = make(family, tiny_encoder, tokenizer)
    after, _ = prune(before, used_tokens(tokenizer, CORPUS))
    assert tokenizer.pad_token_id == 5
    assert first_position(before.model) == (6 if family == "roberta" else 0)
    assert after.tokenizer.pad_token_id == after.model.config.pad_token_id == (5 if family == "roberta" else 4)
    assert torch.equal(logits(before, CORPUS), logits(after, CORPUS))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "mobilebert"])
def test_a_masked_lm_head_is_pruned_with_its_table(
    tmp_path: Path,
    tiny_encoder: Callable[..., PreTrainedModel],
    tiny_tokenizer: PreTrainedTokenizerFast,
    family: str,
    tied: bool,
) -> None:
    config = tiny_encoder(family, tie_word_embeddings=tied).config
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    save_student(model, tiny_tokenizer, tmp_path / "whole")
    before = load_with_tokenizer(tmp_path / "whole")
    after, kept = prune(before, used_tokens(tiny_tokenizer, CORPUS))
    torch.testing.assert_close(logits(after, CORPUS), logits(before, CORPUS)[..., list(kept)])
    assert (after.model.get_output_embeddings().weight is after.model.get_input_embeddings().weight) == tied
    save_student(after.model, after.tokenizer, tmp_path / "pruned")
    again = Encoder(load_encoder(tmp_path / "pruned"), load_tokenizer(tmp_path / "pruned"))
    assert torch.equal(logits(again, CORPUS), logits(after, CORPUS))


def test_a_classifier_is_loaded_with_its_head_and_another_encoder_without(
    tmp_path: Path, tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_encoder("bert")
    save_student(model, tiny_tokenizer, tmp_path / "classifier")
    save_student(model.base_model, tiny_tokenizer, tmp_path / "bare")
    assert type(load_with_tokenizer(tmp_path / "classifier").model) is type(load_classifier(tmp_path / "classifier"))
    assert type(load_with_tokenizer(tmp_path / "bare").model) is type(model.base_model)
    nameless = json.loads((tmp_path / "classifier" / "config.json").read_text()) | {"id2label": {"0": "x", "1": "x"}}
    (tmp_path / "classifier" / "config.json").write_text(json.dumps(nameless))
    with names(ModelError, tmp_path / "classifier", "id2label"):  # its head is not left out
        load_with_tokenizer(tmp_path / "classifier")
    with names(ModelError, tmp_path / "nothing"):
        load_with_tokenizer(tmp_path / "nothing")


def test_special_tokens_that_are_not_declared_are_kept(
    tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    rules = tiny_tokenizer.backend_tokenizer
    undeclared = PreTrainedTokenizerFast(tokenizer_object=rules, pad_token="[PAD]", unk_token="[UNK]")
    before = Encoder(tiny_encoder("bert"), undeclared)
    after, _ = prune(before, used_tokens(undeclared, CORPUS[:1]))
    assert torch.equal(logits(before, CORPUS[:1]), logits(after, CORPUS[:1]))


def test_a_count_below_one_is_refused(
    tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    with names(ConfigError, "--min-count", 1, 0):
        prune(Encoder(tiny_encoder("bert"), tiny_tokenizer), used_tokens(tiny_tokenizer, CORPUS), min_count=0)


def test_a_model_that_reads_ids_otherwise_is_refused(
    tiny_encoder: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_encoder("bert")

    def add_ids(module: object, arguments: object, options: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
        return output + 0.01 * options["input_ids"][..., None]

    model.base_model.embeddings.register_forward_hook(add_ids, with_kwargs=True)
    with names(ModelError, "'bert'"):
        prune(Encoder(model, tiny_tokenizer), used_tokens(tiny_tokenizer, CORPUS))
