"""The README and docs/ tell the truth: commands parse, Python runs, links lead somewhere, the tree is the folder."""

import ast
import csv
import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from emdistill import cli
from emdistill.config import SECTIONS
from emdistill.data.glue import GLUE
from emdistill.methods import METHODS, load_method
from emdistill.options import known_options, load_config, option_parser, read_words, target_of
from emdistill.runs.flows import FlowRecord, append_flows, read_flows
from emdistill.states import EncoderShape

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"# ([\w.]+\.(?:py|yaml))\n")


class Block(NamedTuple):
    """A fenced block: the page it stands in, its language, its text."""

    page: str
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    found = [Block(page.relative_to(ROOT).as_posix(), *match) for page in PAGES for match in FENCE.findall(read(page))]
    return [block for block in found if block.language == language]


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) of every `emdistill …` line, in sh blocks and in running text."""
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.startswith("emdistill "):
                yield block.page, re.sub(r" +", " ", line)
    for page in PAGES:
        for inline in inline_code(page):
            if re.match(r"emdistill [\w-]+ (--|[A-Z])", inline):
                yield page.relative_to(ROOT).as_posix(), inline


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`]+)`", FENCE.sub("", read(page)))


def named(blocks: list[Block]) -> dict[str, str]:
    """File name -> text of the blocks that begin with a comment of their file's name."""
    return {match[1]: block.text for block in blocks if (match := NAMED_FILE.match(block.text))}


