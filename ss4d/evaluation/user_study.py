"""A user study from results (Table 3): a static page to rate them, and the average of the answers.

`study build STUDY` makes `STUDY/page/`, which works from disk and can be sent around, and `STUDY/key.json`, which tells
whose result is which and stays here. The files that people send back go into `STUDY/answers/`; `study aggregate STUDY`
prints the average ratings.
"""

from __future__ import annotations

import json
import math
import os
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ss4d.compositing import over_background
from ss4d.evaluation.json_files import read_json
from ss4d.evaluation.options import StudyOptions
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.results import FPS, VIDEO, protocol_folder, result_folder
from ss4d.evaluation.subjects.open import open_subjects
from ss4d.evaluation.subjects.subject import Subject, SubjectSet
from ss4d.evaluation.table_formats import cell, counted
from ss4d.metrics.agreement import krippendorff_alpha
from ss4d.metrics.intervals import Interval, mean_interval
from ss4d.video import write_video

EPOCH = 946_684_800  # the time of all files of a page: the first second of 2000
HIGHEST_OF_CHECK = 3  # rating of texture that a result of another object may get
QUESTIONS = ("geometry", "texture", "motion")
TEMPLATE, PLACEHOLDER = Path(__file__).with_name("user_study.html"), "/*STUDY*/"


def run(options: StudyOptions) -> list[str]:
    """Build or aggregate a study."""
    if options.action == "build":
        build_study(options)
    elif options.action == "aggregate":
        if options.methods or options.changes:
            raise ValueError("study aggregate reads the study's folder alone: leave out the options of build.")
        print_ratings(rate(Path(options.study)))
    else:
        raise ValueError(f"study {options.action}: say `study build STUDY` or `study aggregate STUDY`.")
    return []


def build_study(options: StudyOptions) -> None:
    """Write the page with a pair of videos for every object and method, under random names.

    Raises:
        ValueError: the study exists, or a method has no result for an object.
    """
    study = Path(options.study)
    if study.exists():
        raise ValueError(f"{study} exists: a study under way must keep its key, so name another folder.")
    if not options.methods or len(set(options.methods)) < len(options.methods):
        raise ValueError("study build needs methods=[NAME,...]: the labels of methods with results, each once.")
    if options.checks < 0:
        raise ValueError(f"checks={options.checks}: a study has 0 attention checks or more.")
    protocol = load_protocol(options.protocol, options.changes)
    subjects = open_subjects(protocol, Path(options.data))
    folder = protocol_folder(Path(options.results), protocol)
    pairs = [(name, method) for name in subjects.names() for method in options.methods]
    sources = {pair: result_folder(folder, pair[1], pair[0], options.seed) / VIDEO for pair in pairs}
    for (name, method), path in sources.items():
        if not path.is_file():
            raise ValueError(
                f"{name}: {path} of {method} is missing: run its evaluation first, or leave out a method that makes no "
                "pictures."
            )
    media = study / "page" / "media"
    media.mkdir(parents=True)
    inputs = {name: secrets.token_hex(8) for name in subjects.names()}
    items: list[dict[str, str]] = []
    key: dict[str, dict[str, Any]] = {}
    jobs: list[tuple[str, Callable[[Path], None]]] = [
        (identity, partial(write_object, subjects, name)) for name, identity in inputs.items()
    ]
    for name, method in pairs:
        item = secrets.token_hex(8)
        jobs.append((item, partial(copy_file, sources[name, method])))
        items.append({"id": item, "input": f"media/{inputs[name]}.mp4", "result": f"media/{item}.mp4"})
        key[item] = {"object": name, "method": method}
    for name, other in mismatches(list(inputs), options.checks):
        item = secrets.token_hex(8)
        jobs.append((item, partial(write_object, subjects, other)))
        items.append({"id": item, "input": f"media/{inputs[name]}.mp4", "result": f"media/{item}.mp4"})
        key[item] = {"object": name, "check": True}
    random.shuffle(jobs)  # neither the order of files nor their times tell which belong together
    for identity, write in jobs:
        write(media / f"{identity}.mp4")
    random.shuffle(items)
    content = {"id": secrets.token_hex(8), "items": items}
    page = TEMPLATE.read_text(encoding="utf-8").replace(PLACEHOLDER, json.dumps(content))
    (study / "page" / "index.html").write_text(page, encoding="utf-8")
    (study / "answers").mkdir()
    (study / "key.json").write_text(json.dumps({"id": content["id"], "items": key}, indent=1) + "\n", "utf-8")
    for path in [*media.iterdir(), media, study / "page" / "index.html"]:
        os.utime(path, (EPOCH, EPOCH))
    print(f"{len(items)} pairs to rate: {study / 'page' / 'index.html'}")


def mismatches(names: list[str], count: int) -> list[tuple[str, str]]:
    """Attention checks: the input of an object, and as its result the input of another one."""
    chosen = random.sample(names, min(count, len(names))) if len(names) > 1 else []
    return [(name, random.choice([other for other in names if other != name])) for name in chosen]


def write_object(subjects: SubjectSet, name: str, path: Path) -> None:
    """The input of an object, as a video."""
    write_input(subjects.load(name), path)


def copy_file(source: Path, path: Path) -> None:
    """The content of a file, without its times."""
    path.write_bytes(source.read_bytes())


