import csv
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from messages import names, unnamed

from emdistill.data.glue import GLUE, recognise
from emdistill.data.read import find_task, read_task_data
from emdistill.errors import ConfigError, DataError
from emdistill.tasks import KINDS

REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "glue"

# what the official downloads look like: header, two rows of train
OFFICIAL = {
    "sst2": ("sentence\tlabel", 'a " fine film \t1', "dull \t0"),
    "cola": (None, "gj04\t1\t\tThey drank.", "gj04\t0\t*\tThem drank."),
    "mrpc": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", '1\t10\t11\t" Yes .\tYes .', "0\t12\t13\tNo .\tYes ."),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "0\t1\t2\tWhy?\tHow?\t0", "1\t3\t4\tWho?\tWho?\t1"),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tg\tf\ty\t1\tn\tn\tA plane.\tAn air plane.\t5.000",
        "1\tg\tf\ty\t4\tn\tn\tA man.\tA dog.\t0.250",
    ),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t1n\tfiction\t(\t(\t(\t(\tIt rains.\tIt is wet.\tneutral\tneutral",
        "1\t2\t2c\tfiction\t(\t(\t(\t(\tIt rains.\tIt is dry.\tcontradiction\tcontradiction",
    ),
    "qnli": ("index\tquestion\tsentence\tlabel", "0\tWhen?\tNever.\tentailment", "1\tWho?\tNo.\tnot_entailment"),
    "rte": ("index\tsentence1\tsentence2\tlabel", "0\ta\tb\tnot_entailment", "1\tc\td\tentailment"),
    "wnli": ("index\tsentence1\tsentence2\tlabel", "0\ta\tb\t1", "1\tc\td\t0"),
}
LABELS = {
    "sst2": [1, 0],
    "cola": [1, 0],
    "mrpc": [1, 0],
    "qqp": [0, 1],
    "stsb": [5.0, 0.25],
    "mnli": [1, 2],
    "qnli": [0, 1],
    "rte": [1, 0],
    "wnli": [1, 0],
}


def folder(parent: Path, name: str) -> Path:
    """A folder as downloaded, with a byte-order mark, Windows line ends, and no line end after the last row."""
    path = parent / GLUE[name].folder
    path.mkdir(parents=True)
    lines = [line for line in OFFICIAL[name] if line is not None]
    for file in ("train.tsv", *(file for _, file, _ in GLUE[name].evaluation)):
        (path / file).write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    return path


@pytest.mark.parametrize("name", GLUE)
def test_official_layouts_are_read_from_the_folder_and_its_parent(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, name)
    found = read_task_data(str(path), task=name)
    glue = GLUE[name]
    assert found.train["label"][:] == LABELS[name]
    header, *rows = OFFICIAL[name]
    columns = header.split("\t") if header else list(glue.header or ())
    assert found.train["text"][:] == [row.split("\t")[columns.index(glue.columns.text)] for row in rows]
    if glue.columns.text_pair:
        expected = [row.split("\t")[columns.index(glue.columns.text_pair)] for row in rows]
        assert found.train["text_pair"][:] == expected
    assert list(found.evaluation) == (["dev", "mismatched"] if name == "mnli" else ["dev"])
    assert found.held_out is None
    assert len(found.files) == 1 + len(glue.evaluation)
    by_parent = read_task_data(str(tmp_path), task=glue.folder.lower())
    assert by_parent.train.to_dict() == found.train.to_dict()


@pytest.mark.parametrize("name", GLUE)
def test_a_folder_of_another_task_is_recognised_and_refused(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, name)
    assert recognise(path / "train.tsv") is GLUE[name]
    for asked in set(GLUE) - {name}:
        with names(DataError, GLUE[name].folder, asked):
            read_task_data(str(path), task=asked)
    with names(ConfigError, GLUE[name].folder, f"--task {name}"):
        read_task_data(str(path))
    with names(ConfigError, GLUE[name].folder, "--task"):
        read_task_data(str(tmp_path))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with names(DataError, tmp_path, "train.tsv", "MRPC/train.tsv"):
        read_task_data(str(tmp_path), task="mrpc")
    (tmp_path / "train.tsv").write_text("text\tanswer\na\tb\n")
    with names(DataError, "train.tsv", "MRPC"):
        read_task_data(str(tmp_path), task="mrpc")
    with names(DataError, tmp_path / "train.tsv", f"--data {tmp_path}"):
        read_task_data(str(tmp_path / "train.tsv"), task="mrpc")
    with names(DataError, tmp_path / "absent"):
        read_task_data(str(tmp_path / "absent"), task="mrpc")


def test_torn_rows_are_left_out_of_qqp_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("qqp", "qnli"):
        train = folder(tmp_path, name) / "train.tsv"
        train.write_text(train.read_text() + "\r\n\tWhat is it?\t0\r\n")
    found = read_task_data(str(tmp_path), task="qqp")
    assert len(found.train) == 2
    assert not unnamed(caplog.text, 1)
    with names(DataError, tmp_path / "QNLI" / "train.tsv:4", 3, 4):
        read_task_data(str(tmp_path), task="qnli")


def test_unknown_label_words_and_scores_are_refused_by_line(tmp_path: Path) -> None:
    for name, row, *named in (
        ("rte", "2\te\tf\tentails", "'entails'", "'entailment'"),
        ("stsb", "2\tg\tf\ty\t1\tn\tn\tA\tB\thigh", "'high'"),
        ("mrpc", "2\t10\t11\tA\tB", "'2'"),
        ("sst2", " \t1", "'sentence'"),
    ):
        train = folder(tmp_path, name) / "train.tsv"
        train.write_text(train.read_text() + "\n" + row)
        with names(DataError, "train.tsv:4", *named):
            read_task_data(str(tmp_path), task=name)


def test_a_dev_file_of_the_same_layout_may_be_given(tmp_path: Path) -> None:
    path = folder(tmp_path, "mnli")
    found = read_task_data(str(path), task="mnli", dev=str(path / "dev_mismatched.tsv"))
    assert list(found.evaluation) == ["dev"]
    assert found.files[1].path == path / "dev_mismatched.tsv"


def test_task_names_are_forgiving_and_unknown_ones_get_the_nearest() -> None:
    for name, task in (("SST-2", "sst2"), ("sst_2", "sst2"), ("STS-B", "stsb")):
        form, found = find_task(name)
        assert (found, form.known(found)) == (task, GLUE[task].task)
    assert find_task("SQuAD")[1] == "squad"
    for name, nearest in (("mprc", "mrpc"), ("WNUT", "wnut17")):
        with names(ConfigError, repr(name), repr(nearest)):
            find_task(name)


@pytest.mark.parametrize("task", ["wnut17", "squad", "messages", "stsb"])
def test_a_kind_that_is_not_the_tasks_is_refused(task: str) -> None:
    with names(ConfigError, "--kind", "multi-label", task):
        read_task_data("nowhere", task=task, kind="multi-label")


def test_the_table_agrees_with_itself() -> None:
    for name, glue in GLUE.items():
        assert glue.task.name == name
        assert find_task(glue.folder)[1] == name
        assert set(glue.task.metrics) <= set(glue.task.kind.metrics)
        assert bool(glue.task.labels) == (glue.task.kind is KINDS["classification"])


# ------------------------------------------------------------------------------------------------------ the hub


def hub_split(name: str) -> Dataset:
    task = GLUE[name].task
    text, pair, label = task.text, task.text_pair, task.label
    labels = GLUE[name].task.labels
    columns = {text: ["a", "b"], "idx": [0, 1], label: [0, len(labels) - 1] if labels else [0.5, 4.0]}
    features = {text: Value("string"), "idx": Value("int32"), label: Value("float32")}
    if labels:
        features[label] = ClassLabel(names=list(labels))
    if pair:
        columns[pair], features[pair] = ["c", "d"], Value("string")
    return Dataset.from_dict(columns, features=Features(features))


@pytest.mark.parametrize("name", GLUE)
def test_the_hub_gives_the_same_tasks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked = []

    def load_dataset(*arguments: str) -> dict[str, Dataset]:
        asked.append(arguments)
        splits = ["train", *(split for _, _, split in GLUE[name].evaluation), "test"]
        return {split: hub_split(name) for split in splits}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    found = read_task_data("nyu-mll/glue", task=name)
    assert asked == [("nyu-mll/glue", name)]
    assert found.task is GLUE[name].task
    assert list(found.evaluation) == (["dev", "mismatched"] if name == "mnli" else ["dev"])
    assert found.train["text"][:] == ["a", "b"]
    assert found.train["label"][:] == [0, len(found.task.labels) - 1] if found.task.labels else [0.5, 4.0]


def test_a_download_has_a_folder_per_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    for part in ("train", "validation"):
        (tmp_path / "glue" / "rte").mkdir(parents=True, exist_ok=True)
        hub_split("rte").to_parquet(tmp_path / "glue" / "rte" / f"{part}-00000-of-00001.parquet")
    assert read_task_data("glue", task="rte").evaluation["dev"]["text"][:] == ["a", "b"]
    with names(DataError, "glue", "MRPC"):
        read_task_data("glue", task="mrpc")


# ------------------------------------------------------------------------------------------------ the real files


@pytest.mark.skipif(not REAL.is_dir(), reason="the GLUE files are not here")
@pytest.mark.parametrize(
    ("name", "train", "dev"),
    [
        ("SST-2", 67_349, 872),
        ("MRPC", 3_668, 408),
        ("RTE", 2_490, 277),
        ("CoLA", 8_551, 1_043),
        ("STS-B", 5_749, 1_500),
    ],
)
def test_the_real_files_are_read_whole(name: str, train: int, dev: int) -> None:
    found = read_task_data(str(REAL), task=name)
    assert (len(found.train), len(found.evaluation["dev"])) == (train, dev)
    for split, dataset in (("train", found.train), ("dev", found.evaluation["dev"])):
        with (REAL / name / f"{split}.tsv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        header = ["source", "label", "mark", "sentence"] if name == "CoLA" else rows.pop(0)
        assert dataset["text"][:] == [row[header.index(GLUE[found.task.name].columns.text)] for row in rows]
        labels = [row[header.index(GLUE[found.task.name].columns.label)] for row in rows]
        if name == "STS-B":
            assert dataset["label"][:] == [float(label) for label in labels]
        elif name == "RTE":
            assert dataset["label"][:] == [int(label == "not_entailment") for label in labels]
        else:
            assert dataset["label"][:] == [int(label) for label in labels]


def test_labels_may_all_be_the_same_where_they_are_only_scored(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nfine\t1\nbad\t0\n")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\ngood\t1\n")
    with names(DataError, "dev.tsv", "positive"):
        read_task_data(str(tmp_path), task="sst2")
    assert read_task_data(str(tmp_path), task="sst2", evaluating=True).evaluation["dev"]["label"][:] == [1]
