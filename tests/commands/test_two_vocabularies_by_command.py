"""A teacher that reads word pieces and a student that reads byte pairs, by the command line."""

from pathlib import Path

import pytest
import torch
from byte_pairs import byte_pair_tokenizer
from datasets import Dataset
from messages import unnamed
from run_folders import read_record
from transformers import AutoTokenizer

from emdistill.cli import main
from emdistill.models import load_classifier
from emdistill.runs.answers import PREDICTIONS, read_predictions
from emdistill.training.evaluate import predict_logits


@pytest.fixture(scope="module")
def small(tiny_encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa of 3 layers with a byte-pair vocabulary."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = byte_pair_tokenizer()
    tokenizer.save_pretrained(folder)
    model = tiny_encoder("roberta", layers=3, width=16, heads=2, vocab_size=len(tokenizer), type_vocab_size=1, seed=3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of sentences; the label is that of the second one."""
    rows = [["it is a bookshop", text, label] for text, label in place.sentences(80)]
    return place.write_csv(tmp_path_factory.mktemp("pairs") / "pairs.csv", rows, ("first", "second", "stars"))


def options(place, pairs: Path, folder: Path, *words: str) -> list[str]:
    data = [
        f"--data={pairs}",
        "--text=first",
        "--text-pair=second",
        "--label=stars",
        "--check-teacher=false",
        "--baselines=none",
    ]
    return ["distill", f"--teacher={place.folder}/teacher", *data, f"--output={folder}", *place.quiet, *words]


@pytest.mark.parametrize("whole", [True, False])
def test_a_pair_task_is_distilled_into_the_students_own_tokens(
    place, small: Path, pairs: Path, tmp_path: Path, whole: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    student = [f"--student={small}"] if whole else ["--student=2", f"--student-source={small}"]
    few = ["--training.num_train_epochs=1", "--training.per_device_train_batch_size=16", "--objective.heads=mean"]
    words = options(place, pairs, tmp_path / "run", *student, *few, "--teacher-cache=states", "--max-length=64")
    assert main(words) == 0
    assert not unnamed(capsys.readouterr().out, "tokens of their own")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    assert tokenizer.get_vocab() == byte_pair_tokenizer().get_vocab()
    model = load_classifier(tmp_path / "run" / "student")
    assert model.config.num_hidden_layers == (3 if whole else 2)
    (answers,) = read_predictions(tmp_path / "run" / PREDICTIONS).values()
    examples = {"text": list(answers.texts), "text_pair": list(answers.pairs)}
    logits = predict_logits(model, tokenizer, Dataset.from_dict(examples), max_length=64)
    torch.testing.assert_close(torch.tensor(logits), torch.tensor(answers.student), rtol=1e-4, atol=1e-4)
    assert not torch.equal(torch.tensor(answers.student), torch.tensor(answers.teacher))
    assert read_record(tmp_path / "run")["status"] == "finished"
    assert main(["evaluate", "--model", f"{tmp_path}/run/student", "--data", f"{pairs}"]) == 0
    capsys.readouterr()
    assert main([*words, "--resume"]) == 0
    assert not unnamed(capsys.readouterr().out, "finished already")


def test_raw_text_is_refused(place, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus.txt").write_text("\n\n".join(text for text, _ in place.sentences(40)))
    words = ["distill", "--task=text", f"--teacher={place.folder}/encoder", f"--data={tmp_path}/corpus.txt"]
    assert main([*words, f"--student={small}", f"--output={tmp_path}/run", "--max-length=16"]) == 2
    assert not unnamed(capsys.readouterr().err, "TokenizerError", "--task text")
    assert not (tmp_path / "run" / "run.json").exists()
