"""The verbs around distill by the command line: augment, compare and search-mapping, and what distill takes of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import unnamed
from run_folders import read_record as record

from emdistill.cli import main
from emdistill.mapping.files import read_mapping

SHORT = ("--training.disable_tqdm", "--training.learning_rate=5e-3", "--training.per_device_train_batch_size=16")


def of_the_place(place: Any) -> list[str]:
    files = [f"--teacher={place.folder}/teacher", f"--data={place.folder}/reviews.csv"]
    return [*files, "--text=body", "--label=stars"]


def test_augmented_sentences_are_learned_from(place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "more.jsonl"
    assert main(["augment", *of_the_place(place), "--copies=2", f"--output={file}"]) == 0
    for name, further in (("plain", []), ("more", [f"--augmented={file}"])):
        assert main(place.distill("--output", str(tmp_path / name), *further)) == 0
    plain, more = (record(tmp_path / name) for name in ("plain", "more"))
    assert more["rows"]["train"] > plain["rows"]["train"]
    assert more["rows"]["chosen on"] == plain["rows"]["chosen on"]
    assert "augmented" in more["hashes"]
    assert main(["augment", *of_the_place(place), "--copies=2", f"--output={file}"]) == 0
    assert not unnamed(capsys.readouterr().out, file)
    file.write_text(file.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    assert main(place.distill("--output", str(tmp_path / "cut"), f"--augmented={file}")) == 2
    assert not (tmp_path / "cut").exists()


def test_compare(place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "comparison"
    words = ["compare", "--methods=bert-emd@uniform,soft-targets", *of_the_place(place), "--student=2", *SHORT]
    words += ["--seeds=2", "--baseline=soft-targets", "--training.max_steps=2", f"--output={folder}"]
    words += ["--baselines=none"]
    assert main([*words, "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["methods"] == "bert-emd@uniform,soft-targets"
    given = {word[11:].partition("=")[0] for word in words if word.startswith("--training.")}
    assert printed["training"].keys() == given  # what is not given is each recipe's own
    assert printed["training"]["max_steps"] == 2
    assert not folder.exists()
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "baseline" in first
    assert {path.name for path in folder.glob("*.*")} >= {"report.html", "comparison.json", "comparison.md"}
    assert main(words) == 0
    assert capsys.readouterr().out.count("(there already)") == 4
    assert main([*words, "--seed=3"]) == 2
    assert main([*words, "--objective.beta=3"]) == 2


def test_search_mapping(place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "search"
    words = ["search-mapping", *of_the_place(place), "--student=2", "--method=tinybert", "--rows=32", "--score-rows=32"]
    words += ["--evaluations=1", "--random-evaluations=1", "--population=2", f"--output={folder}", *SHORT]
    words += ["--training.max_steps=1"]
    assert main([*words, "--objective.embeddings=0.5"]) == 0
    assert not unnamed(capsys.readouterr().out, folder / "best.json")
    best = read_mapping(folder / "best.json", 2, 4)
    assert best.taught_layers <= 2
    run = tmp_path / "run"
    words = ["--method=tinybert", f"--mapping={folder / 'best.json'}", "--output", str(run)]
    assert main(place.distill(*words)) == 0
    assert record(run)["hashes"].keys() >= {"teacher", "mapping"}


def test_a_mapping_by_name_and_where_there_is_none(place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(place.distill("--mapping=last", "--output", str(tmp_path / "last"))) == 0
    assert record(tmp_path / "last")["config"]["mapping"] == "last"
    refused = place.distill("--method=soft-targets", "--mapping=last", "--output", str(tmp_path / "none"))
    assert main(refused) == 2
    assert not unnamed(capsys.readouterr().err, "soft-targets", "--mapping last")
    assert not (tmp_path / "none").exists()
