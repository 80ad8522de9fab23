"""Factorised embeddings: BERT again at full rank, its truncation below that, and a student like any other."""

import pytest
import torch
from messages import names
from torch import Tensor, nn
from transformers import (
    AlbertForMaskedLM,
    AlbertForSequenceClassification,
    AlbertModel,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    pipeline,
)

from emdistill.commands.distill import distill
from emdistill.commands.evaluate import evaluate_model
from emdistill.errors import ConfigError
from emdistill.methods import METHODS
from emdistill.models import Teacher, capture, encoder_shape, fingerprint, save_student
from emdistill.models.masked_lm import word_logits
from emdistill.options import load_config
from emdistill.states import WORDS, EncoderShape
from emdistill.students import make_student
from emdistill.students.factorise import factorise_embeddings
from emdistill.tasks import kind_of_model
from emdistill.training.run_stages import Interrupted, StopOnRequest

LABELS = ("bad", "good")
BATCH = {
    "input_ids": torch.tensor([[2, 40, 41, 42, 3, 60, 61, 3], [2, 50, 3, 70, 3, 0, 0, 0]]),
    "attention_mask": torch.tensor([[1] * 8, [1] * 5 + [0] * 3]),
    "token_type_ids": torch.tensor([[0] * 5 + [1] * 3, [0] * 3 + [1] * 2 + [0] * 3]),
}
ALL_STATES = ("hidden", "embeddings", "attention", "queries", "keys", "values")


