"""The search for a layer mapping as a whole: tiny teachers, two tasks, short distillations."""

import csv
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from messages import names, unnamed

import emdistill.commands.search_mapping as module
from emdistill.commands.distill import distill
from emdistill.commands.search_mapping import search_mapping
from emdistill.data.read import read_task_data
from emdistill.errors import ConfigError, DataError, Interrupted, OutputError
from emdistill.mapping import make_mapping
from emdistill.options import load_config
from emdistill.search.genes import gene_pairs
from emdistill.search.layer_mapping import SearchResult

FAST = {"learning_rate": 5e-3, "per_device_train_batch_size": 16}


def watch(patch: pytest.MonkeyPatch, stop_at: int = -1, *, train: bool = True) -> list[Any]:
    """(configuration, examples) of the distillations from here on; the one at `stop_at` is interrupted.

    Without `train` each is done in no time, its score told by the mapping's file.
    """
    done: list[Any] = []

    def spy(config, *, examples, **further):
        if len(done) == stop_at:
            done.append(None)
            raise Interrupted("stopped at step 1 of 2 of stage 'joint'")
        done.append((config, examples))
        if train:
            return distill(config, examples=examples, **further)
        digest = hashlib.sha256(Path(config.mapping).read_bytes()).digest()
        return SimpleNamespace(scores={"teacher": {}, "student": {"accuracy": digest[0] / 255}})

    patch.setattr(module, "distill", spy)
    return done


