"""The model card: its front matter, its facts, and a snippet that runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from emdistill.commands.distill import command as distill
from emdistill.config import as_command, config_dict
from emdistill.options import load_config, read_words
from emdistill.show.general_card import write_general_student
from emdistill.show.model_card import CardFacts, DataFacts, model_card

FACTS = CardFacts(
    name="/home/someone/mrpc-run",
    task="mrpc",
    description="Do the two sentences say the same?",
    kind="classification",
    labels=("not_equivalent", "equivalent"),
    pairs=True,
    student="3 layers × 384, from teacher layers 1, 3, 5",
    teacher="/home/someone/teachers/mrpc-teacher/",
    method="bert-emd",
    equation="L = 30 · (hidden_states + attention_scores) + soft_targets",
    seed=17,
    settings={"learning_rate": 5e-5, "data": "/home/someone/glue/MRPC", "also": [Path("/home/someone/x.csv"), 3]},
    data=(DataFacts("/home/someone/glue/MRPC/msr_paraphrase_train.txt", 3668, "ab" * 32), DataFacts("dev", 408)),
    held_out="a tenth of train, stratified by label",
    teacher_scores={"dev": {"accuracy": 0.8627, "f1": 0.9}},
    student_scores={"dev": {"accuracy": 0.8456, "f1": 0.89}, "held out": {"accuracy": 0.85}},
    checkpoint="the best of 12 evaluations by accuracy on the held-out part of train",
    max_length=16,
    versions={"torch": "2.13.0"},
    command="emdistill distill --teacher mrpc-teacher",
)


def front_matter(card: str) -> dict[str, object]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_front_matter_is_what_the_hub_reads() -> None:
    card = model_card(FACTS)
    assert card.startswith("---\n")
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["emdistill", "knowledge-distillation", "bert-emd"],
        "metrics": ["accuracy", "f1"],
    }


def test_every_fact_is_told() -> None:
    card = model_card(FACTS)
    for fact in (
        "# mrpc-run\n",
        "`mrpc`",
        "Do the two sentences say the same?",
        "`not_equivalent`, `equivalent`",
        "`mrpc-teacher`",
        FACTS.equation,
        FACTS.student,
        "- Seed: 17\n",
        "- Learning rate: 5e-05\n",
        "- Data: MRPC\n",
        "- Also: x.csv, 3\n",
        "| `msr_paraphrase_train.txt` | 3,668 | `" + "ab" * 32 + "` |",
        "| `dev` | 408 | – |",
        "Held out: a tenth of train, stratified by label",
        "| dev | accuracy | 0.8627 | 0.8456 |",
        "| held out | accuracy | – | 0.8500 |",
        FACTS.checkpoint,
        "torch 2.13.0",
        "```sh\nemdistill distill --teacher mrpc-teacher\n```",
        "It labels pairs of sentences of the kind it was trained on",
        "The metric that counts is accuracy on dev.",
        "first 16 tokens",
    ):
        assert fact in card, fact


def test_no_path_of_the_machine_is_told() -> None:
    assert "someone" not in model_card(FACTS)


def test_sizes_are_told_where_they_were_measured() -> None:
    assert "## Size" not in model_card(FACTS)
    measured = replace(
        FACTS,
        teacher_parameters=22_713_216,
        student_parameters=17_389_824,
        student_size=69_559_296,
    )
    assert "| student | 17.4 | 69.6 | – | – |" in model_card(measured)


def test_many_labels_are_cut_short() -> None:
    card = model_card(replace(FACTS, labels=[f"intent-{k}" for k in range(77)]))
    assert "one of 77 labels" in card
    assert "`intent-11` and 65 more" in card
    assert "intent-12" not in card


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("labels", [("no", "yes"), ()])
def test_the_snippet_runs_as_it_stands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pairs: bool,
    labels: tuple[str, ...],
) -> None:
    kind = "classification" if labels else "regression"
    save_student(tmp_path / "student", labels)
    card = model_card(replace(FACTS, kind=kind, labels=labels, pairs=pairs))
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet[1], "snippet", "exec"), {})
    answers = [line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == (1 if pairs else 2)
    for label, score in answers:
        assert label in (labels or ("LABEL_0",))
        assert 0.5 <= float(score) <= 1 if labels else float(score) == 7.0  # a sigmoid would leave less than 1


def save_student(folder: Path, labels: tuple[str, ...]) -> None:
    """A tiny random model, whose score in a regression is 7."""
    config = BertConfig(
        vocab_size=6,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        id2label=dict(enumerate(labels)) or {0: "LABEL_0"},
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    if not labels:
        torch.nn.init.zeros_(model.classifier.weight)
        torch.nn.init.constant_(model.classifier.bias, 7.0)
    words = ["[PAD]", "[UNK]", "A", "sentence", ".", "Its"]
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_the_general_students_card_has_its_command_and_how_to_load_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_encoder: Callable[..., PreTrainedModel],
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    home = "/home/someone"
    places = {"teacher": f"{home}/teacher", "output": f"{home}/run", "data": f"{home}/wiki.txt.xz"}
    config = load_config(**places, task="text", student="2", method="minilm")
    loss = {"loss": 1.0, "values": 1.0}
    run = {
        "config": config_dict(config),
        "seed": 42,
        "versions": {"emdistill": "0.1", "torch": "2", "transformers": "5"},
        "hashes": {"teacher": "ab" * 32, "wiki.txt.xz": "cd" * 32},
        "rows": {"train": 100, "held out": 2},
        "objective": {"joint": "L = relations"},
        "teacher": {"parameters": 20},
        "student": {"parameters": 10, "shape": {"layers": 2, "width": 32}},
        "held_out_loss": {"before": loss, "after": loss},
    }
    write_general_student(tmp_path, tiny_encoder("bert").base_model, tiny_tokenizer, run)
    card = (tmp_path / "student" / "README.md").read_text(encoding="utf-8")
    assert as_command("distill", run["config"]) in card
    assert home not in card
    for heading in ("Intended use", "How it was made", "Limits"):
        assert f"## {heading}\n" in card
    for block in re.findall(r"```sh\n(.*?)```", card, re.DOTALL):
        assert read_words(distill, shlex.split(block.replace("\\\n", " "))[2:], "distill")
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(snippet[1], "snippet", "exec"), names)
    assert type(names["model"]).__name__ == "BertModel"
    assert names["tokenizer"]("good")["input_ids"] == tiny_tokenizer("good")["input_ids"]