@pytest.fixture
def bert(tiny_encoder):
    """A BERT none of whose parameters is at its beginning: scales, shifts and biases are drawn, too."""
    model = tiny_encoder(layers=3, layer_norm_eps=1e-3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def tables_of(model) -> list[Tensor]:
    embeddings = model.base_model.embeddings
    parts = (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings)
    return [part.weight.detach().double() for part in parts]


def set_tables(model, tables: list[Tensor]) -> None:
    embeddings = model.base_model.embeddings
    parts = (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings)
    with torch.no_grad():
        for part, table in zip(parts, tables, strict=True):
            part.weight.copy_(table)


@torch.no_grad()
def states(model):
    return capture(model.eval(), BATCH, ALL_STATES)


@pytest.mark.parametrize("with_sample", [False, True])
def test_at_full_rank_the_student_is_bert(bert, with_sample):
    """Not approximately: all its states agree, although the LayerNorms' epsilon is large and the tables are centred."""
    before, random_state = fingerprint(bert), torch.get_rng_state()
    student = factorise_embeddings(bert, 32, [BATCH] if with_sample else [])
    assert torch.equal(torch.get_rng_state(), random_state)
    assert fingerprint(bert) == before
    assert type(student) is AlbertForSequenceClassification
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert encoder_shape(student) == encoder_shape(bert)
    found, expected = states(student), states(bert)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.embeddings, expected.embeddings, rtol=0, atol=1e-5)
    for name in ("hidden", "attention_scores", "queries", "keys", "values"):
        for ours, theirs in zip(getattr(found, name), getattr(expected, name), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_tables_of_a_low_rank_need_no_more_than_it(bert):
    """Centred tables of rank 5 fit into tables of width 6 without any loss, and not into narrower ones."""
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(5, 32, generator=generator)
    low = [torch.randn(len(table), 5, generator=generator) @ directions for table in tables_of(bert)]
    # A number that is added to a whole row is seen by no LayerNorm.
    set_tables(bert, [table + torch.randn(len(table), 1, generator=generator) for table in low])
    expected = states(bert).logits
    torch.testing.assert_close(states(factorise_embeddings(bert, 6)).logits, expected, rtol=0, atol=1e-5)
    assert (states(factorise_embeddings(bert, 5)).logits - expected).abs().max() > 1e-3


@pytest.mark.parametrize("rank", [2, 7, 16, 31])
def test_below_that_it_is_bert_with_truncated_tables(bert, rank):
    """The reference: numpy's singular value decomposition of the stacked tables, put back into the BERT itself."""
    student = factorise_embeddings(bert, rank)
    tables = tables_of(bert)
    sizes = [len(table) for table in tables]
    centred = torch.cat(tables) - torch.cat(tables).mean(dim=1, keepdim=True)
    left, values, right = torch.linalg.svd(centred, full_matrices=False)
    truncated = left[:, : rank - 1] * values[: rank - 1] @ right[: rank - 1]
    set_tables(bert, list(truncated.split(sizes)))
    found, expected = states(student), states(bert)
    torch.testing.assert_close(found.embeddings, expected.embeddings, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-4)
    assert [table.shape[1] for table in tables_of(student)] == [rank] * 3


def test_directions_follow_what_is_read(bert):
    """With a sample the tokens in it lose less than without; the rows are read at their own places and segments."""

    def error(student) -> float:
        real = BATCH["attention_mask"].bool()
        return float((states(student).embeddings - states(bert).embeddings)[real].square().mean())

    for rank in (6, 12):
        assert error(factorise_embeddings(bert, rank, [BATCH])) < 0.5 * error(factorise_embeddings(bert, rank))
    with_padding = {name: nn.functional.pad(values, (0, 20)) for name, values in BATCH.items()}
    with_padding["input_ids"][:, 8:] = 77
    again = factorise_embeddings(bert, 12, [with_padding])
    assert fingerprint(again) == fingerprint(factorise_embeddings(bert, 12, [BATCH]))
    segments = {**BATCH, "token_type_ids": 1 - BATCH["token_type_ids"]}
    assert fingerprint(factorise_embeddings(bert, 12, [segments])) != fingerprint(again)
    plain = {"input_ids": BATCH["input_ids"]}  # all tokens, all of the first segment
    whole = {name: torch.ones_like(values) if "mask" in name else 0 * values for name, values in BATCH.items()}
    explicit = factorise_embeddings(bert, 12, [{**whole, "input_ids": BATCH["input_ids"]}])
    assert fingerprint(factorise_embeddings(bert, 12, [plain])) == fingerprint(explicit)


def test_fresh_tables_give_states_of_the_usual_size(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder(layers=2)
    student, _ = make_student("2x24", teacher, tiny_tokenizer, labels=LABELS, birth="fresh", embedding_rank=6)
    embeddings = states(student).embeddings
    assert embeddings.mean(dim=-1).abs().max() < 1e-5
    assert embeddings.var(dim=-1, unbiased=False).mean().item() == pytest.approx(1, rel=0.01)
    other, _ = make_student("2x24", teacher, tiny_tokenizer, labels=LABELS, birth="fresh", embedding_rank=6, seed=1)
    assert fingerprint(other) != fingerprint(student)


@pytest.mark.parametrize("spec", ["2", "0,2", "2x24", "folder"])
@pytest.mark.parametrize("labels", [LABELS, ()])
def test_every_form_of_student(tiny_encoder, tiny_tokenizer, tmp_path, spec, labels):
    """It is the student of that form, factorised, and stock: saved, loaded and used by transformers alone."""
    teacher = tiny_encoder(layers=3, labels=len(labels) or 1)
    save_student(tiny_encoder(layers=1, width=16), tiny_tokenizer, tmp_path / "small")
    spec, calls = str(tmp_path / "small") if spec == "folder" else spec, []

    def sample(_=None):
        calls.append(1)
        return [{**BATCH, "labels": torch.tensor([0, 1])}]

    options = {
        "labels": labels,
        "predictions": kind_of_model(None, len(labels) or 1).predictions,
        "sample": sample,
        "seed": 3,
    }
    whole, _ = make_student(spec, teacher, tiny_tokenizer, **options)
    calls.clear()
    student, tokenizer = make_student(spec, teacher, tiny_tokenizer, embedding_rank=8, **options)
    assert len(calls) == 1
    assert fingerprint(student) == fingerprint(factorise_embeddings(whole, 8, sample()))
    assert encoder_shape(student) == encoder_shape(whole)
    assert student.config.id2label == whole.config.id2label
    assert student.config.problem_type == whole.config.problem_type
    save_student(student, tokenizer, tmp_path / "student")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    assert type(loaded) is AlbertForSequenceClassification
    text, pair = ["a good movie"], ["it was the book"]
    inputs = tiny_tokenizer(text, pair, return_tensors="pt")
    again = AutoTokenizer.from_pretrained(tmp_path / "student")(text, pair, return_tensors="pt")
    assert {name: values.tolist() for name, values in again.items()} == {
        name: values.tolist() for name, values in inputs.items()
    }
    assert torch.equal(loaded(**again).logits, student.eval()(**inputs).logits)
    assert pipeline("text-classification", model=str(tmp_path / "student"))("a movie")[0]["label"]


def test_the_published_small_student_becomes_half_as_large(tiny_encoder, tiny_tokenizer):
    teacher = tiny_encoder(layers=1, vocab_size=30522, max_position_embeddings=512)
    student, _ = make_student("4x312", teacher, tiny_tokenizer, labels=LABELS, birth="fresh", embedding_rank=64)
    tables = (30522 + 512 + 2) * (312 - 64)
    # The tables get narrower, the LayerNorm too; the matrix and its bias come in addition.
    assert sum(parameter.numel() for parameter in student.parameters()) == 14_350_874 - tables - 2 * 248 + 65 * 312
    assert encoder_shape(student) == EncoderShape(layers=4, width=312, heads=12)


def test_students_without_a_task(tiny_encoder, tiny_tokenizer, tmp_path):
    config = tiny_encoder(layers=3).config
    labels = torch.where(BATCH["input_ids"] > 40, BATCH["input_ids"], -100)
    words = AutoModelForMaskedLM.from_config(config).eval()
    student, _ = make_student("2", words, tiny_tokenizer, predictions=WORDS, embedding_rank=8, seed=1)
    assert type(student) is AlbertForMaskedLM
    assert student.predictions.decoder.weight is student.get_input_embeddings().weight
    assert torch.equal(student.predictions.bias, words.cls.predictions.bias)
    student.eval()
    captured = capture(student, {**BATCH, "labels": labels}, ("hidden",))
    torch.testing.assert_close(captured.logits, student(**BATCH).logits[labels != -100])
    torch.testing.assert_close(word_logits(student, captured.hidden[-1], labels != -100), captured.logits)
    again, _ = make_student("2", words, tiny_tokenizer, predictions=WORDS, embedding_rank=8, seed=1)
    other, _ = make_student("2", words, tiny_tokenizer, predictions=WORDS, embedding_rank=8, seed=2)
    assert fingerprint(again) == fingerprint(student) != fingerprint(other)

    for bare in (AutoModel.from_config(config), BertModel(config, add_pooling_layer=False)):
        student = factorise_embeddings(bare, 32)
        assert type(student) is AlbertModel
        assert (student.pooler is None) == (bare.pooler is None)
        torch.testing.assert_close(student.eval()(**BATCH)[0], bare.eval()(**BATCH)[0], rtol=0, atol=1e-4)
        save_student(student, tiny_tokenizer, tmp_path / "bare")
        reborn, _ = make_student(str(tmp_path / "bare"), tiny_encoder(), tiny_tokenizer, labels=LABELS)
        assert fingerprint(reborn.base_model.encoder) == fingerprint(student.encoder)


def test_what_cannot_be_factorised(tiny_encoder, tiny_tokenizer, bert):
    for rank in (-1, 0, 1, 33):
        with names(ConfigError, f"--embedding-rank {rank}", 2, 32, 8):
            make_student("2", bert, tiny_tokenizer, labels=LABELS, embedding_rank=rank)
    for family in ("roberta", "distilbert", "electra"):
        teacher = tiny_encoder(family)
        with names(ConfigError, "--embedding-rank 8", type(teacher).__name__, "bert"):
            make_student("1", teacher, tiny_tokenizer, labels=LABELS, embedding_rank=8)
    with names(ConfigError, "--embedding-rank 8", "AlbertForSequenceClassification"):
        factorise_embeddings(factorise_embeddings(bert, 8), 8)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "cross-view"])  # of a BiLSTM alone