def write_input(subject: Subject, path: Path) -> None:
    """The input over white, as a video."""
    frames = over_background(subject.video, torch.ones(3))
    write_video(path, (255 * frames).round().byte().movedim(1, -1).numpy(), FPS)


@dataclass(frozen=True)
class Ratings:
    """What people say of the methods."""

    methods: dict[str, dict[str, Interval]]  # by method and question
    agreement: dict[str, float]  # Krippendorff's alpha, by question
    notes: list[str]  # on sheets that are incomplete or left out


def rate(study: Path) -> Ratings:
    """Average ratings with intervals over raters and items, and how far raters agree.

    The squares of the half widths of Student's intervals over raters (their means over items) and over items (their
    means over raters) are added, since both were drawn from many. Sheets that fail an attention check do not count.

    Raises:
        ValueError: no answers, or a file of another study, of unknown items, or with ratings that are not 1 to 5.
    """
    key: dict[str, Any] = read_json(study / "key.json")
    files = sorted((study / "answers").glob("*.json"))
    if not files:
        raise ValueError(f"{study / 'answers'} is empty: put the files with answers there.")
    sheets: dict[str, list[dict[str, Any]]] = {}
    notes = []
    for path in files:
        content = read_sheet(path, key)
        if content["participant"] in sheets:
            raise ValueError(f"{path} is a second file of participant {content['participant']}: leave one of them.")
        answers = content["answers"]
        checks = [answer for answer in answers if "check" in key["items"][answer["item"]]]
        if failed := sum(answer["texture"] > HIGHEST_OF_CHECK for answer in checks):
            notes.append(f"{path.name} fails {failed} of {len(checks)} attention checks: left out")
            continue
        if len(answers) < len(key["items"]):
            notes.append(f"{path.name} is incomplete, {len(answers)} of {len(key['items'])} items are rated")
        sheets[content["participant"]] = [answer for answer in answers if answer not in checks]
    if not sheets:
        raise ValueError(f"{study / 'answers'} has no sheet that passes its attention checks: {'; '.join(notes)}.")
    methods: dict[str, dict[str, Interval]] = {}
    for method in sorted({what["method"] for what in key["items"].values() if "method" in what}):
        of_method = {
            person: [answer for answer in given if key["items"][answer["item"]]["method"] == method]
            for person, given in sheets.items()
        }
        if any(of_method.values()):
            methods[method] = {question: interval(of_method, question) for question in QUESTIONS}
    agreement = {question: krippendorff_alpha(by_item(sheets, question).values()) for question in QUESTIONS}
    return Ratings(methods, agreement, notes)


def read_sheet(path: Path, key: dict[str, Any]) -> dict[str, Any]:
    """The answers of one person, checked."""
    content: Any = read_json(path)
    kinds = {"study": str, "participant": str, "answers": list}
    if not isinstance(content, dict) or not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        raise ValueError(f"{path} is no file of answers: it needs {', '.join(kinds)}, as the page saves them.")
    if not all(isinstance(answer, dict) for answer in content["answers"]):
        raise ValueError(f"{path} has answers that are none: leave the file as the page saved it.")
    if content.get("study") != key["id"]:
        raise ValueError(f"{path} has answers to another study than {key['id']}.")
    for answer in content["answers"]:
        check_answer(answer, key["items"], path)
    rated = [answer["item"] for answer in content["answers"]]
    if twice := [item for item in rated if rated.count(item) > 1]:
        raise ValueError(f"{path} rates {twice[0]} twice: leave one of them.")
    return content


def interval(sheets: Mapping[str, Sequence[dict[str, Any]]], question: str) -> Interval:
    """The mean over raters, with an interval over raters and items."""
    raters = mean_interval({person: [a[question] for a in given] for person, given in sheets.items() if given})
    items = mean_interval(by_item(sheets, question))
    halves = [(part.high - part.low) / 2 for part in (raters, items)]
    half = math.hypot(*halves)  # one rater or one item says nothing of others: no interval
    return Interval(raters.mean, raters.mean - half, raters.mean + half, raters.count)


def by_item(sheets: Mapping[str, Sequence[dict[str, Any]]], question: str) -> dict[str, list[float]]:
    """The ratings of each item."""
    found: dict[str, list[float]] = {}
    for given in sheets.values():
        for answer in given:
            found.setdefault(answer["item"], []).append(answer[question])
    return found


def check_answer(answer: dict[str, Any], items: dict[str, Any], path: Path) -> None:
    """ValueError unless an answer is to an item of the study, with three ratings from 1 to 5."""
    if answer.get("item") not in items:
        raise ValueError(f"{path} rates {answer.get('item')!r}, which is no item of this study.")
    for question in QUESTIONS:
        rating = answer.get(question)
        if type(rating) is not int or not 1 <= rating <= 5:  # true is 1 for Python
            raise ValueError(f"{path} rates {question} of {answer['item']} {rating!r}, not 1 to 5.")


def print_ratings(ratings: Ratings) -> None:
    """A line per method, then agreement and notes."""
    for method, questions in ratings.methods.items():
        text = ", ".join(f"{name} {cell(r, 3)}" for name, r in questions.items())
        print(f"{method}: {text} ({counted(next(iter(questions.values())).count, 'participant')})")
    agreed = ", ".join(f"{name} {alpha:.2f}" for name, alpha in ratings.agreement.items())
    print(f"agreement of raters (Krippendorff's alpha): {agreed}")
    for note in ratings.notes:
        print(f"note: {note}")
