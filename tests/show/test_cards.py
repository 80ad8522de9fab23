"""The cards: their front matter, their facts, and snippets that run; and the command that stands on them."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from messages import unnamed
from run_folders import HOSTILE, read_record, write_record, write_run_folder
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from emdistill.commands.distill import command as distill
from emdistill.config import as_command, config_dict
from emdistill.options import load_config, read_words
from emdistill.runs.distillation import Distillation, read_distillation
from emdistill.show.cards import student_card, text_card
from emdistill.tasks import KINDS

HOME = "/home/someone"
LABELS = ("not_equivalent", "equivalent")


def distillation(folder: Path, **changed: Any) -> Distillation:
    """A run whose record has these fields of its task and these options, and paths of somebody's machine."""
    config = {
        "output": f"{HOME}/mrpc-run", "teacher": f"{HOME}/teachers/mrpc-teacher/", "max_length": 16,
        "training": {"learning_rate": 5e-5, "data": f"{HOME}/glue/MRPC", "also": [f"{HOME}/x.csv", 3]},
    }  # fmt: skip
    write_run_folder(folder, task="mrpc", labels=LABELS, seed=17, config=config)
    record = read_record(folder)
    record["task"] |= {"description": "Do the two sentences say the same?", "pairs": True} | changed
    record["task"]["files"][0]["name"] = f"{HOME}/glue/train.csv"
    write_record(folder, record)
    return read_distillation(folder)


@pytest.fixture
def run(tmp_path: Path) -> Distillation:
    return distillation(tmp_path / "run")


def front_matter(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_front_matter_is_what_the_hub_reads(run: Distillation) -> None:
    card = student_card(run)
    assert card.startswith("---\n")
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["emdistill", "knowledge-distillation", "bert-emd"],
        "metrics": ["accuracy", "macro_f1"],
        "model-index": [
            {
                "name": "mrpc-run",
                "results": [
                    {
                        "task": {"type": "text-classification"},
                        "dataset": {"name": "mrpc", "type": "mrpc", "split": "dev"},
                        "metrics": [{"type": "accuracy", "value": 0.8}, {"type": "macro_f1", "value": 0.79}],
                    }
                ],
            }
        ],
    }
    assert ModelCard(card).data.eval_results[0].metric_value == 0.8


def test_every_fact_is_told(run: Distillation) -> None:
    card = student_card(run)
    for fact in (
        "# mrpc-run\n",
        "`mrpc`",
        "`not_equivalent`, `equivalent`",
        "`mrpc-teacher`",
        "L = 1·attention_scores + 10·hidden_states",
        "- Student: 3 layers × 384 (--student 3)\n",
        "- Seed: 17\n",
        "- Learning rate: 5e-05\n",
        "- Data: MRPC\n",
        "- Also: x.csv, 3\n",
        "| `train.csv` | 200 | `" + "a" * 64 + "` |",
        "| dev | accuracy | 0.9000 | 0.8000 |",
        run.record.selection,
        "- Versions: emdistill 0.1.0, torch 2.13.0, transformers 5.23.0\n",
        f"```sh\n{as_command('distill', run.record.config)}\n```",
        "accuracy on dev",
        "| student | 17.4 | 69.6 |",
        "16 tokens",
    ):
        assert fact in card, fact
    assert "someone" not in card
    assert "\n\n\n\n" not in card


def test_both_development_sets_are_told_apart(tmp_path: Path) -> None:
    distillation(tmp_path / "run", evaluation_rows={"dev": 10, "mismatched": 12}, held_out="a tenth of train")
    record = read_record(tmp_path / "run")
    for name, value in (("teacher", 0.85), ("student", 0.75)):
        record["scores"][name]["mismatched/accuracy"] = value
    write_record(tmp_path / "run", record)
    card = student_card(read_distillation(tmp_path / "run"))
    assert "| mismatched | accuracy | 0.8500 | 0.7500 |" in card
    assert "Held out: a tenth of train" in card
    results = front_matter(card)["model-index"][0]["results"]
    assert [result["dataset"]["split"] for result in results] == ["dev", "mismatched"]


def test_many_labels_are_cut_short(tmp_path: Path) -> None:
    card = student_card(distillation(tmp_path, labels=[f"intent-{k}" for k in range(77)]))
    assert not unnamed(card, 77, "`intent-11`", 65)
    assert "intent-12" not in card