def test_every_method_teaches_it(tiny_encoder, tiny_tokenizer, method):
    """What each stage asks for is captured, and its gradient reaches the narrow tables and what widens them."""
    teacher = Teacher(tiny_encoder(layers=3))
    student, _ = make_student("2", teacher.model, tiny_tokenizer, labels=LABELS, embedding_rank=8)
    batch = {**BATCH, "labels": torch.tensor([0, 1])}
    for stage in METHODS[method](encoder_shape(student), teacher.shape):
        objective = stage.objective
        asked = objective.needs, objective.student_layers
        total, _ = objective(capture(student.train(), batch, *asked), teacher(batch, objective.needs), batch)
        learned = [student.get_input_embeddings().weight, student.albert.encoder.embedding_hidden_mapping_in.weight]
        for gradient in torch.autograd.grad(total, learned):
            assert gradient.isfinite().all()
            assert gradient.any()


def test_a_run_learns_it_and_a_resumed_run_is_the_uninterrupted_one(
    tiny_encoder, tiny_tokenizer, tmp_path, monkeypatch
):
    teacher = tiny_encoder(layers=3, width=16, heads=2)
    teacher.config.id2label = dict(enumerate(LABELS))
    save_student(teacher, tiny_tokenizer, tmp_path / "teacher")
    texts = ["a good movie", "the bad book", "it is not very good", "a movie"]
    lines = ["text,label", *(f"{text} {number},{LABELS[number % 2]}" for number in range(8) for text in texts)]
    (tmp_path / "data.csv").write_text("\n".join(lines), encoding="utf-8")
    training = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "use_cpu": True, "disable_tqdm": True}
    options = {
        "teacher": str(tmp_path / "teacher"), "data": str(tmp_path / "data.csv"), "method": "bert-emd",
        "student": "2x8", "embedding_rank": 4, "select": "last", "check_teacher": False, "max_length": 16, "seed": 0,
        "baselines": "none", "training": training,
    }  # fmt: skip

    def run(name, **more):
        artifact = distill(load_config(**options, output=str(tmp_path / name), **more), quiet=True)
        return AutoModelForSequenceClassification.from_pretrained(artifact.folder / "student")

    whole = run("whole")
    assert type(whole) is AlbertForSequenceClassification
    assert whole.config.embedding_size == 4
    assert "accuracy" in evaluate_model(str(tmp_path / "whole" / "student"), options["data"])
    original = StopOnRequest.on_step_end

    def stop_at_2(self, args, state, control, **further):
        self.requested = self.requested or state.global_step == 2
        return original(self, args, state, control, **further)

    with monkeypatch.context() as patch:
        patch.setattr(StopOnRequest, "on_step_end", stop_at_2)
        with pytest.raises(Interrupted):
            run("parts")
    assert fingerprint(run("parts", resume=True)) == fingerprint(whole)
