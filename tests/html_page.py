"""HTML pages taken apart, for tests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "line", "rect"}  # elements of the page without an end tag


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parent: Element | None = None
    children: list[Element] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.pieces)).strip()


class Page(HTMLParser):
    """The elements of a page in their order, each with all text inside it."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[Element] = []
        self.open: list[Element] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, "elements left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), self.open[-1] if self.open else None)
        self.elements.append(element)
        if element.parent:
            element.parent.children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.pieces.append(data)

    def all(self, tag: str, inside: str | None = None) -> list[Element]:
        """Elements of a tag, all or only those in the element with the id `inside`."""
        return [e for e in self.elements if e.tag == tag and (inside is None or self._is_inside(e, inside))]

    def of(self, identifier: str) -> Element:
        (found,) = (element for element in self.elements if element.attributes.get("id") == identifier)
        return found

    def rows(self, section: str) -> list[list[str]]:
        return [[cell.text for cell in row.children] for row in self.all("tr", section)]

    @staticmethod
    def _is_inside(element: Element | None, identifier: str) -> bool:
        while element and element.attributes.get("id") != identifier:
            element = element.parent
        return element is not None
