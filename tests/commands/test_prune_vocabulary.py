"""`prune-vocabulary`: a smaller model folder that scores and predicts as before, and nothing half done."""

import json
import lzma
import re
import shlex
from pathlib import Path

import pytest
import torch
from messages import unnamed
from transformers import BertConfig, BertForMaskedLM

from emdistill.cli import load, main
from emdistill.commands.evaluate import evaluate_model
from emdistill.commands.predict import predict_file
from emdistill.models import load_classifier, load_tokenizer
from emdistill.models.encoder import load_encoder
from emdistill.models.multi_task import MultiTaskModel, TaskOutputs, build_task_model
from emdistill.options import read_words
from emdistill.tasks import KINDS


def command(place, output: Path, *words: str, model: str = "run", data: str = "reviews.csv") -> list[str]:
    folders = [f"--model={place.folder / model}", f"--data={place.folder / data}", f"--output={output}"]
    return ["prune-vocabulary", *folders, *words]


def test_a_run_is_pruned_to_a_file_and_says_what_is_saved(place, tmp_path: Path, capsys) -> None:
    whole, pruned = place.folder / "run" / "student", tmp_path / "pruned"
    assert main(command(place, pruned)) == 0
    said = capsys.readouterr().out
    before, after = load_classifier(whole), load_classifier(pruned)
    tokens = before.config.vocab_size, after.config.vocab_size
    parameters = before.num_parameters(), after.num_parameters()
    assert tokens[1] == len(load_tokenizer(pruned)) < tokens[0]
    assert parameters[0] - parameters[1] == (tokens[0] - tokens[1]) * 24
    assert not unnamed(said, *tokens, *(f"{count:,}" for count in parameters), "reviews.csv 100 %", pruned)

    reviews = str(place.folder / "reviews.csv")
    assert evaluate_model(str(pruned), reviews) == evaluate_model(str(whole), reviews)
    for name, model in (("before", whole), ("after", pruned)):
        predict_file(str(model), reviews, str(tmp_path / f"{name}.jsonl"))
    assert (tmp_path / "before.jsonl").read_bytes() == (tmp_path / "after.jsonl").read_bytes()
    assert {path.name for path in pruned.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_the_card_is_the_students_own_with_a_command_that_parses(place, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned"
    assert main(command(place, pruned, "--min-count=2")) == 0
    card = (pruned / "README.md").read_text(encoding="utf-8")
    assert card.startswith((place.folder / "run" / "student" / "README.md").read_text(encoding="utf-8").rstrip())
    assert str(place.folder) not in card
    *_, block = re.findall(r"```sh\n(.*?)```", card, re.DOTALL)
    _, verb, *words = shlex.split(block.replace("\\\n", " "))
    values = read_words(load(verb), words, verb)
    assert values is not None
    given = {name: value for name, value in values.items() if value}
    assert given == {"model": "run", "data": "reviews.csv", "output": "pruned", "min_count": 2}


def test_of_a_task_dev_stays_unseen(place, tmp_path: Path, capsys) -> None:
    glue = tmp_path / "SST-2"
    glue.mkdir()
    (glue / "train.tsv").write_text("sentence\tlabel\nit was good\t1\nit was bad\t0\n", encoding="utf-8")
    (glue / "dev.tsv").write_text("sentence\tlabel\nthe movie was good\t1\nit was bad\t0\n", encoding="utf-8")
    words = [f"--data={glue}", "--task=sst2"]
    assert main(command(place, tmp_path / "pruned", *words, model="teacher")) == 0
    assert not unnamed(capsys.readouterr().out, "train 100 % of 6", "dev 71.4 % of 7")
    pieces = load_tokenizer(tmp_path / "pruned").tokenize("the movie was good")
    assert pieces == ["t", "##h", "##e", "m", "##o", "##v", "##i", "##e", "was", "good"]


def test_an_encoder_without_a_task_and_a_compressed_text(place, tmp_path: Path) -> None:
    with lzma.open(tmp_path / "corpus.txt.xz", "wt", encoding="utf-8") as file:
        file.write("the movie was good\n\nvery bad\n")
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig.from_pretrained(place.folder / "encoder")).save_pretrained(tmp_path / "masked")
    load_tokenizer(place.folder / "encoder").save_pretrained(tmp_path / "masked")
    words = [f"--model={tmp_path / 'masked'}", f"--data={tmp_path / 'corpus.txt.xz'}"]
    assert main(command(place, tmp_path / "pruned", *words)) == 0
    pruned = load_encoder(tmp_path / "pruned")
    assert type(pruned) is BertForMaskedLM
    assert {"movie", "very"} <= load_tokenizer(tmp_path / "pruned").get_vocab().keys()
    assert "book" not in load_tokenizer(tmp_path / "pruned").get_vocab()
    assert pruned.cls.predictions.decoder.weight is pruned.get_input_embeddings().weight


def test_the_words_of_a_tagger(place, tiny_encoder, tiny_tokenizer, tmp_path: Path) -> None:
    """In a file of lists, as `predict` takes them; one by one they are split as they are in a text."""
    kind = KINDS["tagging"]
    tagger = tiny_encoder(head=kind.head, labels=2, problem_type=kind.problem_type)
    for part in (tagger, tiny_tokenizer):
        part.save_pretrained(tmp_path / "tagger")
    file = tmp_path / "words.jsonl"
    file.write_text('{"tokens": ["the", "movie", "was", "good"]}\n{"tokens": ["very", "bad"]}\n', encoding="utf-8")
    words = [f"--model={tmp_path / 'tagger'}", f"--data={file}", "--text=tokens"]
    assert main(command(place, tmp_path / "pruned", *words)) == 0
    vocabulary = load_tokenizer(tmp_path / "pruned").get_vocab().keys()
    assert {"movie", "very"} <= vocabulary
    assert "book" not in vocabulary


def test_of_several_heads_one_is_named(place, tiny_encoder, tiny_tokenizer, tmp_path: Path, capsys) -> None:
    encoder = tiny_encoder()
    outputs = {
        "sure": TaskOutputs(("no", "yes"), "single_label_classification"),
        "stars": TaskOutputs((), "regression"),
    }
    heads = {name: build_task_model(type(encoder), encoder.config, each) for name, each in outputs.items()}
    for part in (MultiTaskModel(heads, outputs), tiny_tokenizer):
        part.save_pretrained(tmp_path / "several")
    words = [f"--model={tmp_path / 'several'}", "--text=body"]
    assert main(command(place, tmp_path / "pruned", *words)) == 2
    assert not unnamed(capsys.readouterr().err, "sure", "stars", "--head")
    assert main(command(place, tmp_path / "pruned", *words, "--head=stars")) == 0
    assert load_classifier(tmp_path / "pruned").config.problem_type == "regression"
    assert "--head stars" in (tmp_path / "pruned" / "README.md").read_text(encoding="utf-8")


def test_only_a_model_is_overwritten(place, tmp_path: Path, capsys) -> None:
    pruned = tmp_path / "pruned"
    assert main(command(place, pruned)) == 0
    (pruned / "vocab.txt").write_text("of an older model\n", encoding="utf-8")
    assert main(command(place, pruned)) == 2
    assert not unnamed(capsys.readouterr().err, pruned, "--output", "--overwrite")
    assert main(command(place, pruned, "--overwrite")) == 0
    assert not (pruned / "vocab.txt").exists()
    (pruned / "notes.txt").write_text("mine\n", encoding="utf-8")
    assert main(command(place, pruned, "--overwrite")) == 2
    assert not unnamed(capsys.readouterr().err, pruned, "'notes.txt'")
    assert (pruned / "notes.txt").is_file()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--min-count=0"], ["--min-count", "1", "0"]),
        (["--text=boddy"], ["'boddy'", "'body'"]),
        (["--data={place}/nix.csv"], ["{place}/nix.csv"]),
        (["--data={place}/SST-2"], ["{place}/SST-2", "--task sst2"]),
        (["--model={place}/nix"], ["{place}/nix"]),
        (["--output={place}/run/student"], ["{place}/run/student"]),
        (["--output={place}/new.csv"], ["{place}/new.csv", "--output"]),
        (["--nonsense=1"], ["'nonsense'"]),
    ],
)
def test_what_cannot_be_used_is_refused(place, tmp_path: Path, capsys, words: list[str], named: list[str]) -> None:
    words = [word.replace("{place}", str(place.folder)) for word in words]
    assert main(command(place, tmp_path / "pruned", *words)) == 2
    assert not unnamed(capsys.readouterr().err, *(name.replace("{place}", str(place.folder)) for name in named))
    assert not (tmp_path / "pruned").exists()
    assert json.loads((place.folder / "run" / "student" / "config.json").read_text())["model_type"] == "bert"
