"""A user study from results (Table 3): a static page to rate them, and the average of the answers.

`study build STUDY` makes `STUDY/page/`, which works from disk and can be sent around, and `STUDY/key.json`, which tells
whose result is which and stays here. The files that people send back go into `STUDY/answers/`; `study aggregate STUDY`
prints the average ratings.
"""

from __future__ import annotations

import json
import random
import secrets
from pathlib import Path
from typing import Any

import torch

from ss4d.compositing import over_background
from ss4d.evaluation.json_files import read_json
from ss4d.evaluation.options import StudyOptions
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.results import FPS, VIDEO, protocol_folder, result_folder
from ss4d.evaluation.subjects.open import open_subjects
from ss4d.evaluation.subjects.subject import Subject
from ss4d.metrics.intervals import Interval, mean_interval
from ss4d.video import write_video

QUESTIONS = ("geometry", "texture", "motion")
TEMPLATE, PLACEHOLDER = Path(__file__).with_name("user_study.html"), "/*STUDY*/"


def run(options: StudyOptions) -> list[str]:
    """Build or aggregate a study."""
    if options.action == "build":
        build_study(options)
    elif options.action == "aggregate":
        print_ratings(read_ratings(Path(options.study)))
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
    if not options.methods:
        raise ValueError("study build needs methods=[NAME,...]: the labels of methods with results.")
    protocol = load_protocol(options.protocol, options.changes)
    subjects = open_subjects(protocol, Path(options.data))
    folder = protocol_folder(Path(options.results), protocol)
    pairs = [(name, method) for name in subjects.names() for method in options.methods]
    sources = {pair: result_folder(folder, pair[1], pair[0], options.seed) / VIDEO for pair in pairs}
    for (name, method), path in sources.items():
        if not path.is_file():
            raise ValueError(f"{name}: {path} of {method} is missing; run its evaluation first.")
    media = study / "page" / "media"
    media.mkdir(parents=True)
    items, key = [], {}
    for name in subjects.names():
        given = secrets.token_hex(8)
        write_input(subjects.load(name), media / f"{given}.mp4")
        for method in options.methods:
            item = secrets.token_hex(8)
            (media / f"{item}.mp4").write_bytes(sources[name, method].read_bytes())
            items.append({"id": item, "input": f"media/{given}.mp4", "result": f"media/{item}.mp4"})
            key[item] = {"object": name, "method": method}
    random.shuffle(items)
    content = {"id": secrets.token_hex(8), "items": items}
    page = TEMPLATE.read_text(encoding="utf-8").replace(PLACEHOLDER, json.dumps(content))
    (study / "page" / "index.html").write_text(page, encoding="utf-8")
    (study / "answers").mkdir()
    (study / "key.json").write_text(json.dumps({"id": content["id"], "items": key}, indent=1) + "\n")
    print(f"{len(items)} pairs to rate: {study / 'page' / 'index.html'}")


def write_input(subject: Subject, path: Path) -> None:
    """The input over white, as a video."""
    frames = over_background(subject.video, torch.ones(3))
    write_video(path, (255 * frames).round().byte().movedim(1, -1).numpy(), FPS)


def read_ratings(study: Path) -> dict[str, dict[str, Interval]]:
    """Average ratings of every method by question, with intervals over the participants.

    Raises:
        ValueError: no answers, or a file of another study, of unknown items, or with ratings that are not 1 to 5.
    """
    key: dict[str, Any] = read_json(study / "key.json")
    ratings: dict[str, dict[str, dict[str, list[float]]]] = {}
    files = sorted((study / "answers").glob("*.json"))
    if not files:
        raise ValueError(f"{study / 'answers'} is empty: put the files with answers there.")
    for path in files:
        content = read_json(path)
        if content.get("study") != key["id"]:
            raise ValueError(f"{path} has answers to another study than {key['id']}.")
        for answer in content["answers"]:
            check_answer(answer, key["items"], path)
            for question in QUESTIONS:
                method = ratings.setdefault(key["items"][answer["item"]]["method"], {})
                method.setdefault(question, {}).setdefault(content["participant"], []).append(answer[question])
    return {
        method: {question: mean_interval(values) for question, values in questions.items()}
        for method, questions in sorted(ratings.items())
    }


def check_answer(answer: dict[str, Any], items: dict[str, Any], path: Path) -> None:
    """ValueError unless an answer is to an item of the study, with three ratings from 1 to 5."""
    if answer.get("item") not in items:
        raise ValueError(f"{path} rates {answer.get('item')!r}, which is no item of this study.")
    if wrong := [question for question in QUESTIONS if answer.get(question) not in (1, 2, 3, 4, 5)]:
        raise ValueError(f"{path} rates {wrong[0]} of {answer['item']} {answer.get(wrong[0])!r}, not 1 to 5.")


def print_ratings(ratings: dict[str, dict[str, Interval]]) -> None:
    """A line per method."""
    for method, questions in ratings.items():
        text = ", ".join(f"{name} {r.mean:.3f} [{r.low:.3f}, {r.high:.3f}]" for name, r in questions.items())
        print(f"{method}: {text} ({next(iter(questions.values())).count} participants)")
