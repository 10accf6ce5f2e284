"""Charts as lists of bars and texts, positioned in units of an SVG image."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, FOOT = 720, 180, 22
_ROW = 26
_NAMES_WIDTH, _BARS_WIDTH = 300, 320
_LONGEST_NAME = 40  # in characters; a longer name is truncated


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle; `series` is the number of its data series, `label` is its tooltip."""

    series: int
    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Text:
    """Text at a point; `anchor` is SVG's `text-anchor`."""

    x: float
    y: float
    content: str
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as positioned bars and texts; `width` and `height` are in SVG units."""

    title: str
    height: int
    bars: Sequence[Bar]
    texts: Sequence[Text]
    legend: Sequence[str] = ()
    width: int = WIDTH


def over_time(
    title: str, labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]]
) -> Chart | None:
    """Return a chart with one stacked bar per label, or None if all values are 0.

    Each item of `series` is a name with one value per label.
    """
    tallest = max((sum(column) for column in zip(*(v for _, v in series), strict=True)), default=0)
    if not tallest:
        return None
    step = WIDTH / len(labels)
    width = round(max(step - 1, 0.5), 1)
    bars = []
    for at, label in enumerate(labels):
        top = float(HEIGHT)
        for number, (name, values) in enumerate(series):
            height = values[at] / tallest * (HEIGHT - 16)
            top -= height
            tooltip = f"{label}: {values[at]:,.6g} {name}"
            bars.append(
                Bar(number, round(at * step, 1), round(top, 1), width, round(height, 1), tooltip)
            )
    texts = (
        Text(0, HEIGHT + 16, labels[0]),
        Text(WIDTH, HEIGHT + 16, labels[-1], "end"),
        Text(0, 11, f"{tallest:,.6g}"),
    )
    return Chart(title, HEIGHT + FOOT, bars, texts, [name for name, _ in series])


def by_name(title: str, values: Sequence[tuple[str, float]]) -> Chart | None:
    """Return a chart with one horizontal bar per name, or None if `values` is empty."""
    if not values:
        return None
    longest = max(value for _, value in values) or 1.0
    bars: list[Bar] = []
    texts: list[Text] = []
    for at, (name, value) in enumerate(values):
        top, width = at * _ROW, round(value / longest * _BARS_WIDTH, 1)
        shown = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        figure = f"{value:,.6g}"
        bars.append(Bar(0, _NAMES_WIDTH, top + 4, width, _ROW - 8, f"{name}: {figure}"))
        texts += [
            Text(0, top + 17, shown),
            Text(_NAMES_WIDTH + width + 6, top + 17, figure),
        ]
    return Chart(title, len(values) * _ROW, bars, texts)
