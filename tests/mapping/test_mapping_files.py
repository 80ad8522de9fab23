"""Mapping files: what is written is read again; what is wrong is named with its file, place and mend."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from messages import names

from emdistill.errors import ConfigError, LayerCountError
from emdistill.mapping import MAPPINGS, EmdMapping, FixedMapping, make_mapping, read_mapping, write_mapping

EXAMPLE = '{"student_layers": 3, "teacher_layers": 6, "pairs": [[0, 1], [1, 3, 0.5], [2, 5]]}'
FLOW = torch.zeros(3, 6)
FLOW[0, 1] = FLOW[2, 5] = 1
FLOW[1, 3] = 0.5


def flow_of(mapping: FixedMapping) -> torch.Tensor:
    return mapping(torch.zeros(mapping.student_layers, mapping.teacher_layers))


@pytest.mark.parametrize("name", ["found.json", "found.yaml", "found.YML", "found"])
def test_json_and_yaml_read_alike(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(EXAMPLE, encoding="utf-8")
    mapping = read_mapping(path, 3, 6)
    assert torch.equal(flow_of(mapping), FLOW)
    assert mapping.pairs == ((0, 1), (1, 3), (2, 5))
    assert mapping.mass == 2.5


def test_yaml_as_one_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "# by hand\nstudent_layers: 3\nteacher_layers: 6\nabout: {by: me, on: 2024-01-01}\n"
        "pairs:\n  - [0, 1]\n  - [1, 3, 0.5]\n  - - 2\n    - 5\n",
        encoding="utf-8",
    )
    assert torch.equal(flow_of(read_mapping(path, 3, 6)), FLOW)


@pytest.mark.parametrize("name", ["found.json", "found.yaml", "found", "new/folder/found.yml"])
@pytest.mark.parametrize(
    "pairs", [[], [(0, 1), (1, 3, 0.5), (2, 5)], [(2, 0, 1e-5), (0, 5, 1e20), (0, 0, 0.1)]], ids=str
)
def test_what_is_written_is_read_again(tmp_path: Path, name: str, pairs: list[tuple[int, ...]]) -> None:
    path, about = tmp_path / name, {"found_by": "search – ü", "score": 0.5, "tasks": ["rte", {"mrpc": None}]}
    write_mapping(path, pairs, 3, 6, about=about)  # type: ignore[arg-type]
    expected = torch.zeros(3, 6)
    for i, j, *weight in pairs:
        expected[i, j] = weight[0] if weight else 1
    assert torch.equal(flow_of(read_mapping(path, 3, 6)), expected)
    text = path.read_text(encoding="utf-8")
    kept = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    assert kept["about"] == about
    assert list(kept) == ["student_layers", "teacher_layers", "pairs", "about"]


def test_a_written_file_reads_well(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_mapping(path, [(0, 1), (1, 3, 0.5), (2, 5, 1.0)], 3, 6)
    assert path.read_text(encoding="utf-8") == (
        '{\n  "student_layers": 3,\n  "teacher_layers": 6,\n  "pairs": [[0, 1], [1, 3, 0.5], [2, 5]]\n}\n'
    )


@pytest.mark.parametrize(
    ("text", "error", "named"),
    [
        ('{"student_layers": 3,', ConfigError, ["line 1 column 22"]),
        ("[1, 2]", ConfigError, ["student_layers, teacher_layers, pairs", "[1, 2]"]),
        ("null", ConfigError, ["nothing"]),
        ('{"student_layers": 3, "teacher_layers": 6}', ConfigError, ["'pairs'"]),
        ('{"teacher_layers": 6, "pairs": []}', ConfigError, ["'student_layers'"]),
        (EXAMPLE.replace("pairs", "pair"), ConfigError, ["'pair'", "'pairs'"]),
        (EXAMPLE.replace('"pairs"', '"note": "x", "pairs"'), ConfigError, ["'note'", "'about'"]),
        (EXAMPLE.replace('"pairs"', '"about": 3, "pairs"'), ConfigError, ["about", 3]),
        (EXAMPLE.replace("3,", "true,", 1), ConfigError, ["student_layers", "true"]),
        (EXAMPLE.replace("6", "0", 1), ConfigError, ["teacher_layers", 0]),
        (EXAMPLE.replace("6", "12", 1), LayerCountError, [3, 12, 6]),
        (EXAMPLE.replace("[2, 5]", "[2, 12]"), LayerCountError, ["pairs[2]", "[2, 12]", "teacher layer 12", "0..5"]),
        (EXAMPLE.replace("[2, 5]", "[-1, 5]"), LayerCountError, ["pairs[2]", "student layer -1", "0..2"]),
        (EXAMPLE.replace("[2, 5]", "[1, 3]"), ConfigError, ["pairs[2]", "student layer 1", "teacher layer 3"]),
        (EXAMPLE.replace("[2, 5]", "[2]"), ConfigError, ["pairs[2]", "[2]"]),
        (EXAMPLE.replace("[2, 5]", "[2, 5, 1, 1]"), ConfigError, ["pairs[2]", "[2, 5, 1, 1]"]),
        (EXAMPLE.replace("[2, 5]", "[2.0, 5]"), ConfigError, ["pairs[2]", "[2.0, 5]"]),
        (EXAMPLE.replace("[2, 5]", "[true, 5]"), ConfigError, ["pairs[2]", "[true, 5]"]),
        (EXAMPLE.replace("[2, 5]", "7"), ConfigError, ["pairs[2]", 7]),
        ('{"student_layers": 3, "teacher_layers": 6, "pairs": {"0": 1}}', ConfigError, ["pairs"]),
        (EXAMPLE.replace("0.5", "-0.5"), ConfigError, ["pairs[1]", "[1, 3, -0.5]", -0.5]),
        (EXAMPLE.replace("0.5", "NaN"), ConfigError, ["pairs[1]", "NaN"]),
        (EXAMPLE.replace("0.5", "Infinity"), ConfigError, ["pairs[1]", "Infinity"]),
        (EXAMPLE.replace("0.5", "1e300"), ConfigError, ["pairs[1]", "1e+300"]),
        (EXAMPLE.replace("0.5", "true"), ConfigError, ["pairs[1]", "true"]),
        (EXAMPLE.replace("0.5", "null"), ConfigError, ["pairs[1]", "nothing"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, error: type[Exception], named: list[object]) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text, encoding="utf-8")
    with names(error, path, *named):
        read_mapping(path, 3, 6)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("pairs: [[0, 1]\n", ["line 2"]),
        ("pairs: 2024-13-77\n", []),
        ("student_layers: 3\nteacher_layers: 6\npairs: [[0, 1, 1e-3]]", ["pairs[0]", "1e-3", 0.001]),
        ("student_layers: 3\nteacher_layers: 6\npairs: [[0, 1, .nan]]", ["pairs[0]", "NaN"]),
        ("student_layers: 3\nteacher_layers: 6\npairs:\n", ["pairs", "nothing"]),
        ("{? [1]: 2}", ["line 1"]),
        ("- 1", ["pairs"]),
        ("", ["nothing"]),
    ],
)
def test_what_is_wrong_in_yaml_is_named(tmp_path: Path, text: str, named: list[object]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with names(ConfigError, path, *named):
        read_mapping(path, 3, 6)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "gone.json", tmp_path / "binary.json", tmp_path):
        with names(ConfigError, path):
            read_mapping(path, 3, 6)


@pytest.mark.parametrize(
    ("pairs", "about", "error", "named"),
    [
        ([(0, 6)], None, LayerCountError, "teacher layer 6"),
        ([(0, 1), (0, 1, 0.5)], None, ConfigError, "pairs[1]"),
        ([(0, 1, -1.0)], None, ConfigError, -1.0),
        ([(0, 1)], {"found_by": object()}, ConfigError, "`about`"),
    ],
)
def test_nothing_wrong_is_written(tmp_path, pairs, about, error, named) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "found.json"
    with names(error, named):
        write_mapping(path, pairs, 3, 6, about=about)
    assert not path.exists()
    with names(ConfigError, "student_layers=0"):
        write_mapping(path, [], 0, 6)


def test_a_mapping_is_made_by_name_or_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_mapping("emd", 3, 6), EmdMapping)
    for name, build in MAPPINGS.items():
        assert repr(make_mapping(name, 3, 6)) == repr(build(3, 6))
    monkeypatch.chdir(tmp_path)
    for name in ("mine.json", "mine", "mine.txt"):
        Path(name).write_text(EXAMPLE, encoding="utf-8")
        mapping = make_mapping(name, 3, 6)
        assert isinstance(mapping, FixedMapping)
        assert torch.equal(flow_of(mapping), FLOW)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("sinkhorm", ["'sinkhorm'", ", ".join(MAPPINGS), "'sinkhorn'"]),
        ("folder", ["'folder'"]),
        ("", ["''"]),
        ("gone.yaml", ["gone.yaml"]),
    ],
)
def test_what_names_no_mapping_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, named: list[object]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with names(ConfigError, *named):
        make_mapping(name, 3, 6)


def test_every_mapping_says_what_it_is_in_a_line() -> None:
    lines = [(build.__doc__ or "").splitlines()[0] for build in MAPPINGS.values()]
    assert all(line.endswith(".") and 30 < len(line) <= 120 for line in lines)
    assert len(set(lines)) == len(MAPPINGS)
