"""`emdistill methods`, `mappings`, `tasks`, `students`: what there is to choose from, a line each.

The tables are read from their source: to import them would import torch, which takes seconds for seven lines.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
GENERAL = "no task: raw text, for a student of any task to come (general distillation)"


def methods() -> str:
    """List the methods."""
    return _listing(_documented_rows("emdistill.methods", "METHODS"))


def mappings() -> str:
    """List the ways to map student layers to teacher layers."""
    return _listing(_documented_rows("emdistill.mapping", "MAPPINGS"))


def tasks() -> str:
    """List the built-in tasks."""
    lines = {name: _words(row)["description"] for name, row in _rows(_parse("emdistill.data.glue"), "GLUE").items()}
    for source in ("emdistill.data.tagged", "emdistill.data.squad"):
        lines |= {name: ast.literal_eval(text) for name, text in _rows(_parse(source), "TASKS").items()}
    own = _words(_value(_parse("emdistill.data.messages"), "MESSAGES"))
    return _listing(lines | {own["name"]: own["description"], "text": GENERAL})


def students() -> str:
    """List the ways to name a student."""
    forms = [_words(row) for row in _rows(_parse("emdistill.students"), "STUDENTS").values()]
    return _listing({form["example"]: form["description"] for form in forms})


def _listing(lines: dict[str, str]) -> str:
    """A line each, whatever the terminal's width: lists are also read by other programs."""
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


# ------------------------------------------------------------------------------------------- tables as source


def _parse(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _value(source: ast.Module, name: str) -> ast.expr | None:
    """What is assigned to a name of the module."""
    assignments = (node for node in source.body if isinstance(node, ast.Assign | ast.AnnAssign))
    return next(node.value for node in assignments if ast.unparse(node).startswith((f"{name} =", f"{name}:")))


def _rows(source: ast.Module, table: str) -> dict[str, ast.expr]:
    rows = _value(source, table)
    assert isinstance(rows, ast.Dict)
    return {ast.literal_eval(key): row for key, row in zip(rows.keys, rows.values, strict=True) if key is not None}


def _words(call: ast.expr | None) -> dict[str, str]:
    """The keyword arguments of a call that are written as constants."""
    assert isinstance(call, ast.Call)
    return {str(word.arg): str(word.value.value) for word in call.keywords if isinstance(word.value, ast.Constant)}


def _documented_rows(module: str, table: str) -> dict[str, str]:
    """Key -> first line of the docstring of what a table's row names."""
    source = _parse(module)
    documented = {key: _definition(source, ast.unparse(row)) for key, row in _rows(source, table).items()}
    return {key: (ast.get_docstring(node) or "").partition("\n")[0] for key, node in documented.items()}


def _definition(source: ast.Module, name: str) -> ast.FunctionDef | ast.ClassDef:
    """The function or class of a name, in this module or where it is imported from."""
    for node in source.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return _definition(_parse(node.module), name)
    raise LookupError(name)
