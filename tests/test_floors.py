"""The floors of the house: imports go downwards only, and two backends stay in their rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "emdistill"

FLOORS = {
    "errors": 0,
    "states": 0,
    "locks": 0,
    "data": 1,
    "models": 1,
    "mapping": 1,
    "students": 1,
    "losses": 2,
    "training": 3,
    "methods": 4,
    "search": 4,
    "artifact": 4,
    "config": 5,
    "distill": 5,
    "finetune": 5,
    "demo": 5,
    "distill_text": 5,
    "search_mapping": 5,
    "compare": 5,
    "compare_entries": 5,
    "augment": 5,
    "export": 5,
    "report": 5,
    "prune_vocabulary": 5,
    "cli": 6,
    "__main__": 6,
}
# Parts of one floor do not know each other, but for these pairs (importer, imported); none of them closes a circle.
NEIGHBOURS = {
    ("states", "errors"),
    ("students", "data"),
    ("students", "models"),
    ("students", "mapping"),
    ("distill", "config"),
    ("finetune", "config"),
    ("demo", "config"),
    ("demo", "distill"),
    ("demo", "finetune"),
    ("distill", "distill_text"),
    ("distill_text", "config"),
    ("search_mapping", "config"),
    ("search_mapping", "distill"),
    ("compare", "compare_entries"),
    ("compare", "config"),
    ("compare_entries", "config"),
    ("compare", "distill"),
    ("__main__", "cli"),
}
ROOMS = {
    "transformers": ("models/", "students/", "training/", "artifact/", "data/batches.py"),
    "ot": ("mapping/transport.py",),
}


def imported_modules(tree: ast.Module, package: list[str]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file of `package` imports, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*module, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "__import__",
            "importlib.import_module",
            "import_module",
        }:
            match node.args:
                case [ast.Constant(value=str(name)), *_]:
                    yield node.lineno, name


def fault(path: str, module: str) -> str | None:
    """Why the file at `path` (below the package folder) may not import `module`; None where it may."""
    top, *below = module.split(".")
    rooms = ROOMS.get(top)
    if rooms is not None and not path.startswith(rooms):
        return f"imports {top}, which belongs only in {', '.join(rooms)}"
    if top != "emdistill" or path == "__init__.py":
        return None
    importer = path.split("/")[0].removesuffix(".py")
    if importer not in FLOORS:
        return f"{importer} stands on no floor: give it one in FLOORS"
    imported = below[0] if below else ""
    if imported == importer:
        return None
    if imported not in FLOORS:
        return f"imports {module} from the package's front door or from no floor: import it from where it is written"
    if FLOORS[imported] < FLOORS[importer] or (importer, imported) in NEIGHBOURS:
        return None
    return f"{importer} (floor {FLOORS[importer]}) imports {module} (floor {FLOORS[imported]})"


def faults(package: Path) -> list[str]:
    """Every import below `package` that goes up, sideways or out of its room, as `file:line: reason`."""
    found = []
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
        for line, module in imported_modules(tree, ["emdistill", *path.parent.parts]):
            reason = fault(path.as_posix(), module)
            if reason:
                found.append(f"{path.as_posix()}:{line}: {reason}")
    return list(dict.fromkeys(found))


def parts(package: Path) -> set[str]:
    """Names of the package's top-level modules and folders that hold Python code."""
    return {file.relative_to(package).parts[0].removesuffix(".py") for file in package.rglob("*.py")} - {"__init__"}


def test_imports_go_downwards_only() -> None:
    assert faults(PACKAGE) == []


def test_every_part_stands_on_a_floor() -> None:
    assert {"errors", "states", "data", "mapping"} <= parts(PACKAGE)
    assert parts(PACKAGE) <= set(FLOORS)


def test_neighbours_share_a_floor_and_close_no_circle() -> None:
    assert all(FLOORS[importer] == FLOORS[imported] for importer, imported in NEIGHBOURS)
    left = set(NEIGHBOURS)
    while left:
        importers = {importer for importer, _ in left}
        ends = {pair for pair in left if pair[1] not in importers}
        assert ends, f"a circle: {sorted(left)}"
        left -= ends


