"""Calls timed in turns, models timed on sentences, and the size of tiny random models."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from messages import names
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from emdistill.errors import ConfigError, DataError
from emdistill.models.size import model_size, parameter_count
from emdistill.ship import latency
from emdistill.ship.latency import compare_latency, summarise, time_in_turns, torch_threads

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


class Clock:
    """A clock that only the timed calls move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.seen: list[tuple[str, int]] = []
        monkeypatch.setattr(latency, "perf_counter", lambda: self.now)

    def lasting(self, name: str, seconds: float) -> Callable[[int], None]:
        def call(index: int) -> None:
            self.seen.append((name, index))
            self.now += seconds

        return call

    @property
    def order(self) -> str:
        return "".join(name for name, _ in self.seen)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_contenders_take_turns_in_rotating_order_and_warm_up_is_untimed(clock: Clock) -> None:
    contenders = {"a": clock.lasting("a", 1.0), "b": clock.lasting("b", 2.0)}
    times = time_in_turns(contenders, rounds=3, calls=2, warm_up=1, seconds=float("inf"))
    assert clock.order == "aaabbb" + "bbbaaa" + "aaabbb"
    assert times == {"a": [1.0] * 6, "b": [2.0] * 6}
    assert [index for name, index in clock.seen if name == "a"] == [0, 0, 1, 2, 2, 3, 4, 4, 5]


def test_slow_contenders_are_timed_less_often_but_three_times(clock: Clock) -> None:
    contenders = {"slow": clock.lasting("s", 10.0), "fast": clock.lasting("f", 0.01)}
    times = time_in_turns(contenders, rounds=5, calls=4, warm_up=1, seconds=1.0)
    assert len(times["slow"]) == 3
    assert len(times["fast"]) == 20
    assert clock.order.startswith("ss" + "fffff" + "fffff" + "ss" + "ss")  # a turn of the slow one is one timed call


def test_a_turn_ends_when_its_share_of_the_time_is_spent(clock: Clock) -> None:
    times = time_in_turns({"a": clock.lasting("a", 0.25)}, rounds=2, calls=10, warm_up=0, seconds=2.0)
    assert len(times["a"]) == 8
    assert time_in_turns({}) == {}


def test_percentiles_and_throughput() -> None:
    seconds = list(np.random.default_rng(0).exponential(size=37))
    found = summarise(seconds, batch_size=4)
    ordered = sorted(seconds)
    assert found.p50 == pytest.approx(1000 * ordered[18])
    assert found.p95 == pytest.approx(1000 * (0.8 * ordered[34] + 0.2 * ordered[35]))  # place 0.95 · 36 = 34.2
    assert found.p99 == pytest.approx(1000 * (0.36 * ordered[35] + 0.64 * ordered[36]))
    assert found.throughput == pytest.approx(4 / ordered[18])
    assert found.calls == 37


def test_threads_are_set_and_restored_after_an_error_too() -> None:
    before = torch.get_num_threads()

    def inside() -> None:
        with torch_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        inside()
    assert torch.get_num_threads() == before


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, torch.Tensor]]:
    """Every forward pass that is timed: the model and its input ids."""
    seen: list[tuple[object, torch.Tensor]] = []

    def forward(model: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
        assert not any(module.training for module in model.modules())
        assert torch.is_inference_mode_enabled()
        seen.append((model, inputs["input_ids"]))

    monkeypatch.setattr(latency, "forward", forward)
    return seen


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_is_timed_and_left_as_it_was(tokenizer: PreTrainedTokenizerFast, batch_size: int) -> None:
    model = tiny_model().train()
    model.bert.embeddings.eval()
    modes = [module.training for module in model.modules()]
    (measured,) = compare_latency(
        {"model": model}, {"model": tokenizer}, SENTENCES, batch_size=batch_size, repeats=6, warm_up=1, max_length=8
    ).values()
    assert 0 < measured.p50 <= measured.p95 <= measured.p99
    assert measured.throughput == pytest.approx(1000 * batch_size / measured.p50)
    assert measured.calls == 6
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_is_restored_after_an_error_too(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model().train()
    with pytest.raises(RuntimeError):  # 16 positions at most
        compare_latency({"model": model}, {"model": tokenizer}, ["a " * 40], repeats=1, warm_up=0, max_length=40)
    assert all(module.training for module in model.modules())


def test_batches_go_round_the_sentences_and_are_always_full(tokenizer: PreTrainedTokenizerFast, passes: list) -> None:
    compare_latency({"m": tiny_model()}, {"m": tokenizer}, SENTENCES[:3], batch_size=2, repeats=3, warm_up=0)
    assert [tuple(ids.shape) for _, ids in passes] == [(2, 3), (2, 5), (2, 3)]
    assert passes[1][1].tolist() == [[2, 5, 6, 2, 4], [2, 3, 4, 0, 0]]  # the third sentence, then the first again


def test_pairs_are_read_together(tokenizer: PreTrainedTokenizerFast, passes: list) -> None:
    compare_latency({"m": tiny_model()}, {"m": tokenizer}, [("a small", "student")], repeats=1, warm_up=0)
    assert passes[0][1].tolist() == [[2, 3, 4]]


def test_models_take_turns_on_the_same_sentences(tokenizer: PreTrainedTokenizerFast, passes: list) -> None:
    models = {"teacher": tiny_model(2), "student": tiny_model(1)}
    measured = compare_latency(models, dict.fromkeys(models, tokenizer), SENTENCES, repeats=6, warm_up=2)
    assert list(measured) == ["teacher", "student"]
    for name, model in models.items():
        assert measured[name].calls == 6
        ids = [seen.tolist() for which, seen in passes if which is model]
        assert len(ids) == 8
        assert ids[2:] == [ids[2], ids[3], ids[4], ids[5], ids[2], ids[3]]  # round the four sentences
    rounds = [{id(model) for model, _ in passes[start : start + 2]} for start in range(0, 16, 2)]
    assert all(len(both) == 2 for both in rounds)


def test_what_cannot_be_measured_is_said(tokenizer: PreTrainedTokenizerFast) -> None:
    models, tokenizers = {"student": tiny_model()}, {"student": tokenizer}
    with pytest.raises(DataError):
        compare_latency(models, tokenizers, [])
    with names(ConfigError, "batch_size", 0):
        compare_latency(models, tokenizers, SENTENCES, batch_size=0)
    with names(ConfigError, "repeats", 0):
        compare_latency(models, tokenizers, SENTENCES, repeats=0)
    with names(ConfigError, "student"):
        compare_latency(models, {}, SENTENCES)


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
