"""A page of Markdown in its parts: blocks of code, code marks, links and the anchors of its headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Found:
    """A piece of a page, and its first line."""

    line: int
    text: str
    language: str = ""


def blocks(page: str) -> list[Found]:
    """Fenced blocks of code, without their indentation."""
    return [
        Found(line_of(page, match.start()), re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE), match[2])
        for match in FENCE.finditer(page)
    ]


def commands(block: Found) -> list[Found]:
    """The lines of a block, those that end in a backslash joined with the next."""
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    return [Found(block.line, line) for line in lines if line.strip()]


def code_marks(page: str) -> Iterator[Found]:
    """Texts between backticks, outside of blocks; one may run over a line's end."""
    prose = blank(page, FENCE)
    for match in re.finditer(r"`([^`]+)`", prose):
        if "\n\n" not in match[1]:
            yield Found(line_of(page, match.start()), " ".join(match[1].split()))


def links(page: str) -> Iterator[Found]:
    """Targets of links and pictures."""
    prose = blank(blank(page, FENCE), re.compile(r"`[^`\n]+`(?!\])"))
    for match in re.finditer(r"\]\(([^)\s]+)\)", prose):
        yield Found(line_of(page, match.start()), match[1])


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ +(.*)$", blank(page, FENCE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def blank(page: str, pattern: re.Pattern[str]) -> str:
    """The page with all that matches replaced by spaces, so that lines keep their numbers."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), page)


def line_of(page: str, position: int) -> int:
    return page.count("\n", 0, position) + 1