def write(package: Path, path: str, source: str) -> None:
    file = package / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "source", "reason"),
    [
        ("data/glue.py", "from emdistill.training.trainer import DistillationTrainer", "data (floor 1) imports"),
        ("data/glue.py", "import emdistill.models.encoder as encoder", "models.encoder (floor 1)"),
        (
            "models/encoder.py",
            "from emdistill.mapping import costs",
            "models (floor 1) imports emdistill.mapping.costs",
        ),
        (
            "mapping/emd.py",
            "def late():\n    from emdistill import students",
            ":2: mapping (floor 1) imports emdistill.students",
        ),
        ("mapping/emd.py", "from ..losses import objective", "imports emdistill.losses.objective (floor 2)"),
        ("mapping/__init__.py", "from ..data import task", "mapping (floor 1) imports emdistill.data.task"),
        ("models/__init__.py", "from emdistill.students import fresh", "imports emdistill.students.fresh"),
        ("errors.py", "from .states import EncoderStates", "errors (floor 0) imports emdistill.states"),
        ("losses/relations.py", "if TYPE_CHECKING:\n    from emdistill.training import stage", ":2: losses (floor 2)"),
        (
            "methods/bert_emd.py",
            "from emdistill.search import layer_mapping",
            "methods (floor 4) imports emdistill.search",
        ),
        ("artifact/report.py", "from emdistill.methods import METHODS", "artifact (floor 4) imports emdistill.methods"),
        (
            "search/architecture.py",
            "from emdistill.artifact import latency",
            "search (floor 4) imports emdistill.artifact",
        ),
        ("training/trainer.py", "importlib.import_module('emdistill.methods.bert_emd')", "training (floor 3) imports"),
        ("config.py", "from emdistill.distill import distill", "config (floor 5) imports emdistill.distill"),
        ("distill.py", "from . import cli", "distill (floor 5) imports emdistill.cli (floor 6)"),
        ("training/trainer.py", "from emdistill import DistillationArguments", "the package's front door"),
        ("training/trainer.py", "import emdistill", "the package's front door"),
        ("helpers.py", "from emdistill.errors import DataError", "helpers stands on no floor"),
        ("data/glue.py", "from transformers import AutoTokenizer", "imports transformers, which belongs only in"),
        ("cli.py", "def main():\n    import transformers.utils.logging", ":2: imports transformers"),
        ("__init__.py", "import transformers", "imports transformers"),
        ("mapping/emd.py", "import ot", "imports ot, which belongs only in mapping/transport.py"),
        ("mapping/sinkhorn.py", "from ot.bregman import sinkhorn", "imports ot"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, path: str, source: str, reason: str) -> None:
    write(tmp_path, path, source)
    (found,) = faults(tmp_path)
    assert found.startswith(f"{path}:")
    assert reason in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/glue.py", "from emdistill.errors import DataError\nfrom .task import Task\nfrom . import task"),
        ("data/batches.py", "import transformers\nimport emdistill.data.task"),
        ("states.py", "from .errors import CaptureError"),
        (
            "students/extract.py",
            "from emdistill.models import encoder\nfrom ..mapping import costs\nimport transformers",
        ),
        ("training/trainer.py", "from transformers import Trainer\nfrom emdistill.losses.objective import Objective"),
        ("mapping/transport.py", "import ot\nfrom ot.lp import emd"),
        ("artifact/onnx.py", "from emdistill.training import evaluate\nimport transformers"),
        ("distill.py", "from emdistill.config import RunConfig\nfrom emdistill.methods import METHODS"),
        ("cli.py", "from emdistill import distill, config\nimport emdistill.artifact.report"),
        ("__init__.py", "from emdistill.distill import distill\nfrom .training.trainer import DistillationTrainer"),
        ("mapping/emd.py", "import otherwise\nfrom transformers_like import x"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, path: str, source: str) -> None:
    write(tmp_path, path, source)
    assert faults(tmp_path) == []
