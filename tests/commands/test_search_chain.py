"""The search for chains as a whole: a tiny teacher, two blocks, three limits; stopped and gone on with."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from messages import names, unnamed
from pages import Page

import emdistill.commands._supernet as supernet
import emdistill.commands.search_chain as module
from emdistill.commands.search_chain import search_chain
from emdistill.errors import BusyError, ConfigError, Interrupted, ModelError, OutputError
from emdistill.models import fingerprint, load_classifier
from emdistill.models.size import parameter_count
from emdistill.runs.chain_search import ChainSearch
from emdistill.runs.record import read_run
from emdistill.runs.search_record import read_search
from emdistill.search.chains import ChainCost
from emdistill.show.chain_report import notes

COSTS = {"a": ChainCost(2448, 2.0), "f": ChainCost(2376, 1.0), "c3": ChainCost(744, 0.5)}


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are told: those of tiny models say nothing."""
    monkeypatch.setattr(module, "operator_costs", lambda *_, **__: (COSTS, ChainCost(5000, 1.0)))
    monkeypatch.setattr(module, "milliseconds", lambda models, **_: dict.fromkeys(models, 3.0))


@pytest.fixture
def options(place) -> dict[str, Any]:
    return {
        "teacher": f"{place.folder}/teacher", "data": f"{place.folder}/reviews.csv", "text": "body", "label": "stars",
        "operators": "afc", "limits": "any,0.0105M,5ms", "epochs": 3, "rounds": 3, "bins": 6, "judged": 20,
        "survivors": 3, "batch_size": 16, "learning_rate": 1e-3,
    }  # fmt: skip


def students(folder: Path) -> list[str]:
    return [fingerprint(load_classifier(place)) for place in sorted((folder / "students").iterdir())]


def test_students_of_several_sizes_keep_their_limits(options, tmp_path: Path, capsys: Any) -> None:
    record = search_chain(**options, output=str(tmp_path / "search"))
    assert list(record.returned) == ["any", "0.0105M", "5ms"]
    free, small, fast = (record.chains[word] for word in record.returned.values())
    assert small.cost.parameters <= 10_500
    assert fast.cost.milliseconds <= 5
    assert free.loss <= min(small.loss, fast.loss)
    for word in record.returned.values():
        student = load_classifier(tmp_path / "search" / "students" / word)
        assert "".join(student.config.operators) == word
        assert record.measured[word] == ChainCost(parameter_count(student), 3.0)
        assert 0 < (record.chains[word].found or 0) <= 1
    assert free.end_error < 1
    assert len(record.chains) > 3  # the best of each limit were run whole
    counts = [sum(done.survivors) for done in record.rounds]
    assert counts[0] == 2 * (3 + 9 + 27 + 81) > counts[1] > counts[2]
    assert read_search(tmp_path / "search", ChainSearch) == record
    page = Page(tmp_path / "search" / "report.html")
    assert record.verdict in " ".join(page.texts["p"])
    assert not unnamed(capsys.readouterr().out, f"chain:{free.word}", record.verdict, *notes(record))
    # Other limits take no training.
    again = search_chain(**options | {"limits": "any"}, output=str(tmp_path / "search"))
    assert again.chains[free.word] == free
    assert list(again.returned) == ["any"]


def test_students_are_distilled_where_a_method_is_named(options, tmp_path: Path) -> None:
    options |= {"limits": "any", "method": "soft-targets", "training": {"num_train_epochs": 1}}
    record = search_chain(**options, output=str(tmp_path / "search"))
    (word,) = record.returned.values()
    assert record.chains[word].distilled == record.chains[word].score is not None
    assert (tmp_path / "search" / "runs" / word / "student").is_dir()
    assert f"{record.chains[word].distilled:.4f}" in record.verdict
    assert search_chain(**options, output=str(tmp_path / "search")).chains == record.chains  # nothing is done again
    begun = read_search(tmp_path / "search", ChainSearch)
    assert begun is not None
    other = search_chain(**options | {"method": "hard-labels"}, output=str(tmp_path / "search"))
    assert read_run(tmp_path / "search" / "runs" / word).config["method"] == "hard-labels"
    assert other.rounds == begun.rounds  # the supernet has learned already
    with FileLock(tmp_path / "search" / ".lock"), names(BusyError, tmp_path / "search"):
        search_chain(**options, output=str(tmp_path / "search"))


def learned(search: ChainSearch) -> list[Any]:
    """The rounds without the checksums of their files, which hold the process's number."""
    return [(done.steps, done.losses, done.survivors) for done in search.rounds]