def python_with(words: str) -> str:
    """The one Python block that holds these words."""
    (block,) = [block for block in blocks("python") if words in block.text]
    return block.text


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the files that the pages show."""
    for name, text in named(blocks("python") + blocks("yaml")).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize(("page", "command"), list(dict.fromkeys(commands())))
def test_command_parses(page: str, command: str, in_folder: Path) -> None:
    _, verb, *words = shlex.split(command)
    if verb != "--help":
        assert cli.COMMANDS[verb]
        read_words(cli.load(verb), words, verb)


def test_pages_show_every_verb() -> None:
    shown = {command.split()[1] for _, command in commands()}
    assert shown >= set(cli.COMMANDS) - {"demo"}  # make demo runs it


def test_named_benchmarks_are_there_with_their_options() -> None:
    for page in PAGES:
        for script, options in re.findall(r"`python benchmarks/(\w+\.py)([^`]*)`", read(page)):
            source = read(ROOT / "benchmarks" / script) + read(ROOT / "benchmarks" / "measure.py")
            for name in re.findall(r"--(\w+)", options):
                assert re.search(rf"--{name}|\b{name}=", source), f"{page.name}: {script} has no option --{name}"


@cache
def all_options() -> frozenset[str]:
    """Of every verb and every method."""
    options = {*SECTIONS, "config", "print_config", "help"}
    for verb in cli.COMMANDS:
        target = target_of(cli.load(verb))
        options |= {*known_options(option_parser(target)), *inspect.signature(target).parameters}
    for method in METHODS.values():
        options |= {f"objective.{name}" for name in inspect.signature(method).parameters}
    return frozenset(options)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_options_and_verbs_are_there(page: Path) -> None:
    for code in inline_code(page):
        if code.startswith(("tensorboard", "python benchmarks/")):
            continue
        for name in re.findall(r"--([a-z][a-z0-9_.-]*)", code):
            assert name.rstrip(".").replace("-", "_") in all_options(), f"{page.name}: there is no option --{name}"
        for verb in re.findall(r"\bemdistill ([\w-]+)", code):
            assert verb in cli.COMMANDS, f"{page.name}: there is no command {verb}"


def test_shown_options_reach_the_configuration(in_folder: Path) -> None:
    config = load_config(config="options.yaml", output="run/", objective={"layer_ratio": 2.0})
    assert (config.text, config.label, config.student) == ("body", "stars", "3")
    assert config.objective["layer_ratio"] == 2.0
    assert config.training["num_train_epochs"] == 5


# -------------------------------------------------------------------------------------------------------- Python


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.page)
def test_python_compiles_and_imports_resolve(block: Block) -> None:
    compile(block.text, block.page, "exec")
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("emdistill"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block.page}: {node.module} has no {alias.name}"


def test_parts_in_the_readme_run() -> None:
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(2, 5, 8, generator=generator, requires_grad=True) for _ in range(3)]
    names: dict[str, Any] = {
        "student_layers": student,
        "teacher_layers": [torch.randn(2, 5, 8, generator=generator) for _ in range(6)],
        "mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "student_weights": torch.full((3,), 1 / 3),
        "teacher_weights": torch.full((6,), 1 / 6),
    }
    exec(python_with("plan = solve_transport"), names)
    assert names["costs"].shape == names["plan"].flow.shape == names["flow"].shape == (3, 6)
    torch.testing.assert_close(names["loss"], names["plan"].cost)
    names["loss"].backward()
    assert all(layer.grad is not None for layer in student)


def test_method_of_your_own_is_a_method(in_folder: Path) -> None:
    method = load_method("my_method.py:hidden_only")
    (stage,) = method(EncoderShape(3, 32, 4), EncoderShape(6, 32, 4), beta=5.0)
    assert str(stage.objective) == "L = 5·hidden_states + 1·soft_targets"
    assert stage.objective.needs == {"hidden"}


@pytest.mark.parametrize("words", ["optimizer = torch.optim.AdamW", "trainer = DistillationTrainer"])
def test_training_examples_run(
    words: str, in_folder: Path, tiny_encoder: Callable[..., Any], tiny_tokenizer: PreTrainedTokenizerBase
) -> None:
    teacher = tiny_encoder("bert", layers=6, width=16, heads=2)
    teacher.config.id2label = dict(enumerate(GLUE["mrpc"].task.labels))
    teacher.save_pretrained("teacher")
    tiny_tokenizer.save_pretrained("teacher")
    write_mrpc(in_folder / "glue" / "MRPC")
    code = python_with(words).replace("num_train_epochs=3", "num_train_epochs=1, use_cpu=True, disable_tqdm=True")
    names: dict[str, Any] = {}
    exec(code, names)
    saved = (in_folder / "student" / "config.json").read_text(encoding="utf-8")
    assert '"num_hidden_layers": 3' in saved
    assert not teacher.training
    with torch.no_grad():
        before = dict(teacher.named_parameters())
        assert all(torch.equal(value, before[name]) for name, value in names["teacher"].model.named_parameters())


def write_mrpc(folder: Path) -> None:
    folder.mkdir(parents=True)
    for part, rows in (("train", 40), ("dev", 8)):
        with (folder / f"{part}.tsv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"])
            table.writerows([row % 2, row, row, f"the book {row}", f"a good movie {row}"] for row in range(rows))


# ------------------------------------------------------------------------------------- what the pages say is there


def test_tree_is_the_folder() -> None:
    page = read(ROOT / "docs" / "tree.md")
    assert page == tree_page(), 'write it anew: PYTHONPATH=tests python -c "import test_docs; test_docs.write_tree()"'


def write_tree() -> None:
    (ROOT / "docs" / "tree.md").write_text(tree_page(), encoding="utf-8")


def tree_page() -> str:
    """docs/tree.md: every file of the package with the first sentence of its docstring."""
    lines = ["# The file tree", "", INTRODUCTION, "", "```text"]
    for path in [PACKAGE, *sorted(PACKAGE.rglob("*"), key=place_in_tree)]:
        depth = len(path.relative_to(PACKAGE.parent).parts) - 1
        start = path / "__init__.py"
        if start.exists():
            lines.append(phrase(f"{'  ' * depth}{path.name}/", first_sentence(start)))
        elif path.suffix == ".py" and path.name != "__init__.py":
            lines.append(phrase(f"{'  ' * depth}{path.name}", first_sentence(path)))
    return "\n".join([*lines, "```", ""])


PACKAGE = ROOT / "emdistill"
ORDER = (
    "tasks",
    "data",
    "models",
    "students",
    "mapping",
    "losses",
    "methods",
    "training",
    "search",
    "runs",
    "teachers",
    "ship",
)
ORDER += ("show", "recipes", "commands")
INTRODUCTION = """The order of the folders is the order in which data flows; imports go downwards only
([concepts.md](concepts.md#the-floors) has the floors). recipes/ has a YAML file per method, show/templates/ what
pages and cards are made of. tests/ mirrors the package, benchmarks/ has one script per claim."""


def place_in_tree(path: Path) -> list[tuple[int, str]]:
    """Single files first, then the folders in the order in which data flows."""
    parts = path.relative_to(PACKAGE).parts
    folder = len(parts) > 1 or path.is_dir()
    first = (ORDER.index(parts[0]) + 1 if parts[0] in ORDER else 0) if folder else 0
    return [(first, parts[0]), *((0, part) for part in parts[1:])]


def first_sentence(file: Path) -> str:
    documentation = ast.get_docstring(ast.parse(read(file))) or ""
    return documentation.splitlines()[0].removesuffix(".") if documentation else ""


def phrase(name: str, text: str) -> str:
    return f"{name:<30} {text}".rstrip()


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
            if target.startswith("https://"):
                continue
            place, _, anchor = target.partition("#")
            file = (page.parent / place) if place else page
            assert file.exists(), f"{page.name} links to {target}"
            if anchor:
                assert anchor in anchors(file), f"{page.name} links to {target}; there are: {anchors(file)}"


def anchors(page: Path) -> list[str]:
    """The names under which headings can be linked to: lower case, no punctuation, hyphens for blanks."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", read(page)), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("method", ["bert-emd", "balanced"])
def test_every_setting_is_explained(method: str) -> None:
    page = read(ROOT / "docs" / "methods" / f"{method}.md")
    settings = set(inspect.signature(METHODS[method]).parameters) - {"student", "teacher", "predictions"}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == settings


def test_every_method_has_a_page() -> None:
    assert {page.stem for page in (ROOT / "docs" / "methods").glob("*.md")} == set(METHODS)


def test_flows_page_shows_the_format(tmp_path: Path) -> None:
    (example,) = [block.text for block in blocks("json") if '"flows"' in block.text]
    (tmp_path / "flows.jsonl").write_text(example.replace("\n", " ").strip() + "\n", encoding="utf-8")
    (record,) = read_flows(tmp_path / "flows.jsonl")
    assert isinstance(record, FlowRecord)
    page = read(ROOT / "docs" / "flows-file.md")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(vars(record))
    for flow in record.flows.values():
        assert sum(map(sum, flow)) == pytest.approx(1, abs=1e-6)


def test_flows_page_reads_the_flows_of_the_default_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    append_flows(tmp_path / "run" / "flows.jsonl", FlowRecord(1, "joint", {"hidden_states": [[0.0, 1.0]]}))
    monkeypatch.chdir(tmp_path)
    exec(python_with("flow_sankey"), {})
    assert (tmp_path / "flow.html").is_file()


def test_released_weight_in_this_normalisation() -> None:
    """The page's factors: the released loss averages over the classes too (and halves): β = C · β' (2C · β')."""
    generator = torch.Generator().manual_seed(0)
    for classes in (2, 3):
        teacher, student = torch.randn(2, 7, classes, generator=generator, dtype=torch.float64)
        products = -teacher.softmax(-1) * student.log_softmax(-1)
        ours, released = products.sum(-1).mean(), products.mean()
        torch.testing.assert_close(ours, classes * released)
        torch.testing.assert_close(ours, 2 * classes * (released / 2))
    page = read(ROOT / "docs" / "methods" / "bert-emd.md")
    for weight in (0.001, 0.005):
        row = [weight, 2 * weight, 4 * weight, 3 * weight, 6 * weight]
        cells = [f"{value:.3f}".rstrip("0").lstrip("0") for value in row]
        assert f"| {cells[0]} | {cells[1]} | {cells[2]} | {cells[3]}, {cells[4]} |" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_that_begins_with_a_list_of_its_sections_lists_them_all(page: Path) -> None:
    text = read(page)
    listed = re.findall(r"^- \[[^\]]+\]\(#([^)]+)\)$", text.partition("\n## ")[0], flags=re.MULTILINE)
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert not listed or set(anchors) <= set(listed)
