"""The file of several tasks: what it says, and what is refused with its name."""

import json
from pathlib import Path
from typing import Any

import pytest
from messages import names

from emdistill.data.mixture_file import is_mixture, read_mixture
from emdistill.errors import ConfigError

TWO = [{"task": "rte", "data": "glue/RTE"}, {"name": "stars", "data": "reviews.csv", "text": "body", "weight": 2}]


def written(folder: Path, content: Any) -> Path:
    path = folder / "tasks.yaml"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_tasks_with_their_options(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").touch()
    mixture = read_mixture(written(tmp_path, {"temper": 0.5, "gate": True, "tasks": TWO}))
    assert (mixture.temper, mixture.gate, mixture.private) == (0.5, True, False)
    first, second = mixture.tasks
    assert (first.name, first.options) == ("rte", {"task": "rte", "data": "glue/RTE"})  # not beside the file: as it is
    assert (second.name, second.weight, second.text) == ("stars", 2, "body")
    assert second.data == str(tmp_path / "reviews.csv")


def test_each_of_several_files_may_stand_beside_the_file(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).touch()
    mixture = read_mixture(written(tmp_path, [TWO[0], {**TWO[1], "unlabelled": "a.txt, owner/texts,?.txt,?.csv"}]))
    places = [str(tmp_path / "a.txt"), "owner/texts", str(tmp_path / "?.txt"), "?.csv"]
    assert mixture.tasks[1].unlabelled == ",".join(places)
    assert mixture.tasks[1].places == ["reviews.csv", *places]


@pytest.mark.parametrize("name", ["a\0/*", "\ud83d/*", "a" * 70_000])
def test_a_name_that_no_file_can_have_stays_as_it_is(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, [TWO[0], {**TWO[1], "data": name}])
    assert read_mixture(path).tasks[1].data == name


def test_a_list_alone_is_a_mixture(tmp_path: Path) -> None:
    assert [task.name for task in read_mixture(written(tmp_path, TWO)).tasks] == ["rte", "stars"]
    assert is_mixture("tasks.yaml")
    assert not any(map(is_mixture, ("reviews.jsonl", "reviews.json", "owner/name")))


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ({"tasks": TWO, "tempr": 1}, ["tempr", "temper"]),
        ({"tasks": [*TWO, {"data": "x.csv", "tekst": "a"}]}, ["tasks.2.tekst", "text"]),
        ({"tasks": TWO, "temper": "warm"}, ["temper"]),
        ({"tasks": TWO, "temper": 2}, ["temper", 2]),
        ({"tasks": TWO[:1]}, [1]),
        ({"tasks": [TWO[0], TWO[0]]}, ["rte", "name"]),
        ({"tasks": [TWO[0], {"name": "a"}]}, ["a", "data"]),
        ({"tasks": [TWO[0], {"data": "a b.csv"}]}, ["'a b'", "name"]),
        ({"tasks": TWO, "orthogonality": 1}, ["orthogonality", "private"]),
        ({"tasks": TWO, "adversary": -1}, ["adversary"]),
        ({"tasks": [TWO[0], {**TWO[1], "weight": 0}]}, ["weights"]),
        ({"tasks": [TWO[0], {**TWO[1], "labelled_share": 2}]}, ["--labelled-share", "2.0", "stars"]),
        ({"rows": 3}, ["tasks"]),
        ("tasks: [", ["YAML"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, tokens: list[object]) -> None:
    path = written(tmp_path, content)
    with names(ConfigError, *tokens):
        read_mixture(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with names(ConfigError, tmp_path / "none.yaml"):
        read_mixture(tmp_path / "none.yaml")
