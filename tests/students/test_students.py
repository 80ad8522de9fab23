"""Every way a student is born, over the four families, and every spec that is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel, pipeline

from emdistill.errors import ConfigError, LayerCountError, ModelError, TokenizerError
from emdistill.models import encoder_layers, encoder_shape, fingerprint, save_student
from emdistill.states import EncoderShape
from emdistill.students import STUDENTS, evenly_spaced, keep_layers, make_student, student_kind
from emdistill.students.fresh import default_feed_forward, default_heads

FAMILIES = ("bert", "roberta", "distilbert", "electra")
LABELS = ("bad", "good")
BATCH = {"input_ids": torch.tensor([[2, 40, 41, 42, 3], [2, 50, 3, 0, 0]]), "attention_mask": torch.ones(2, 5).long()}


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_all_layers_gives_the_teachers_logits_bit_for_bit(tiny_encoder, tiny_tokenizer, family):
    teacher = tiny_encoder(family, layers=3).requires_grad_(False)
    for spec in ("3", "0,1,2"):
        student, tokenizer = make_student(spec, teacher, tiny_tokenizer, labels=LABELS)
        assert tokenizer is tiny_tokenizer
        assert torch.equal(student.eval()(**BATCH).logits, teacher(**BATCH).logits)
        assert all(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_layers_are_copies_of_the_chosen_ones(tiny_encoder, tiny_tokenizer, family):
    teacher = tiny_encoder(family, layers=6)
    before, random_state = fingerprint(teacher), torch.get_rng_state()
    student, _ = make_student("3", teacher, tiny_tokenizer, labels=LABELS)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert encoder_shape(student) == EncoderShape(layers=3, width=32, heads=4)
    for kept, layer in zip((1, 3, 5), encoder_layers(student), strict=True):
        assert fingerprint(layer) == fingerprint(encoder_layers(teacher)[kept])
    assert fingerprint(student.base_model.embeddings) == fingerprint(teacher.base_model.embeddings)
    assert fingerprint(student.classifier) == fingerprint(teacher.classifier)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert fingerprint(teacher) == before
    assert teacher.config.num_hidden_layers == 6


def test_more_than_ten_layers_are_told_apart_by_number(tiny_encoder):
    teacher = tiny_encoder(layers=12, width=8, heads=2)
    student = keep_layers(teacher, (1, 10, 11))
    for kept, layer in zip((1, 10, 11), encoder_layers(student), strict=True):
        assert fingerprint(layer) == fingerprint(encoder_layers(teacher)[kept])


def test_evenly_spaced():
    assert evenly_spaced(3, 6) == (1, 3, 5)
    assert evenly_spaced(4, 12) == (2, 5, 8, 11)
    assert evenly_spaced(4, 6) == (0, 2, 3, 5)
    assert evenly_spaced(1, 6) == (5,)
    for layers in range(1, 25):
        for keep in range(1, layers + 1):
            chosen = evenly_spaced(keep, layers)
            gaps = {after - before for before, after in zip((-1, *chosen), chosen, strict=False)}
            assert len(chosen) == keep
            assert chosen[-1] == layers - 1
            assert gaps <= {layers // keep, -(-layers // keep)}


def test_layers_come_from_the_source_encoder(tiny_encoder, tiny_tokenizer, tmp_path):
    teacher, pretrained = tiny_encoder(layers=4), tiny_encoder(layers=4, seed=1)
    encoder = BertModel(pretrained.config)
    encoder.load_state_dict(pretrained.base_model.state_dict())
    save_student(encoder, tiny_tokenizer, tmp_path)
    student, _ = make_student("2", teacher, tiny_tokenizer, labels=LABELS, seed=5, source=tmp_path)
    for kept, layer in zip((1, 3), encoder_layers(student), strict=True):
        assert fingerprint(layer) == fingerprint(encoder_layers(pretrained)[kept])
    assert fingerprint(student.bert.pooler) == fingerprint(encoder.pooler)
    again, _ = make_student("2", teacher, tiny_tokenizer, labels=LABELS, seed=5, source=tmp_path)
    other, _ = make_student("2", teacher, tiny_tokenizer, labels=LABELS, seed=6, source=tmp_path)
    assert fingerprint(again) == fingerprint(student)
    assert fingerprint(other.classifier) != fingerprint(student.classifier)
    with pytest.raises(ConfigError, match="keeps no layers"):
        make_student("4x32", teacher, tiny_tokenizer, labels=LABELS, source=tmp_path)


def test_layers_that_are_not_there(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder(layers=6)
    with pytest.raises(LayerCountError, match=r"this teacher has 6 layers \(0\.\.5\); --student names layer 9"):
        make_student("1,9", teacher, tiny_tokenizer, labels=LABELS)
    for spec in ("7", "0"):
        with pytest.raises(LayerCountError, match=rf"this teacher has 6 layers; --student asks for {spec} of them"):
            make_student(spec, teacher, tiny_tokenizer, labels=LABELS)
    for spec in ("3,1", "1,1"):
        with pytest.raises(ConfigError, match=f"--student {spec}: name each layer once, in increasing order"):
            make_student(spec, teacher, tiny_tokenizer, labels=LABELS)
    with pytest.raises(ModelError, match="the teacher's head has 2 outputs, the task 3"):
        make_student("3", teacher, tiny_tokenizer, labels=("a", "b", "c"))


def test_the_published_small_student_has_the_published_size(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder(layers=1, vocab_size=30522, max_position_embeddings=512)
    student, _ = make_student("4x312", teacher, tiny_tokenizer, labels=LABELS)
    assert sum(parameter.numel() for parameter in student.parameters()) == 14_350_874
    assert encoder_shape(student) == EncoderShape(layers=4, width=312, heads=12)
    assert student.config.intermediate_size == 1200


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_weights_follow_the_seed_and_the_teachers_config(tiny_encoder, tiny_tokenizer, family):
    teacher = tiny_encoder(family, layers=3, hidden_act="relu", activation="relu")
    random_state = torch.get_rng_state()
    student, _ = make_student("2x24", teacher, tiny_tokenizer, labels=("a", "b", "c"), seed=1)
    assert torch.equal(torch.get_rng_state(), random_state)
    again, _ = make_student("2x24x12x96", teacher, tiny_tokenizer, labels=("a", "b", "c"), seed=1)
    other, _ = make_student("2x24", teacher, tiny_tokenizer, labels=("a", "b", "c"), seed=2)
    assert type(student) is type(teacher)
    assert encoder_shape(student) == EncoderShape(layers=2, width=24, heads=12)
    assert fingerprint(student) == fingerprint(again) != fingerprint(other)
    assert student.eval()(**BATCH).logits.shape == (2, 3)
    kept = {"vocab_size", "max_position_embeddings", "initializer_range", "hidden_act", "activation"}
    for name in kept & student.config.to_dict().keys():
        assert getattr(student.config, name) == getattr(teacher.config, name)
    assert student.base_model.embeddings.word_embeddings.weight.std().item() == pytest.approx(0.2, rel=0.1)
    assert student.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert encoder_shape(teacher).layers == 3


def test_electra_keeps_narrow_embeddings_and_widens_equal_ones(tiny_encoder, tiny_tokenizer):
    for embedding_size, expected in ((16, 16), (32, 24)):
        teacher = tiny_encoder("electra", embedding_size=embedding_size)
        student, _ = make_student("2x24", teacher, tiny_tokenizer, labels=LABELS)
        assert student.config.embedding_size == expected


def test_default_heads_and_feed_forward():
    heads = {312: 12, 384: 12, 768: 12, 128: 2, 256: 4, 512: 8, 250: 5, 7: 1}
    assert {width: default_heads(width) for width in heads} == heads
    assert [default_feed_forward(width) for width in (312, 384, 768)] == [1200, 1536, 3072]


def test_impossible_shapes(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder()
    for spec in ("0x312", "4x0", "4x312x7x1200", "4x312x0x1200", "4x312x12x0"):
        with pytest.raises(ConfigError, match=f"--student {spec.rsplit('x', 2)[0] if spec.count('x') > 1 else spec}"):
            make_student(spec, teacher, tiny_tokenizer, labels=LABELS)


def test_a_pretrained_student_keeps_its_weights(tiny_encoder, tiny_tokenizer, tmp_path):
    teacher, small = tiny_encoder("bert", layers=4), tiny_encoder("distilbert", layers=2, width=16)
    save_student(small, tiny_tokenizer, tmp_path)
    student, tokenizer = make_student(str(tmp_path), teacher, tiny_tokenizer, labels=LABELS)
    assert fingerprint(student) == fingerprint(small)
    assert tokenizer.get_vocab() == tiny_tokenizer.get_vocab()
    assert student.config.id2label == {0: "bad", 1: "good"}


def test_a_pretrained_student_must_read_the_teachers_tokens(tiny_encoder, tiny_tokenizer, tokenizer_factory, tmp_path):
    vocabulary = sorted(tiny_tokenizer.get_vocab(), key=tiny_tokenizer.get_vocab().get)
    save_student(tiny_encoder(), tokenizer_factory((*vocabulary[:-1], "other")), tmp_path)
    with pytest.raises(TokenizerError, match="differ in the ids of 2 tokens"):
        make_student(str(tmp_path), tiny_encoder(), tiny_tokenizer, labels=LABELS)
    with pytest.raises(TokenizerError, match="differ in the ids of 2 tokens"):
        make_student("1", tiny_encoder(), tiny_tokenizer, labels=LABELS, source=tmp_path)


def test_regression_students(tiny_encoder, tiny_tokenizer, tmp_path):
    teacher = tiny_encoder(labels=1)
    save_student(tiny_encoder(), tiny_tokenizer, tmp_path)
    for spec in ("1", "2x24", str(tmp_path)):
        student, _ = make_student(spec, teacher, tiny_tokenizer, labels=(), regression=True)
        assert student.config.problem_type == "regression"
        assert student.eval()(**BATCH).logits.shape == (2, 1)


def test_every_form_is_in_the_table(tmp_path):
    specs = {
        "3": "layer-count",
        "12": "layer-count",
        "1,3,5": "layer-list",
        "5,": "layer-list",
        "4x312": "fresh",
        "4x312x12x1200": "fresh",
        "bert-base-uncased": "pretrained",
        "google/bert_uncased_L-4_H-312_A-12": "pretrained",
        "0owner/small": "pretrained",
        str(tmp_path): "pretrained",
    }
    assert {spec: student_kind(spec) for spec in specs} == specs
    assert set(specs.values()) == set(STUDENTS)
    for kind in STUDENTS.values():
        assert "\n" not in kind.description
        assert kind.pattern.fullmatch(kind.example.replace("DIR_OR_HUB_ID", "bert-base-uncased"))


@pytest.mark.parametrize("spec", ["", "4 x 312", "3;5", "4x", "4x312x12", "-1", "1.5", "4y312", "./absent", ",1"])
def test_a_wrong_spec_is_told_the_four_forms(tiny_encoder, tiny_tokenizer, spec):
    with pytest.raises(ConfigError) as error:
        make_student(spec, tiny_encoder(), tiny_tokenizer, labels=LABELS)
    assert all(form in str(error.value) for form in (repr(spec), "3: ", "1,3,5: ", "4x312: ", "DIR_OR_HUB_ID: "))


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_students_load_in_plain_transformers(tiny_encoder, tiny_tokenizer, tmp_path, family):
    student, tokenizer = make_student("1", tiny_encoder(family), tiny_tokenizer, labels=LABELS)
    save_student(student, tokenizer, tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert fingerprint(loaded) == fingerprint(student)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu", top_k=None)
    encoded = AutoTokenizer.from_pretrained(tmp_path)("A good movie!", return_tensors="pt")
    expected = student.eval()(**encoded).logits.softmax(-1)[0]
    answers = {answer["label"]: answer["score"] for answer in classify(["A good movie!"])[0]}
    assert answers == pytest.approx({name: expected[index].item() for index, name in enumerate(LABELS)}, abs=1e-6)