@pytest.fixture(scope="module")
def options(place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two tasks, reviews.csv and a copy of it under another name."""
    other = tmp_path_factory.mktemp("data") / "more.csv"
    shutil.copy(place.folder / "reviews.csv", other)
    return {
        "teacher": f"{place.folder}/teacher,{place.folder}/teacher",
        "data": f"{place.folder}/reviews.csv,{other}",
        "text": "body",
        "label": "stars",
        "student": "2",
        "method": "bert-emd",
        "rows": 32,
        "score_rows": 40,
        "population": 2,
        "evaluations": 3,
        "random_evaluations": 2,
        "training": FAST,
    }


@pytest.fixture(scope="module")
def searched(options, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult, list[Any]]:
    folder = tmp_path_factory.mktemp("searched") / "search"
    with pytest.MonkeyPatch.context() as patch:
        done = watch(patch)
        result = search_mapping(**options, output=str(folder))
    return folder, result, done


def test_the_folder_holds_the_mapping_the_record_and_the_trials(searched) -> None:
    folder, result, _ = searched
    assert {path.name for path in folder.iterdir()} == {
        "best.json",
        "search.json",
        "report.html",
        "plotly.min.js",
        "study",
        "trials",
    }
    best = make_mapping(str(folder / "best.json"), 2, 4)
    assert sorted(best.pairs) == gene_pairs(result.best.gene)
    about = json.loads((folder / "best.json").read_text(encoding="utf-8"))["about"]
    assert about["found_by"] == "emdistill search-mapping"
    record = json.loads((folder / "search.json").read_text(encoding="utf-8"))
    assert record["status"] == "finished"
    assert record["about"]["training"]["num_train_epochs"] == 1.0
    assert record["about"]["tasks"].keys() == {"reviews", "more"}
    assert record["about"]["tasks"]["more"]["metric"] == "accuracy"
    assert len(record["trials"]) == result.planned == 10
    assert record["trials"][0]["name"] == "uniform"
    for trial in record["trials"]:
        assert trial["scores"].keys() == {"reviews", "more"}
        kept = folder / "trials" / trial["gene"]
        assert {path.name for path in kept.iterdir()} == {"mapping.json", "reviews", "more"}
        assert [path.name for path in (kept / "more").iterdir()] == ["run.json"]
        run = json.loads((kept / "reviews" / "run.json").read_text(encoding="utf-8"))
        assert run["scores"]["student"]["accuracy"] == trial["scores"]["reviews"]
        assert run["config"]["mapping"] == str(kept / "mapping.json")
        assert run["rows"]["train"] == 32


def test_every_gene_has_the_same_rows_seed_and_cache_and_never_sees_dev(searched, options) -> None:
    folder, result, done = searched
    assert len(done) == 2 * len(result.fitness)
    assert len({config.mapping for config, _ in done}) == len(result.fitness)
    assert {(config.seed, config.teacher_cache, config.teacher_cache_folder) for config, _ in done} == {
        (42, "states", str(folder / "teacher_cache"))
    }
    for _, examples in done:
        first = done[0][1]
        assert examples.train["text"] == first.train["text"]
        assert examples.evaluation["scored"]["text"] == first.evaluation["scored"]["text"]
        assert examples.train["label"].count(0) == 16
        assert len(examples.evaluation["scored"]) == 40
    # The rows of the two parts are other rows: reviews.csv has each sentence as often as it has.
    whole = read_task_data(options["data"].split(",")[0], text="body", label="stars")
    small = done[0][1]
    for text in set(whole.train["text"]):
        drawn = list(small.train["text"]).count(text) + list(small.evaluation["scored"]["text"]).count(text)
        assert drawn <= list(whole.train["text"]).count(text)


def test_the_same_command_goes_on_and_a_finished_search_is_not_done_again(
    options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folder = tmp_path / "search"
    watch(monkeypatch, train=False)
    whole = search_mapping(**options, output=str(tmp_path / "whole"))
    watch(monkeypatch, stop_at=5, train=False)
    with pytest.raises(Interrupted):
        search_mapping(**options, output=str(folder))
    assert json.loads((folder / "search.json").read_text(encoding="utf-8"))["status"] == "searching"
    assert not (folder / "best.json").exists()
    done = watch(monkeypatch, train=False)
    result = search_mapping(**options, output=str(folder))
    assert len(done) == 2 * len(result.fitness) - 4  # two whole mappings were kept
    assert [(t.gene, t.fitness) for t in result.trials] == [(t.gene, t.fitness) for t in whole.trials]
    done.clear()
    assert search_mapping(**options, output=str(folder)) == result
    assert done == []
    with names(OutputError, folder, "rows", 32, 30):
        search_mapping(**options | {"rows": 30}, output=str(folder))

    printed = capsys.readouterr().out
    assert not unnamed(printed, "2-4", "uniform", "10 of 10")
    assert f"emdistill compare --methods bert-emd@{folder}/best.json,bert-emd@uniform" in printed


def test_overwrite_starts_anew_and_leaves_what_is_not_its_own(
    options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "search"
    watch(monkeypatch, train=False)
    search_mapping(**options, output=str(folder))
    (folder / "notes.txt").write_text("the user's own")
    few = {"evaluations": 1, "random_evaluations": 0, "rows": 16}
    with names(ConfigError, "--population", 2, 1):
        search_mapping(**options | few | {"population": 1}, output=str(folder), overwrite=True)
    assert (folder / "best.json").is_file()
    result = search_mapping(**options | few, output=str(folder), overwrite=True)
    assert len(result.trials) == 6
    assert (folder / "notes.txt").is_file()
    trials = {path.name for path in (folder / "trials").iterdir()}
    assert trials == {"-".join(map(str, gene)) for gene in result.fitness}


def test_the_mapping_found_is_what_distill_takes(searched, place, tmp_path: Path) -> None:
    folder, result, _ = searched
    artifact = distill(
        load_config(
            teacher=f"{place.folder}/teacher", data=f"{place.folder}/reviews.csv", text="body", label="stars",
            student="2", method="bert-emd", mapping=str(folder / "best.json"), output=str(tmp_path / "run"),
            baselines="none",
            training=FAST | {"max_steps": 2, "flow_steps": 1, "disable_tqdm": True},
        ),
        quiet=True,
    )  # fmt: skip
    flow = np.array(next(iter(artifact.flows()[-1].flows.values())))
    assert {(int(i), int(j)) for i, j in np.argwhere(flow > 0)} == set(gene_pairs(result.best.gene))


@pytest.mark.parametrize(
    ("wrong", "error", "named"),
    [
        ({"teacher": "a,b,c"}, ConfigError, ["--teacher 3", "--data 2"]),
        ({"task": "mrpc"}, ConfigError, ["--teacher 2", "--data 2", "--task 1"]),
        ({"teacher": "a,b,c,d", "data": "a,b,c,d"}, ConfigError, [4, 3]),
        ({"task": "text,text"}, ConfigError, ["--task text"]),
        ({"rows": 0}, ConfigError, ["--rows", 1]),
        ({"rows": 200}, ConfigError, ["reviews", 144]),
        ({"training": {"num_train_epochs": 2}}, ConfigError, ["--epochs"]),
        ({"method": "soft-targets"}, ConfigError, ["--method soft-targets"]),
        ({"head": "a,b,c"}, ConfigError, ["--teacher 2", "--head 3"]),
        ({"objective": {"bta": 1}}, ConfigError, ["'objective.bta'"]),
        ({"population": 1}, ConfigError, ["--population", 2, 1]),
        ({"text": "bdy"}, DataError, ["'bdy'", "'body'"]),
    ],
)
def test_what_cannot_be_searched_is_said_before_any_training(
    options, tmp_path: Path, monkeypatch, wrong: dict[str, Any], error: type[Exception], named: list[object]
) -> None:
    done = watch(monkeypatch)
    with names(error, *named):
        search_mapping(**options | wrong, output=str(tmp_path / "search"))
    assert done == []
    assert not (tmp_path / "search").exists()


def test_two_tasks_of_one_name_and_another_size_are_refused(options, place, tmp_path: Path) -> None:
    one = options["data"].split(",")[0]
    with names(ConfigError, "'reviews'"):
        search_mapping(**options | {"data": f"{one},{one}"}, output=str(tmp_path / "search"))
    teachers = f"{place.folder}/teacher,{place.folder}/run/student"
    with names(ConfigError, "reviews", "student 2", "teacher 4", "more", "teacher 2"):
        search_mapping(**options | {"teacher": teachers}, output=str(tmp_path / "search"))


def test_a_folder_that_holds_something_else_is_left_alone(options, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with names(OutputError, tmp_path):
        search_mapping(**options, output=str(tmp_path), overwrite=True)
    with names(OutputError, tmp_path / "mine.txt"):
        search_mapping(**options, output=str(tmp_path / "mine.txt"))


def test_a_run_that_is_read_is_not_replaced(options, place, tmp_path: Path) -> None:
    read = tmp_path / "trials" / "0-1" / "student"
    shutil.copytree(place.folder / "teacher", read)
    (tmp_path / "study").mkdir()
    with names(OutputError, read):
        search_mapping(**options | {"teacher": f"{read},{read}"}, output=str(tmp_path), overwrite=True)
    assert (read / "config.json").exists()


def test_scores_are_scored_by_the_first_metric_of_a_regression_too(
    place, tmp_path: Path, tiny_encoder, tokenizer_factory
) -> None:
    teacher = tmp_path / "teacher"
    tiny_encoder("bert", layers=3, width=24, heads=4, labels=1, seed=2).save_pretrained(teacher)
    tokenizer_factory().save_pretrained(teacher)
    with (tmp_path / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [[text, f"{index % 7 + 0.25}"] for index, (text, _) in enumerate(place.sentences(80))]
        csv.writer(file).writerows([["text", "label"], *rows])
    result = search_mapping(
        teacher=str(teacher), data=str(tmp_path / "scores.csv"), output=str(tmp_path / "search"), student="1",
        method="bert-emd", rows=16, score_rows=24, evaluations=1, random_evaluations=0, population=2,
        training={**FAST, "max_steps": 1}, check_teacher=False,
    )  # fmt: skip
    assert all(-1 <= fitness <= 1 for fitness in result.fitness.values())
    record = json.loads((tmp_path / "search" / "search.json").read_text(encoding="utf-8"))
    assert record["about"]["tasks"]["scores"]["metric"] == "pearson"
