"""A small plot: lines of marked points in panels beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#1f6fb4", "#d1622b", "#3b8f4d", "#8a5aa8")
WIDTH, HEIGHT, LEFT, BELOW, ABOVE, RIGHT = 560, 360, 64, 46, 34, 20  # of a panel and its margins, pixels
TICKS = 5


@dataclass(frozen=True)
class Series:
    """Points (x, y, label) that a line joins."""

    name: str
    points: list[tuple[float, float, str]]


def scatter(path: Path, panels: list[tuple[str, str, list[Series]]], x_name: str = "CPU seconds a clip") -> None:
    """Draw panels of (title, name of y, series) into a picture file."""
    image = Image.new("RGB", (WIDTH * len(panels), HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for number, (title, y_name, series) in enumerate(panels):
        _draw_panel(draw, font, number * WIDTH, f"{title}: {y_name}", x_name, [s for s in series if s.points])
    image.save(path, optimize=True)


def _draw_panel(
    draw: ImageDraw.ImageDraw, font: object, left: int, title: str, x_name: str, series: list[Series]
) -> None:
    points = [point for one in series for point in one.points]
    if not points:
        return
    low, high = min(y for _, y, _ in points), max(y for _, y, _ in points)
    margin = max(0.08 * (high - low), 0.02 * abs(high)) or 0.5  # noise does not fill the panel
    low, high, far = low - margin, high + margin, 1.08 * max(x for x, _, _ in points)

    def place(x: float, y: float) -> tuple[float, float]:
        across, down = WIDTH - LEFT - RIGHT, HEIGHT - ABOVE - BELOW
        return left + LEFT + across * x / far, ABOVE + down * (high - y) / (high - low)

    def write(at: tuple[float, float], text: str, anchor: str, fill: str = "#333333") -> None:
        draw.text(at, text, fill=fill, font=font, anchor=anchor)  # type: ignore[arg-type]

    for tick in range(TICKS):
        y = low + (high - low) * tick / (TICKS - 1)
        draw.line([place(0, y), place(far, y)], fill="#e4e4e4")
        write((place(0, y)[0] - 6, place(0, y)[1]), f"{y:.3g}", "rm")
        x = far * tick / (TICKS - 1)
        write((place(x, low)[0], place(x, low)[1] + 6), f"{x:.2g}", "ma")
    write((left + WIDTH / 2, 8), title, "ma", "black")
    write((left + WIDTH / 2, HEIGHT - 6), x_name, "md")
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        places = [place(x, y) for x, y, _ in one.points]
        draw.line(places, fill=colour, width=2)
        for (x, y), (_, _, label) in zip(places, one.points, strict=True):
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
            write((x, y - 7), label, "md", colour)
        write((left + WIDTH - RIGHT - 4, ABOVE + 4 + 17 * number), one.name, "ra", colour)
