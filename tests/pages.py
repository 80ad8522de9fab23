"""A page as a browser would take it, for tests of what stands in it."""

import json
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeVar

Kind = TypeVar("Kind")
VOID = {"meta", "img", "br", "link", "input"}
WITHIN = {"code"}  # a part of the text around it


def of_kind(kind: type[Kind], parts: Iterable[object]) -> list[Kind]:
    """The parts of a section that are of this kind."""
    return [part for part in parts if isinstance(part, kind)]


class Page(HTMLParser):
    """What a browser would make of a page: the texts by tag, the tags' attributes; refuses tags that do not nest."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_bytes().decode("utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID | WITHIN:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert tag in WITHIN or self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def scripts(self) -> list[tuple[dict[str, str | None], str]]:
        return list(zip(self.named("script"), self.texts.get("script", []), strict=True))

    @property
    def data(self) -> list[Any]:
        """What the page's script reads, in its order: figures and the frames of sliders."""
        return [
            json.loads(text) for attributes, text in self.scripts if attributes.get("type") and "id" not in attributes
        ]

    @property
    def charts(self) -> list[dict[str, Any]]:
        """The figures in their order."""
        return [values for values in self.data if isinstance(values, dict)]

    @property
    def policy(self) -> str:
        return next(str(meta["content"]) for meta in self.named("meta") if "http-equiv" in meta)
