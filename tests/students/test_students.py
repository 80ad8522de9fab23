"""Every way a student is born, over the four families, and every spec that is refused."""

from pathlib import Path

import pytest
import torch
from byte_pairs import byte_pair_tokenizer
from cut_students import extract_student
from messages import names
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    PreTrainedTokenizerBase,
    pipeline,
)

from emdistill.config import student_recipe
from emdistill.errors import ConfigError, LayerCountError, ModelError
from emdistill.mapping import uniform_mapping
from emdistill.models import encoder_layers, encoder_shape, fingerprint, save_student
from emdistill.states import NOTHING, WORDS, EncoderShape
from emdistill.students import STUDENTS, evenly_spaced, keep_layers, make_student, student_kind
from emdistill.students.importance import taylor_importance
from emdistill.students.shape import StudentShape, complete_shape, default_feed_forward, default_heads, shape_of
from emdistill.tasks import KINDS

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
    with names(ConfigError, "--student 4x32", tmp_path):
        make_student("4x32", teacher, tiny_tokenizer, labels=LABELS, source=tmp_path)


def test_a_fresh_student_may_be_deeper_than_a_teacher_whose_layers_share_weights(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder("albert", layers=4, num_hidden_groups=4)
    student, _ = make_student("6x32", teacher, tiny_tokenizer, labels=LABELS, birth="fresh")
    assert (student.config.num_hidden_layers, student.config.num_hidden_groups) == (6, 4)


@pytest.mark.parametrize(
    ("spec", "shape", "width"),
    [
        ("bag", EncoderShape(0, 128, 0), 128),
        ("bag:8", EncoderShape(0, 8, 0), 8),
        ("bilstm", EncoderShape(2, 512, 0), 32),
        ("bilstm:8", EncoderShape(2, 16, 0), 8),
    ],
)
def test_one_that_is_no_transformer_is_as_large_as_its_spec_says(
    tiny_encoder, tiny_tokenizer, spec: str, shape: EncoderShape, width: int
) -> None:
    teacher, random_state = tiny_encoder(width=max(width, 32)), torch.get_rng_state()
    student, again, other = (
        make_student(spec, teacher, tiny_tokenizer, labels=LABELS, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert encoder_shape(student) == shape
    assert student.get_input_embeddings().weight.shape == (teacher.config.vocab_size, width)
    assert student.config.sep_token_id == tiny_tokenizer.sep_token_id
    assert fingerprint(again) == fingerprint(student) != fingerprint(other)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_layers_that_are_not_there(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder(layers=6)
    with names(LayerCountError, "--student", "layer 9", "0..5"):
        make_student("1,9", teacher, tiny_tokenizer, labels=LABELS)
    for spec in ("7", "0"):
        with names(LayerCountError, "--student", spec, 6):
            make_student(spec, teacher, tiny_tokenizer, labels=LABELS)
    for spec in ("3,1", "1,1"):
        with names(ConfigError, f"--student {spec}"):
            make_student(spec, teacher, tiny_tokenizer, labels=LABELS)
    with names(ModelError, 2, 3):
        make_student("3", teacher, tiny_tokenizer, labels=("a", "b", "c"))


def test_the_published_small_student_has_the_published_size(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder(layers=1, vocab_size=30522, max_position_embeddings=512)
    student, _ = make_student("4x312", teacher, tiny_tokenizer, labels=LABELS, birth="fresh")
    assert sum(parameter.numel() for parameter in student.parameters()) == 14_350_874
    assert encoder_shape(student) == EncoderShape(layers=4, width=312, heads=12)
    assert student.config.intermediate_size == 1200


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_weights_follow_the_seed_and_the_teachers_config(tiny_encoder, tiny_tokenizer, family):
    teacher = tiny_encoder(family, layers=3, hidden_act="relu", activation="relu")
    random_state = torch.get_rng_state()
    options = {"labels": ("a", "b", "c"), "birth": "fresh"}
    student, _ = make_student("2x24", teacher, tiny_tokenizer, seed=1, **options)
    assert torch.equal(torch.get_rng_state(), random_state)
    again, _ = make_student("2x24x4x64", teacher, tiny_tokenizer, seed=1, **options)
    other, _ = make_student("2x24", teacher, tiny_tokenizer, seed=2, **options)
    assert type(student) is type(teacher)
    assert encoder_shape(student) == EncoderShape(layers=2, width=24, heads=4)
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
        for birth in ("fresh", "random"):
            student, _ = make_student("2x24", teacher, tiny_tokenizer, labels=LABELS, birth=birth)
            assert student.config.embedding_size == expected


def test_the_births_of_a_shape(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder(layers=4)
    sample, plans = [{**BATCH, "labels": torch.tensor([0, 1])}], []

    def born(birth: str, seed: int = 1, batches: list | None = sample):
        student, tokenizer = make_student(
            "2x24x4x40",
            teacher,
            tiny_tokenizer,
            labels=LABELS,
            seed=seed,
            birth=birth,
            sample=None if batches is None else lambda _: batches,
            record=plans.append,
        )
        assert tokenizer is tiny_tokenizer
        assert shape_of(student.config) == StudentShape(2, 24, 4, 40)
        assert student.config.id2label == {0: "bad", 1: "good"}
        assert all(parameter.requires_grad for parameter in student.parameters())
        return fingerprint(student)

    best = taylor_importance(teacher, sample)
    assert born("importance") == born("importance", seed=2)
    assert born("importance") == fingerprint(extract_student(teacher, 2, 24, 4, 40, importance=best, sample=sample))
    assert plans[0] == plans[1] == plans[2]
    assert set(plans[0].residual) == set(best.residual.topk(24).indices.tolist())
    assert plans[0].layers == (1, 3)
    assert (
        born("random") == born("random") == fingerprint(extract_student(teacher, 2, 24, 4, 40, sample=sample, seed=1))
    )
    assert born("random", batches=None) == fingerprint(extract_student(teacher, 2, 24, 4, 40, seed=1))
    assert len({born("importance"), born("random"), born("random", seed=2), born("random", batches=None)}) == 4
    cut = len(plans)
    assert born("fresh") not in {born("fresh", seed=2), born("random")}
    assert len(plans) == cut + 1  # of fresh students there is nothing to record
    with names(ConfigError, "--student 2x24x4x40", "sample", "--student-birth random"):
        born("importance", batches=None)
    with names(ModelError, 2, 3):
        make_student("2x24", teacher, tiny_tokenizer, labels=("a", "b", "c"), birth="random")


def test_a_student_larger_than_its_teacher_can_only_be_fresh(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder(layers=2)

    def unread(_: PreTrainedTokenizerBase) -> list:
        raise AssertionError("the sample is made before the shape is checked")

    for birth in ("importance", "random"):
        for spec, sizes in (("3x24", "3x24x4x64"), ("2x48", "2x48x12x192")):
            with names(ConfigError, sizes, "2x32x4x64", "--student-birth fresh"):
                make_student(spec, teacher, tiny_tokenizer, labels=LABELS, birth=birth, sample=unread)
            student, _ = make_student(spec, teacher, tiny_tokenizer, labels=LABELS, birth="fresh")
            assert str(shape_of(student.config)) == sizes


def test_default_heads_and_feed_forward():
    """Sizes that are not given: those of the publications, and of a teacher that is as wide, sizes it can give."""
    small = StudentShape(2, 32, 4, 64)
    heads = {312: 12, 384: 12, 768: 12, 128: 2, 256: 4, 512: 8, 250: 5, 70: 1}
    assert {width: default_heads(width, small) for width in heads} == heads
    assert [default_feed_forward(width, small) for width in (312, 384, 768, 32, 8)] == [1200, 1536, 3072, 64, 32]
    base, minilm = StudentShape(12, 768, 12, 3072), StudentShape(6, 384, 12, 1536)
    assert [default_heads(width, base) for width in (768, 384, 312, 256, 192, 128)] == [12, 12, 12, 4, 12, 2]
    assert [default_heads(width, minilm) for width in (384, 312, 256, 192, 128)] == [12, 12, 8, 12, 4]
    assert default_heads(128, StudentShape(12, 256, 4, 1024)) == 4
    assert default_heads(768, StudentShape(24, 1024, 16, 4096)) == 16
    assert default_heads(13, small) == 1  # nothing that can be cut: 13 heads, or one of 13
    assert default_feed_forward(312, minilm) == 1200
    assert default_feed_forward(384, StudentShape(6, 384, 12, 1000)) == 1000


def test_all_births_have_one_shape(tiny_encoder, tiny_tokenizer):
    for family in FAMILIES:
        teacher = tiny_encoder(family, layers=3)
        for width in (32, 24, 12):
            shape = complete_shape(teacher.config, 2, width)
            for birth in ("random", "fresh"):
                student, _ = make_student(f"2x{width}", teacher, tiny_tokenizer, labels=LABELS, birth=birth)
                assert shape_of(student.config) == shape


def test_impossible_shapes(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder()
    for spec in ("0x312", "4x0", "4x312x7x1200", "4x312x0x1200", "4x312x12x0"):
        with names(ConfigError, f"--student {spec}"):
            make_student(spec, teacher, tiny_tokenizer, labels=LABELS)


@pytest.mark.parametrize("kind", ["words", "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_students_of_a_teacher_without_a_task(tiny_encoder, tiny_tokenizer, tmp_path, family, kind):
    auto = AutoModelForMaskedLM if kind == "words" else AutoModel
    teacher = auto.from_config(tiny_encoder(family, layers=4).config).eval()
    small = auto.from_config(tiny_encoder(family, layers=1, width=8).config).eval()
    save_student(small, tiny_tokenizer, tmp_path / "small")
    save_student(teacher, tiny_tokenizer, tmp_path / "same")
    labels = torch.where(BATCH["input_ids"] > 40, BATCH["input_ids"], -100)
    before = fingerprint(teacher)

    def born(spec: str, **options):
        batches = [{**BATCH, "labels": labels}] if kind == "words" else [BATCH]
        student, _ = make_student(
            spec,
            teacher,
            tiny_tokenizer,
            predictions=WORDS if kind == "words" else NOTHING,
            sample=lambda _: batches,
            seed=3,
            **options,
        )
        assert type(student) is type(teacher)
        assert torch.isfinite(student.eval()(**BATCH)[0]).all()
        assert all(parameter.requires_grad for parameter in student.parameters())
        return student

    for student in (born("2"), born("1,3"), born("2", source=tmp_path / "same")):
        for kept, layer in zip((1, 3), encoder_layers(student), strict=True):
            assert fingerprint(layer) == fingerprint(encoder_layers(teacher)[kept])
    for birth in ("importance", "random", "fresh"):
        student = born("2x24", birth=birth)
        assert encoder_shape(student) == EncoderShape(layers=2, width=24, heads=4)
        save_student(student, tiny_tokenizer, tmp_path / birth)
        assert fingerprint(auto.from_pretrained(tmp_path / birth)) == fingerprint(student)
    assert fingerprint(born(str(tmp_path / "small"))) == fingerprint(small)
    assert fingerprint(teacher) == before


def test_a_student_of_a_masked_lm_needs_its_head(tiny_encoder, tiny_tokenizer, tmp_path):
    config = tiny_encoder().config
    words, bare = AutoModelForMaskedLM.from_config(config), AutoModel.from_config(config)
    save_student(words, tiny_tokenizer, tmp_path / "words")
    save_student(bare, tiny_tokenizer, tmp_path / "bare")
    with names(ModelError, tmp_path / "bare"):
        make_student(str(tmp_path / "bare"), words, tiny_tokenizer, predictions=WORDS)
    student, _ = make_student(str(tmp_path / "words"), bare, tiny_tokenizer, predictions=NOTHING)
    assert type(student) is BertModel
    assert fingerprint(student) == fingerprint(words.base_model)


def test_a_pretrained_student_keeps_its_weights(tiny_encoder, tiny_tokenizer, tmp_path):
    teacher, small = tiny_encoder("bert", layers=4), tiny_encoder("distilbert", layers=2, width=16)
    save_student(small, tiny_tokenizer, tmp_path)
    student, tokenizer = make_student(str(tmp_path), teacher, tiny_tokenizer, labels=LABELS)
    assert fingerprint(student) == fingerprint(small)
    assert tokenizer.get_vocab() == tiny_tokenizer.get_vocab()
    assert student.config.id2label == {0: "bad", 1: "good"}


def test_who_gives_the_embeddings_gives_the_tokenizer(tiny_encoder, tiny_tokenizer, tmp_path):
    other = byte_pair_tokenizer()
    small = tiny_encoder("bert", layers=2, vocab_size=len(other))
    save_student(small, other, tmp_path)
    read: list[PreTrainedTokenizerBase] = []
    for spec, options in ((str(tmp_path), {}), ("1", {"source": tmp_path}), ("1,", {"source": tmp_path})):
        student, tokenizer = make_student(
            spec,
            tiny_encoder(),
            tiny_tokenizer,
            labels=LABELS,
            embedding_rank=8,
            sample=lambda reader: read.append(reader) or [dict(reader(["a b"], return_tensors="pt"))],
            **options,
        )
        assert tokenizer.get_vocab() == other.get_vocab()
        assert student.base_model.embeddings.word_embeddings.weight.shape == (len(other), 8)
        assert read.pop() is tokenizer


def test_regression_students(tiny_encoder, tiny_tokenizer, tmp_path):
    teacher = tiny_encoder(labels=1)
    save_student(tiny_encoder(), tiny_tokenizer, tmp_path)
    for spec in ("1", "2x24", str(tmp_path)):
        student, _ = make_student(
            spec, teacher, tiny_tokenizer, labels=(), predictions=KINDS["regression"].predictions, birth="random"
        )
        assert student.config.problem_type == "regression"
        assert student.eval()(**BATCH).logits.shape == (2, 1)


def test_every_form_is_in_the_table(tmp_path):
    specs = {
        "3": "layer-count",
        "12": "layer-count",
        "1,3,5": "layer-list",
        "5,": "layer-list",
        "4x312": "shape",
        "4x312x12x1200": "shape",
        "bilstm": "bilstm",
        "bilstm:64": "bilstm",
        "bag": "bag",
        "bag:64": "bag",
        "chain:af": "chain",
        "chain:dacfc5d13x24": "chain",
        "mobilebert": "mobilebert",
        "mobilebert-teacher:6x128x256": "mobilebert",
        "mobilebert:6x128x64x2-layer_norm-gelu": "mobilebert",
        "google/mobilebert-uncased": "pretrained",
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


def test_only_a_folder_with_an_encoder_goes_before_a_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may lie in a folder that is called as its student is: `--student bag:64 --output bag`."""
    monkeypatch.chdir(tmp_path)
    specs = {"bag": "bag", "bag:64": "bag", "2x16": "shape", "bilstm": "bilstm", "3": "layer-count"}
    recipes = {spec: student_recipe(spec) for spec in specs}
    for spec in specs:
        (tmp_path / spec).mkdir()
    assert {spec: student_kind(spec) for spec in specs} == specs
    assert {spec: student_recipe(spec) for spec in specs} == recipes
    assert recipes["bag:64"]
    for spec in specs:
        (tmp_path / spec / "config.json").touch()
    assert {student_kind(spec) for spec in specs if spec != "3"} == {"pretrained"}
    assert student_kind("3") == "layer-count"
    assert student_recipe("bag") == {}


@pytest.mark.parametrize("spec", ["", "4 x 312", "3;5", "4x", "4x312x12", "-1", "1.5", "4y312", "./absent", ",1"])
def test_a_wrong_spec_is_told_the_four_forms(tiny_encoder, tiny_tokenizer, spec):
    with names(ConfigError, repr(spec), *(kind.example for kind in STUDENTS.values())):
        make_student(spec, tiny_encoder(), tiny_tokenizer, labels=LABELS)


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


@pytest.mark.parametrize(("keep", "layers"), [(3, 6), (4, 6), (5, 12), (4, 12), (1, 3)])
def test_uniform_mapping_teaches_each_kept_layer_by_the_one_it_came_from(keep: int, layers: int) -> None:
    assert uniform_mapping(keep, layers).pairs == tuple(enumerate(evenly_spaced(keep, layers)))
