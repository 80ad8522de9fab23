"""Latency and size of tiny random models."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from emdistill.artifact import latency
from emdistill.artifact.latency import compare_latency, measure_latency, model_size, parameter_count
from emdistill.errors import ConfigError, DataError

SENTENCES = ["a small student", "a", "a teacher teaches a student", "small"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "a", "small", "student", "teacher", "teaches"]
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")


def tiny_model(layers: int = 1) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=8,
            hidden_size=8,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
        )
    )


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, torch.Tensor]]:
    """Every forward pass that is timed: the model and its input ids; each lasts as many ms as it is in the list."""
    seen: list[tuple[object, torch.Tensor]] = []

    def time_forward(model: nn.Module, inputs: dict[str, torch.Tensor]) -> float:
        assert not any(module.training for module in model.modules())
        assert torch.is_inference_mode_enabled()
        seen.append((model, inputs["input_ids"]))
        return len(seen) / 1000

    monkeypatch.setattr(latency, "_time_forward", time_forward)
    return seen


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_is_timed_and_left_as_it_was(tokenizer: PreTrainedTokenizerFast, batch_size: int) -> None:
    model = tiny_model().train()
    model.bert.embeddings.eval()
    modes = [module.training for module in model.modules()]
    measured = measure_latency(model, tokenizer, SENTENCES, batch_size=batch_size, repeats=6, warm_up=1, max_length=8)
    assert 0 < measured.p50 <= measured.p95
    assert measured.batch_size == batch_size
    assert measured.threads == torch.get_num_threads()
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_is_restored_after_an_error_too(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model().train()
    with pytest.raises(RuntimeError, match="size"):
        measure_latency(model, tokenizer, ["a " * 40], repeats=1, warm_up=0, max_length=40)  # 16 positions at most
    assert all(module.training for module in model.modules())


def test_warm_up_is_not_counted_and_times_are_a_sentence(tokenizer: PreTrainedTokenizerFast, passes: list) -> None:
    measured = measure_latency(tiny_model(), tokenizer, SENTENCES, batch_size=2, repeats=3, warm_up=2)
    assert len(passes) == 5
    assert measured.p50 == pytest.approx(4 / 2)  # passes 3, 4, 5 count
    assert measured.p95 == pytest.approx((4 + 0.9) / 2)


def test_batches_go_round_the_sentences_and_are_always_full(tokenizer: PreTrainedTokenizerFast, passes: list) -> None:
    measure_latency(tiny_model(), tokenizer, SENTENCES[:3], batch_size=2, repeats=3, warm_up=0)
    assert [tuple(ids.shape) for _, ids in passes] == [(2, 3), (2, 5), (2, 3)]
    assert passes[1][1].tolist() == [[2, 5, 6, 2, 4], [2, 3, 4, 0, 0]]  # the third sentence, then the first again


def test_pairs_are_read_together(tokenizer: PreTrainedTokenizerFast, passes: list) -> None:
    measure_latency(tiny_model(), tokenizer, [("a small", "student")], repeats=1, warm_up=0)
    assert passes[0][1].tolist() == [[2, 3, 4]]


def test_models_take_turns_on_the_same_sentences(tokenizer: PreTrainedTokenizerFast, passes: list) -> None:
    models = {"teacher": tiny_model(2), "student": tiny_model(1)}
    measured = compare_latency(models, dict.fromkeys(models, tokenizer), SENTENCES, repeats=5, warm_up=1)
    assert list(measured) == ["teacher", "student"]
    assert [model for model, _ in passes] == [models["teacher"], models["student"]] * 6
    for (_, teacher_ids), (_, student_ids) in zip(passes[::2], passes[1::2], strict=True):
        torch.testing.assert_close(teacher_ids, student_ids)


def test_what_cannot_be_measured_is_said(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model()
    with pytest.raises(DataError, match="none were given"):
        measure_latency(model, tokenizer, [])
    with pytest.raises(ConfigError, match="batch_size is 0"):
        measure_latency(model, tokenizer, SENTENCES, batch_size=0)
    with pytest.raises(ConfigError, match="repeats is 0"):
        measure_latency(model, tokenizer, SENTENCES, repeats=0)
    with pytest.raises(ConfigError, match="no tokenizer was given for: student"):
        compare_latency({"student": model}, {}, SENTENCES)


def test_shared_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 2))
    assert parameter_count(model) == 9 + 9 + 8
    model[1].weight = model[0].weight
    assert parameter_count(model) == 9 + 8
    assert model_size(model) == 4 * (9 + 8)
    assert model_size(model.to(torch.bfloat16)) == 2 * (9 + 8)


def test_the_published_student_has_its_published_size() -> None:
    with torch.device("meta"):
        student = BertForSequenceClassification(
            BertConfig(
                num_hidden_layers=4, hidden_size=312, intermediate_size=1200, num_attention_heads=12, num_labels=2
            )
        )
    assert parameter_count(student) == 14_350_874
    assert model_size(student) == 4 * 14_350_874
