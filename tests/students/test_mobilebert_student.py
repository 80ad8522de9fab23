"""How a MobileBERT is born: its published size, its sizes by the word, its embeddings, and teachers of its kind."""

from typing import Any

import pytest
import torch
from messages import names
from transformers import BertConfig, BertForSequenceClassification

from emdistill.errors import ConfigError
from emdistill.models import capture, encoder_shape, fingerprint
from emdistill.states import NOTHING, WORDS, EncoderShape
from emdistill.students import make_student
from emdistill.students.mobilebert import mobilebert_student

LABELS = ("bad", "good")
SMALL = "mobilebert:3x32x16x2"


def size(model: torch.nn.Module, *without: str) -> int:
    return sum(part.numel() for name, part in model.named_parameters() if not name.startswith(without or ("\0",)))


def test_the_published_shape_has_its_parameters() -> None:
    """25.3 million with what stands on it in pre-training, but for the matrix of words that is thrown away after it."""
    with torch.device("meta"):
        bert = BertForSequenceClassification(BertConfig())
        student = mobilebert_student(bert, "mobilebert", labels=LABELS, fresh=True)
        words = mobilebert_student(bert, "mobilebert", predictions=WORDS, fresh=True)
        teacher = mobilebert_student(bert, "mobilebert-teacher", labels=LABELS, fresh=True)
    assert size(student.base_model) == 24_581_888  # as in the released checkpoint
    pooler = 512 * 512 + 512
    assert size(words, "cls.predictions.dense") + pooler == pytest.approx(25.3e6, rel=0.01)
    assert encoder_shape(student) == EncoderShape(24, 512, 4, attention_width=128)
    assert encoder_shape(teacher) == EncoderShape(24, 512, 4, attention_width=1024)
    wider = 24 * 3 * 512 * 1024  # queries, keys and values of what is within, and not of the states between layers
    assert size(teacher.base_model) - wider == pytest.approx(293e6, rel=0.01)  # IB-BERT-large


def test_the_word_says_its_sizes(tiny_encoder, tiny_tokenizer) -> None:
    teacher, random_state = tiny_encoder(heads=4), torch.get_rng_state()
    student, again, other = (
        make_student(SMALL, teacher, tiny_tokenizer, labels=LABELS, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert fingerprint(again) == fingerprint(student) != fingerprint(other)
    assert torch.equal(torch.get_rng_state(), random_state)
    config: Any = student.config
    assert (config.num_hidden_layers, config.hidden_size, config.true_hidden_size) == (3, 32, 16)
    assert (config.num_feedforward_networks, config.normalization_type, config.hidden_act) == (2, "no_norm", "relu")
    wide: Any = make_student("mobilebert-teacher:2x16x32-no_norm-relu", teacher, tiny_tokenizer, labels=LABELS)[
        0
    ].config
    assert (wide.hidden_size, wide.true_hidden_size, wide.num_feedforward_networks) == (16, 32, 1)
    assert (wide.normalization_type, wide.hidden_act, wide.use_bottleneck_attention) == ("no_norm", "relu", True)
    usual: Any = make_student("mobilebert-teacher:2x16x32", teacher, tiny_tokenizer, labels=LABELS)[0].config
    assert (usual.normalization_type, usual.hidden_act) == ("layer_norm", "gelu")
    of_three = tiny_encoder(width=33, heads=3)
    heads = {"mobilebert:1x32x12": 3, "mobilebert:1x32x16": 4}
    for spec, number in heads.items():
        assert encoder_shape(mobilebert_student(of_three, spec, labels=LABELS)).heads == number


def test_at_the_teachers_width_it_begins_with_its_embeddings(tiny_encoder, tiny_tokenizer) -> None:
    """All that a narrower table can hold: no matrix of its rank comes closer to the teacher's rows."""
    teacher = tiny_encoder(width=32)
    born, fresh = (
        make_student("mobilebert:1x32x16", teacher, tiny_tokenizer, labels=LABELS, birth=birth)[0].eval()
        for birth in ("importance", "fresh")
    )
    table = teacher.get_input_embeddings().weight[5:]
    ids = torch.arange(5, len(table) + 5)[:, None]
    types = {"token_type_ids": torch.zeros_like(ids)}
    with torch.no_grad():
        states = born.base_model.embeddings(ids, **types)[:, 0]
        place = teacher.base_model.embeddings
        expected = table + place.position_embeddings.weight[0] + place.token_type_embeddings.weight[0]
        torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-4)  # 32 directions hold the whole table
        assert not torch.allclose(fresh.base_model.embeddings(ids, **types)[:, 0], states)


def test_of_roberta_it_takes_the_positions_that_texts_use(tiny_encoder) -> None:
    encoder = tiny_encoder("roberta", width=48, heads=4)
    student = mobilebert_student(encoder, "mobilebert:2x48x24")
    ours, theirs = (model.base_model.embeddings.position_embeddings.weight for model in (student, encoder))
    assert torch.equal(ours, theirs[encoder.config.pad_token_id + 1 :])


def test_of_a_mobilebert_it_takes_the_embeddings_themselves(tiny_encoder, tiny_tokenizer) -> None:
    teacher, _ = make_student("mobilebert-teacher:2x32x64", tiny_encoder(), tiny_tokenizer, labels=LABELS)
    student, like_it = (
        make_student(spec, teacher, tiny_tokenizer, labels=LABELS)[0] for spec in (SMALL, f"{SMALL}-layer_norm")
    )
    tokens = torch.tensor([[7, 9, 11]])
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    with torch.no_grad():
        own, taught = (model.eval().base_model.embeddings(tokens) for model in (like_it, teacher))
    assert torch.equal(own, taught)


@pytest.mark.parametrize("predictions", [WORDS, NOTHING])
def test_of_raw_text_it_predicts_words_or_nothing(tiny_encoder, tiny_tokenizer, predictions) -> None:
    student, _ = make_student("mobilebert:1x32x16", tiny_encoder(width=24), tiny_tokenizer, predictions=predictions)
    labels = torch.tensor([[-100, 7, -100]])
    states = capture(student, {"input_ids": torch.tensor([[6, 7, 8]]), "labels": labels}, {"hidden"})
    table = student.get_input_embeddings().weight.detach()
    assert (float(table.std()) == pytest.approx(1, rel=0.1)) == (predictions is NOTHING)  # logits are made of it
    assert states.logits.shape == ((1, student.config.vocab_size) if predictions is WORDS else (1, 0))


def test_sizes_that_cannot_be_are_refused(tiny_encoder) -> None:
    with names(ConfigError, "--student mobilebert:0x32x16"):
        mobilebert_student(tiny_encoder(), "mobilebert:0x32x16", labels=LABELS)
    with names(ConfigError, "--student mobilebert:1x32x18", 4, 20):
        mobilebert_student(tiny_encoder(), "mobilebert:1x32x18", labels=LABELS)