def test_a_search_that_was_stopped_ends_as_one_that_was_not(options, tmp_path: Path, monkeypatch, capsys) -> None:
    whole = search_chain(**options, output=str(tmp_path / "whole"))
    train = supernet.train

    def stop(*arguments: Any) -> Any:
        if arguments[-1].endswith("-1"):
            raise KeyboardInterrupt
        return train(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(supernet, "train", stop)
        with pytest.raises(Interrupted):
            search_chain(**options, output=str(tmp_path / "search"))
    stopped = read_search(tmp_path / "search", ChainSearch)
    assert stopped is not None
    assert learned(stopped) == learned(whole)[:1]
    with names(OutputError, "learning_rate"):
        search_chain(**options | {"learning_rate": 2e-3}, output=str(tmp_path / "search"))
    found = search_chain(**options, output=str(tmp_path / "search"))
    assert (found.returned, found.chains, learned(found)) == (whole.returned, whole.chains, learned(whole))
    assert students(tmp_path / "search") == students(tmp_path / "whole")
    (state,) = (tmp_path / "search").glob("supernet-*.pt")
    state.write_bytes(state.read_bytes()[:-1])
    again = search_chain(**options, output=str(tmp_path / "search"))
    assert (again.returned, learned(again)) == (whole.returned, learned(whole))
    assert not unnamed(capsys.readouterr().err, state)
    overwritten = search_chain(**options | {"seed": 1}, output=str(tmp_path / "search"), overwrite=True)
    assert len(overwritten.returned) == 3


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"operators": "afa"}, ("--operators afa",)),
        ({"operators": "ab"}, ("'ab'",)),
        ({"limits": "12"}, ("--limits 12",)),
        ({"limits": "0.001M"}, ("--limits 0.001M", "0.006488M")),
        ({"blocks": 5}, ("--blocks 5", 4)),
        ({"blocks": 0}, ("--blocks 0", 4)),
        ({"blocks": 1, "operators": "afc3c5c7d"}, ("--blocks 1", "--operators")),
        ({"limits": "5ms,,any"}, ("--limits",)),
        ({"rows": 0}, ("--rows",)),
        ({"rounds": 0}, ("--rounds",)),
        ({"training": {"num_train_epochs": 1}}, ("--training", "--method")),
        ({"teacher": "none"}, ("--teacher none",)),
    ],
)
def test_what_cannot_be_is_refused(options, tmp_path: Path, wrong: dict[str, Any], parts: Any) -> None:
    with names(ConfigError, *parts):
        search_chain(**options | wrong, output=str(tmp_path / "search"))
    assert not [*(tmp_path / "search").glob("supernet-*.pt")]


def test_what_stands_in_the_folder_stays(options, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with names(OutputError, str(tmp_path)):
        search_chain(**options, output=str(tmp_path), overwrite=True)


def test_a_student_that_is_read_is_not_replaced(options, place, tmp_path: Path) -> None:
    read = tmp_path / "students" / "fa"
    shutil.copytree(place.folder / "teacher", read)
    (tmp_path / "search.json").touch()
    with names(OutputError, read):
        search_chain(**options | {"teacher": str(read)}, output=str(tmp_path), overwrite=True)
    assert (read / "config.json").exists()


def test_an_encoder_of_other_layers_is_refused(options, tiny_encoder, tiny_tokenizer, tmp_path: Path) -> None:
    model = tiny_encoder("electra", labels=2)
    model.config.id2label, model.config.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    model.save_pretrained(tmp_path / "electra")
    tiny_tokenizer.save_pretrained(tmp_path / "electra")
    with names(ModelError, "'electra'", "roberta") as refused:
        search_chain(**options | {"teacher": str(tmp_path / "electra")}, output=str(tmp_path / "search"))
    assert "--student" not in str(refused.value)  # options that the verb does not have


@pytest.mark.parametrize("runtime", ["pytorch", "onnx"])
def test_costs_add_up_to_a_chain(tiny_encoder, tiny_tokenizer, runtime: Any, monkeypatch) -> None:
    import emdistill.ship.operators as operators
    from emdistill.students import make_student

    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    teacher = tiny_encoder(layers=2)

    def chain(word: str) -> Any:
        return make_student(f"chain:{word}", teacher, tiny_tokenizer, labels=("a", "b"))[0]

    monkeypatch.setattr(operators, "SECONDS", 0.0)
    names_of = ["c3"] if runtime == "onnx" else ["a", "f", "c3", "d9"]  # an export takes seconds
    table, outside = operators.operator_costs(chain, names_of, runtime=runtime, length=8, threads=1)
    whole = [*names_of, "c3"]
    total = outside.parameters + sum(table[name].parameters for name in whole)
    assert total == parameter_count(chain("".join(whole)))
    assert outside.milliseconds > 0
    assert torch.get_num_threads() == 1
