"""What encoders are given: tokenizers that do not fit, the longest text, and families that answer by their batch."""

import json

import pytest
import torch
from messages import names
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from emdistill.errors import ModelError, TokenizerError
from emdistill.models import load_classifier, load_tokenizer, save_student
from emdistill.models.encoder import load_encoder
from emdistill.models.inputs import first_position, longest_text

TEXTS = ["a good movie", "it was not very good, the book was bad", "the", "is it a bad book"]


@pytest.fixture
def saved(tiny_encoder, tmp_path):
    """Factory: saved(tokenizer, "bert", ...) gives the folder of a tiny encoder with that tokenizer."""

    def save(tokenizer, family="bert", **options):
        save_student(tiny_encoder(family, **options), tokenizer, tmp_path / family)
        return tmp_path / family

    return save


def logits(folder, *texts: list[str]) -> torch.Tensor:
    """Of each text alone, by transformers, and of all of them in one batch, which must be the same."""
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    with torch.no_grad():
        together = model(**tokenizer(*texts, padding=True, return_tensors="pt")).logits
        alone = [model(**tokenizer(*row, return_tensors="pt")).logits for row in zip(*texts, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    return together


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
def test_a_tokenizer_that_pads_on_the_left_pads_on_the_right(saved, tiny_tokenizer, family):
    right = logits(saved(tiny_tokenizer, family), TEXTS)
    tiny_tokenizer.padding_side = "left"
    folder = saved(tiny_tokenizer, family)
    assert torch.equal(logits(folder, TEXTS), right)
    load_tokenizer(folder).save_pretrained(folder)
    assert '"padding_side": "left"' not in (folder / "tokenizer_config.json").read_text()


@pytest.mark.parametrize("inputs", [["input_ids"], "input_ids", ["foo"], ["attention_mask", "input_ids"]])
def test_padding_is_marked_though_the_tokenizer_does_not_say_so(saved, tiny_tokenizer, inputs):
    right = logits(saved(tiny_tokenizer), TEXTS)
    tiny_tokenizer.init_kwargs["model_input_names"] = inputs
    assert torch.equal(logits(saved(tiny_tokenizer), TEXTS), right)


def test_a_vocabulary_without_a_token_for_unknown_words_is_refused(saved, tiny_tokenizer, tmp_path):
    folder = saved(tiny_tokenizer)
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["model"]["vocab"] = {"[PAD]": 0}
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    with names(ModelError, folder, "UNK"):
        load_tokenizer(folder)


def test_a_tokenizer_without_a_padding_token_is_refused(saved, tiny_tokenizer):
    tiny_tokenizer.pad_token = None
    with names(TokenizerError, "tokenizer_config.json", '"pad_token": "[PAD]"'):
        load_tokenizer(saved(tiny_tokenizer))


def test_the_row_of_padding_is_that_of_the_tokenizer_where_it_is_emptied(saved, tiny_tokenizer):
    """MobileBERT's trigrams read padding's row; elsewhere a config that says another one does no harm."""
    with names(TokenizerError, "'[PAD]'", tiny_tokenizer.pad_token_id, "pad_token_id", 3):
        load_tokenizer(saved(tiny_tokenizer, "mobilebert", pad_token_id=3))
    load_tokenizer(saved(tiny_tokenizer, "bert", pad_token_id=3))


def test_tokens_that_the_encoder_has_no_row_for_are_refused(saved, tiny_tokenizer):
    size = len(tiny_tokenizer)
    tiny_tokenizer.add_tokens(["<one>", "<two>"])
    with names(TokenizerError, 2, size, "'<one>'", "resize_token_embeddings()"):
        load_tokenizer(saved(tiny_tokenizer))
    assert len(load_tokenizer(saved(tiny_tokenizer, vocab_size=size + 2))) == size + 2


def test_special_tokens_of_other_ids_than_the_vocabulary_has_are_met(saved, tiny_tokenizer):
    folder = saved(tiny_tokenizer)
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [900]
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    with names(TokenizerError, folder, 900):
        load_tokenizer(folder)


def test_a_vocabulary_may_be_shorter_than_the_table(saved, tiny_tokenizer, tokenizer_factory):
    tokens = tuple(sorted(tiny_tokenizer.get_vocab(), key=tiny_tokenizer.get_vocab().get))
    assert logits(saved(tokenizer_factory(tokens[:-5])), TEXTS).isfinite().all()


@pytest.mark.parametrize(
    ("family", "file"), [("roberta", "vocab.txt"), ("bert", "vocab.json"), ("albert", "vocab.txt")]
)
def test_files_of_another_tokenizer_are_refused(saved, tiny_tokenizer, family, file):
    """transformers makes a tokenizer of special tokens alone of them, and every text would be the same to it."""
    folder = saved(tiny_tokenizer, family)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tokens = sorted(tiny_tokenizer.get_vocab(), key=tiny_tokenizer.get_vocab().get)
    (folder / file).write_text(json.dumps(tiny_tokenizer.get_vocab()) if file == "vocab.json" else "\n".join(tokens))
    with names(TokenizerError, folder, len(tokens), "tokenizer_class"):
        load_tokenizer(folder)
    if file == "vocab.txt":
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
        assert len(load_tokenizer(folder)) == len(tokens)


def test_a_vocabulary_of_other_writing_is_none_of_another_encoder(saved, tokenizer_factory):
    """Of DNA, say: what it reads here is unknown to it, and yet it is as large as its encoder's table."""
    tokenizer = tokenizer_factory(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ACG", "CGT", "GTA"))
    assert len(load_tokenizer(saved(tokenizer, vocab_size=8))) == 8


def test_token_types_are_given_to_encoders_that_tell_them_apart(saved, tokenizer_factory):
    tokenizer = tokenizer_factory()
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = inputs
    pairs = (TEXTS, TEXTS[::-1])
    for family, options in (("roberta", {"type_vocab_size": 1}), ("distilbert", {}), ("mpnet", {})):
        folder = saved(tokenizer, family, **options)
        assert load_tokenizer(folder).model_input_names == ["input_ids", "attention_mask"]
        logits(folder, *pairs)
        load_tokenizer(folder).save_pretrained(folder)
        assert "token_type_ids" not in AutoTokenizer.from_pretrained(folder)(*pairs)
    bert = saved(tokenizer)
    assert "token_type_ids" in load_tokenizer(bert).model_input_names
    swapped = logits(bert, *pairs)
    assert not torch.allclose(swapped, logits(bert, *pairs[::-1]))
    tokenizer.backend_tokenizer.post_processor = type(tokenizer.backend_tokenizer.post_processor)(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:2 [SEP]:2", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    with names(TokenizerError, "type 2"):
        load_tokenizer(saved(tokenizer))


def test_a_tokenizer_without_an_encoder_beside_it_is_taken_as_it_is(tiny_tokenizer, tmp_path):
    tiny_tokenizer.add_tokens(["<one>"])
    tiny_tokenizer.save_pretrained(tmp_path)
    assert len(load_tokenizer(tmp_path)) == len(tiny_tokenizer)


@pytest.mark.parametrize(
    ("family", "row"), [("roberta", None), ("camembert", -1), ("xlm-roberta", 5000), ("bert", 5000)]
)
def test_an_id_of_padding_that_no_row_has_is_refused(tiny_encoder, tmp_path, family, row):
    """RoBERTa's positions are counted from it: None was a traceback of the first batch, and -1 read no token at all."""
    tiny_encoder(family, layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": row}))
    for load in (load_classifier, load_encoder):
        with names(ModelError, tmp_path, "config.json", "pad_token_id", row):
            load(tmp_path)


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet"])
def test_a_family_that_counts_positions_from_the_left_needs_no_id_of_padding(
    tiny_encoder, tiny_tokenizer, tmp_path, family
):
    model = tiny_encoder(family, layers=1)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    inputs = tiny_tokenizer(["good", "the movie was good"], padding=True, return_tensors="pt")
    torch.testing.assert_close(load_classifier(tmp_path)(**inputs).logits, model(**inputs).logits)


# --------------------------------------------------------------------------------------------------- unknown families


def unknown(family: str, folder, tokenizer, **options):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    config = AutoConfig.for_model(
        family, max_position_embeddings=66, initializer_range=0.2, **sizes, **tokens, **options
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_student(AutoModelForSequenceClassification.from_config(config).eval(), tokenizer, folder)
    return folder


@pytest.mark.parametrize(
    ("family", "longest"),
    [("data2vec-text", 64), ("longformer", 64), ("roberta-prelayernorm", 64), ("ernie", 66), ("deberta", 66)],
)
def test_a_family_that_reads_padding_as_the_known_ones_do_is_loaded(tiny_tokenizer, tmp_path, family, longest):
    options = {"attention_window": [4, 4]} if family == "longformer" else {}
    folder = unknown(family, tmp_path, tiny_tokenizer, **options)
    random_state = torch.get_rng_state()
    model = load_classifier(folder)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert longest_text(model) == longest == 66 - first_position(model)
    ids = torch.full((1, longest), 7)
    assert torch.isfinite(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits).all()
    bare = load_encoder(folder)
    assert type(bare) is type(model.base_model)


@pytest.mark.parametrize("family", ["fnet", "nystromformer", "convbert"])
def test_a_family_that_answers_by_what_else_is_in_the_batch_is_refused(tiny_tokenizer, tmp_path, family):
    folder = unknown(family, tmp_path, tiny_tokenizer)
    for load in (load_classifier, load_encoder):
        with names(ModelError, folder, f"'{family}'", "%"):
            load(folder)


def test_a_family_whose_longest_text_has_no_positions_is_refused(tiny_tokenizer, tmp_path, monkeypatch):
    folder = unknown("ernie", tmp_path, tiny_tokenizer)
    monkeypatch.setattr("emdistill.models.inputs.longest_text", lambda model: 67)
    with names(ModelError, folder, "'ernie'", "RuntimeError", 67):
        load_classifier(folder)
