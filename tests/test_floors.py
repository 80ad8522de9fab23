"""The floors of the house: imports go downwards only, and two backends stay in their rooms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "emdistill"

FLOORS = {
    "errors": 0,
    "states": 0,
    "files": 0,
    "values": 0,
    "hub": 0,
    "console": 0,
    "config": 0,
    "processes": 0,
    "stopping": 0,
    "tasks": 1,
    "data": 1,
    "models": 1,
    "mapping": 1,
    "students": 1,
    "losses": 2,
    "methods": 3,
    "training": 3,
    "search": 3,
    "baselines": 4,
    "runs": 4,
    "teachers": 4,
    "options": 4,
    "ship": 5,
    "show": 5,
    "commands": 6,
    "cli": 7,
    "__main__": 7,
}
# Parts of one floor do not know each other, but for these pairs (importer, imported); none of them closes a circle.
NEIGHBOURS = {
    ("states", "errors"),
    ("files", "errors"),
    ("config", "errors"),
    ("config", "values"),
    ("values", "errors"),
    ("hub", "errors"),
    ("console", "errors"),
    ("console", "processes"),
    ("data", "tasks"),
    ("models", "tasks"),
    ("students", "data"),
    ("students", "models"),
    ("students", "mapping"),
    ("students", "tasks"),
    ("methods", "training"),
    ("teachers", "runs"),
    ("__main__", "cli"),
}
ROOMS = {
    "transformers": ("models/", "students/", "tasks/", "training/", "runs/", "ship/", "data/batches.py"),
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
    assert {"errors", "states", "tasks", "commands"} <= parts(PACKAGE)
    assert parts(PACKAGE) <= set(FLOORS)


def test_neighbours_share_a_floor_and_close_no_circle() -> None:
    assert all(FLOORS[importer] == FLOORS[imported] for importer, imported in NEIGHBOURS)
    left = set(NEIGHBOURS)
    while left:
        importers = {importer for importer, _ in left}
        ends = {pair for pair in left if pair[1] not in importers}
        assert ends, f"a circle: {sorted(left)}"
        left -= ends


def test_no_other_file_asks_which_kind_a_task_is() -> None:
    """But for the forms of data, which say what their rows ask."""
    forms = {f"data/{name}.py" for name in ("messages", "squad", "tagged")}
    files = {file.relative_to(PACKAGE).as_posix(): file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
    naming = {path for path, source in files.items() if re.search(r"\bKINDS\[[\"']", source)}
    assert {path for path in naming if not path.startswith("tasks/")} == forms


def write(package: Path, path: str, source: str) -> None:
    file = package / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "source", "names"),
    [
        ("data/glue.py", "from emdistill.training.trainer import DistillationTrainer", ("data", "training.trainer")),
        ("data/glue.py", "import emdistill.models.encoder as encoder", ("data", "models.encoder")),
        ("mapping/emd.py", "def late():\n    from emdistill import students", (":2:", "mapping", "students")),
        ("mapping/emd.py", "from ..losses import objective", ("mapping", "losses.objective")),
        ("mapping/__init__.py", "from ..tasks import kind", ("mapping", "tasks.kind")),
        ("tasks/kind.py", "from emdistill.data import read", ("tasks", "data.read")),
        ("errors.py", "from .states import EncoderStates", ("errors", "states")),
        ("losses/relations.py", "if TYPE_CHECKING:\n    from emdistill.training import stage", (":2:", "losses")),
        ("search/architecture.py", "from emdistill.ship import latency", ("search", "ship.latency")),
        ("runs/record.py", "from emdistill.show import page", ("runs", "show.page")),
        ("ship/gate.py", "from emdistill.show.page import Part", ("ship", "show.page")),
        ("training/trainer.py", "importlib.import_module('emdistill.methods.bert_emd')", ("training", "methods")),
        ("commands/distill.py", "from .. import cli", ("commands", "cli")),
        ("training/trainer.py", "from emdistill import DistillationArguments", ("front door",)),
        ("training/trainer.py", "import emdistill", ("front door",)),
        ("helpers.py", "from emdistill.errors import DataError", ("helpers", "no floor")),
        ("data/glue.py", "from transformers import AutoTokenizer", ("transformers",)),
        ("cli.py", "def main():\n    import transformers.utils.logging", (":2:", "transformers")),
        ("__init__.py", "import transformers", ("transformers",)),
        ("mapping/emd.py", "import ot", ("ot", "mapping/transport.py")),
        ("mapping/sinkhorn.py", "from ot.bregman import sinkhorn", ("ot",)),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, path: str, source: str, names: tuple[str, ...]) -> None:
    write(tmp_path, path, source)
    (found,) = faults(tmp_path)
    assert found.startswith(f"{path}:")
    assert all(name in found for name in names)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/glue.py", "from emdistill.errors import DataError\nfrom .rows import Row\nfrom . import rows"),
        ("data/batches.py", "import transformers\nimport emdistill.tasks.kind"),
        ("states.py", "from .errors import CaptureError"),
        (
            "students/extract.py",
            "from emdistill.models import encoder\nfrom ..mapping import costs\nimport transformers",
        ),
        ("training/trainer.py", "from transformers import Trainer\nfrom emdistill.losses.objective import Objective"),
        ("mapping/transport.py", "import ot\nfrom ot.lp import emd"),
        ("ship/onnx.py", "from emdistill.training import evaluate\nimport transformers"),
        ("commands/distill.py", "from emdistill.runs import record\nfrom emdistill.methods import METHODS"),
        ("cli.py", "from emdistill import commands, config\nimport emdistill.console"),
        ("__init__.py", "from emdistill.commands.distill import distill\nfrom .training.trainer import Trainer"),
        ("mapping/emd.py", "import otherwise\nfrom transformers_like import x"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, path: str, source: str) -> None:
    write(tmp_path, path, source)
    assert faults(tmp_path) == []