def test_no_name_leaves_its_place(tmp_path: Path) -> None:
    labels = ["a`b", "x\n# y", *HOSTILE[:3]]
    card = student_card(distillation(tmp_path, name="``\n---", labels=labels, description="<b>\n# no"))
    assert "``a`b``, `x # y`" in card
    assert "(&lt;b&gt; # no)" in card
    assert not re.search(r"^# (y|no)", card, re.MULTILINE)
    assert front_matter(card)["model-index"][0]["results"][0]["dataset"]["name"] == "``\n---"


@pytest.mark.parametrize("family", ["bert", "bilstm", "bag", "chain"])
@pytest.mark.parametrize("make", [student_card, text_card])
def test_a_family_that_emdistill_brings_is_said_to_need_it(
    tmp_path: Path, family: str, make: Callable[[Distillation], str]
) -> None:
    run = distillation(tmp_path / "run")
    record = read_record(run.folder)
    record["student"]["family"] = family
    write_record(run.folder, record)
    card = make(read_distillation(run.folder))
    assert ("import emdistill.models" in card) == (family != "bert")
    assert ("plain transformers" in card) == (family == "bert")


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
def test_the_snippet_runs_as_it_stands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pairs: bool,
    link: str,
) -> None:
    labels = () if link == "identity" else ("no", "yes")
    save_student(tmp_path / "student", labels, bias=2.0 if link == "sigmoid" else 7.0)
    kind = next(name for name, kind in KINDS.items() if kind.link == link)
    card = student_card(distillation(tmp_path / "run", labels=labels, pairs=pairs, kind=kind))
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet[1], "snippet", "exec"), {})
    answers = [line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines()]
    each = 2 if link == "sigmoid" else 1  # every label has its own probability
    assert len(answers) == each * (1 if pairs else 2)
    for label, score in answers:
        assert label in (labels or ("LABEL_0",))
        if link == "identity":
            assert float(score) == 7.0  # a sigmoid would leave less than 1
        else:
            assert (0.5 if link == "softmax" else 0) <= float(score) <= 1
    if link == "sigmoid" and not pairs:
        assert sum(float(score) for _, score in answers[:2]) > 1.5  # a softmax would leave 1


def save_student(folder: Path, labels: tuple[str, ...], *, bias: float) -> None:
    """A tiny random model with this bias of its logits, which is the score of a regression."""
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
    torch.nn.init.constant_(model.classifier.bias, bias)
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
    places = {"teacher": f"{HOME}/teacher", "output": f"{HOME}/run", "data": f"{HOME}/wiki.txt.xz"}
    config = config_dict(load_config(**places, task="text", student="2", method="minilm"))
    loss = {"loss": 1.0, "values": 1.0}
    write_run_folder(tmp_path)
    record = read_record(tmp_path) | {
        "config": config,
        "task": None,
        "scores": {},
        "hashes": {"teacher": "ab" * 32, "wiki.txt.xz": "cd" * 32},
        "held_out_loss": {"before": loss, "after": loss},
    }
    write_record(tmp_path, json.loads(json.dumps(record)))
    card = text_card(read_distillation(tmp_path))
    assert front_matter(card) == {
        "library_name": "transformers",
        "tags": ["emdistill", "knowledge-distillation", "minilm"],
    }
    assert as_command("distill", config) in card
    assert "`wiki.txt.xz` (SHA-256 `" + "cd" * 32 + "`)" in card
    assert "| values | 1.0000 | 1.0000 |" in card
    assert HOME not in card
    for heading in ("Intended use", "How it was made", "Limits"):
        assert f"## {heading}\n" in card
    for block in re.findall(r"```sh\n(.*?)```", card, re.DOTALL):
        assert read_words(distill, shlex.split(block.replace("\\\n", " "))[2:], "distill")
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    monkeypatch.chdir(tmp_path)
    tiny_encoder("bert").base_model.save_pretrained("student")
    tiny_tokenizer.save_pretrained("student")
    names: dict[str, Any] = {}
    exec(compile(snippet[1], "snippet", "exec"), names)
    assert type(names["model"]).__name__ == "BertModel"
    assert names["tokenizer"]("good")["input_ids"] == tiny_tokenizer("good")["input_ids"]
