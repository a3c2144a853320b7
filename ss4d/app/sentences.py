"""What a visitor of the page is told: advice that a visitor can follow, and no place on the server."""

from __future__ import annotations

import re

from ss4d.failures import without_folders

FULL = "The server has no room at the moment: try again later."
NO_MEMORY = "The memory of the server is not enough: take fewer frames."
UNFORESEEN = "The run failed in a way that nobody has foreseen; the log of the app says more."
# Advice of the commands, and what takes its place on the page.
ADVICE = {
    r"pass masks of the object( \(--mask DIR\) or RGBA images| or RGBA images|$)": (
        "upload a clip before a background of one colour, or one with transparency"
    ),
    r"pass masks of the one that is meant \(--mask DIR\)": "upload a clip of one of them",
    r"pass masks of a tracker .*\(--matting-model\)": "the result may flicker as well",
    r"choose a part \(--start, --end\)": "cut the clip first",
    r" \(--[^)]*\)": "",
}


def for_visitors(sentence: str) -> str:
    """A sentence of a command in words that fit the page."""
    for advice, instead in ADVICE.items():
        sentence = re.sub(advice, instead, sentence)
    return without_folders(sentence)


def of_failed_run(sentence: str | None) -> str:
    """Why a run failed, from what its process said last; None where it said nothing, as it does without memory."""
    if sentence is None or "memory is not enough" in sentence:
        return NO_MEMORY
    if "No space left" in sentence or "MB free" in sentence or "could be written nowhere" in sentence:
        return FULL
    return UNFORESEEN if sentence.startswith("unforeseen failure") else for_visitors(sentence)
