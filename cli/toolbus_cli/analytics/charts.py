"""Charts as inline SVG: bars over time, and bars by name. Pure."""

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, FOOT = 720, 180, 22
_ROW = 26


def over_time(
    title: str, labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]]
) -> str:
    """Return stacked bars, one per label; empty if all values are 0.

    Each of `series` is a name and one value per label.
    """
    tallest = max((sum(column) for column in zip(*(v for _, v in series), strict=True)), default=0)
    if not tallest:
        return ""
    width = WIDTH / len(labels)
    bars = []
    for at, label in enumerate(labels):
        top = float(HEIGHT)
        for number, (name, values) in enumerate(series):
            high = values[at] / tallest * (HEIGHT - 16)
            top -= high
            label_text = escape(f"{label}: {values[at]:,.6g} {name}")
            bars.append(
                f'<rect class="s{number}" x="{at * width:.1f}" y="{top:.1f}" height="{high:.1f}" '
                f'width="{max(width - 1, 0.5):.1f}"><title>{label_text}</title></rect>'
            )
    ends = (
        f'<text x="0" y="{HEIGHT + 16}">{escape(labels[0])}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 16}" text-anchor="end">{escape(labels[-1])}</text>'
        f'<text x="0" y="11">{tallest:,.6g}</text>'
    )
    legend = " ".join(
        f'<span class="s{number}">{escape(name)}</span>' for number, (name, _) in enumerate(series)
    )
    return (
        f'<figure tabindex="0"><figcaption>{escape(title)} <span class="legend">{legend}</span>'
        "</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(bars)}{ends}</svg></figure>"
    )


def by_name(title: str, values: Sequence[tuple[str, float]]) -> str:
    """Return one horizontal bar per name."""
    if not values:
        return ""
    longest = max(value for _, value in values) or 1.0
    rows = []
    for at, (name, value) in enumerate(values):
        shown = name if len(name) <= 40 else name[:39] + "…"  # noqa: PLR2004 - what fits
        rows.append(
            f'<text x="0" y="{at * _ROW + 17}">{escape(shown)}</text>'
            f'<rect class="s0" x="300" y="{at * _ROW + 4}" height="{_ROW - 8}" '
            f'width="{value / longest * 320:.1f}">'
            f"<title>{escape(name)}: {value:,.6g}</title></rect>"
            f'<text x="{306 + value / longest * 320:.1f}" y="{at * _ROW + 17}">{value:,.6g}</text>'
        )
    return (
        f'<figure tabindex="0"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {len(values) * _ROW}" role="img" '
        f'aria-label="{escape(title)}">{"".join(rows)}</svg></figure>'
    )
