"""Charts as inline SVG: no script; text keeps its size on narrow screens, as places across are percentages.

Each is ``role="img"`` with its title as the name; the page has the same numbers as a table or in words. Colours are
those of the page's style: ``--series-0`` and so on, ``--ink``, ``--faint``, ``--line``.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mothkit.report.words import safe

SERIES = 6  # colours and signs; further series begin anew
_SHAPES = ("", "M-5-5H5V5H-5Z", "M0-6L6 5H-6Z")  # of two series each; the first is a circle
_ROW, _PAIR_ROW, _TICKS = 40, 50, 18  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar of ``value``, 0 or more, with what is ``told`` at its end; a marked one stands out."""

    label: str
    value: float
    told: str
    marked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A value with its interval, in the axis' unit; ``series`` gives colour and sign."""

    label: str
    value: float
    low: float
    high: float
    series: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place of a scatter chart, with what is ``told`` of it when it is pointed at."""

    x: float
    y: float
    told: str
    series: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two bars of 0 to 100 in one row."""

    label: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What an axis is called and what it spans; ``limit`` draws a line across."""

    label: str
    low: float
    high: float
    limit: float | None = None

    def place(self, value: float) -> float:
        """Return where ``value`` lies on the axis, in percent; what lies outside is put at its end."""
        return 100 * min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Return three to six round numbers on the axis."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * min((1, 2, 2.5, 5, 10), key=lambda m: abs(m * power - rough))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * k for k in range(first, last + 1)]


def axis_over(
    label: str,
    values: Iterable[float],
    *,
    limit: float | None = None,
    within: tuple[float, float] | None = None,
) -> Axis:
    """Return an axis that spans ``values`` and ``limit``, with some room at both ends, but ``within`` what can be."""
    found = [*values, *([] if limit is None else [limit])]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    size = max(abs(low), abs(high))
    room = 0.08 * (high - low) if high - low > max(1e-6 * size, 1e-9) else max(size / 10, 1.0)
    low, high = low - room, high + room
    if within is not None:
        low, high = max(low, within[0]), min(high, within[1])
    return Axis(label=label, low=low, high=high, limit=limit)


def bar_chart(bars: Sequence[Bar], *, title: str, limit: float | None = None) -> Markup:
    """Return a bar a row, from 0 to the largest; ``limit`` draws a line across."""
    longest = max([*(bar.value for bar in bars), limit or 0.0], default=0.0) or 1.0
    rows = []
    for k, bar in enumerate(bars):
        y = k * _ROW
        rows.append(
            Markup(
                '<text x="0" y="{}">{}</text><text x="100%" y="{}" text-anchor="end">{}</text>'
                '<rect class="{}" y="{}" width="{:.2f}%" height="10" rx="2"/>'
            ).format(
                *(y + 14, safe(bar.label), y + 14, safe(bar.told)),
                *("bar marked" if bar.marked else "bar", y + 20, 100 * bar.value / longest),
            )
        )
    height = _ROW * len(bars)
    if limit is not None:
        rows.append(_upright(100 * limit / longest, height, "limit"))
    return _svg(title, height, Markup("").join(rows))


def pair_chart(pairs: Sequence[Pair], *, title: str) -> Markup:
    """Return two bars a row, from 0 to 100 percent, in the colours of the first two series; the first is hollow."""
    bar = Markup('<rect class="pair s{} {}" y="{}" width="{:.2f}%" height="8" rx="2"/>')
    rows = []
    for k, pair in enumerate(pairs):
        y = k * _PAIR_ROW
        told = f"{pair.before:.2f} %, then {pair.after:.2f} %"
        rows.append(
            Markup('<text x="0" y="{}">{}</text><text x="100%" y="{}" text-anchor="end">{}</text>').format(
                y + 14, safe(pair.label), y + 14, told
            )
        )
        rows.append(bar.format(0, "hollow", y + 20, pair.before) + bar.format(1, "full", y + 31, pair.after))
    return _svg(title, _PAIR_ROW * len(pairs), Markup("").join(rows))


def interval_chart(spans: Sequence[Span], *, title: str, axis: Axis, unit: str = "") -> Markup:
    """Return a row for each label: values with their intervals, those of one label in one row."""
    labels = list(dict.fromkeys(span.label for span in spans))
    height = _ROW * len(labels) + 4
    drawn = [_upright(axis.place(tick), height, "grid") for tick in axis.ticks()]
    if axis.limit is not None:
        drawn.append(_upright(axis.place(axis.limit), height, "limit"))
    drawn += [
        Markup('<text class="over" x="0" y="{}">{}</text>').format(k * _ROW + 14, safe(label))
        for k, label in enumerate(labels)
    ]
    drawn += [
        _span(span, axis, labels.index(span.label) * _ROW + 26 + 5 * (span.series % 2)) for span in spans
    ]
    drawn += _tick_labels(axis, height + 14, unit)
    return _svg(title, height + _TICKS, _inner(drawn, left=3, width=94))


def scatter_chart(points: Sequence[Point], *, title: str, x: Axis, y: Axis, height: int = 240) -> Markup:
    """Return points in a frame of ``height`` pixels; limits of both axes are lines across."""
    drawn = [_upright(x.place(tick), height, "grid") for tick in x.ticks()]
    drawn += [_level(height * (1 - y.place(tick) / 100), "grid") for tick in y.ticks()]
    if x.limit is not None:
        drawn.append(_upright(x.place(x.limit), height, "limit"))
    if y.limit is not None:
        drawn.append(_level(height * (1 - y.place(y.limit) / 100), "limit"))
    for tick in y.ticks():
        drawn.append(
            Markup('<text class="tick" x="-6" y="{:.1f}" text-anchor="end">{}</text>').format(
                height * (1 - y.place(tick) / 100) + 4, _short(tick)
            )
        )
    for point in points:
        drawn.append(_sign(x.place(point.x), height * (1 - y.place(point.y) / 100), point.series, point.told))
    drawn += _tick_labels(x, height + 16, "")
    drawn.append(
        Markup('<text class="tick" x="100%" y="{}" text-anchor="end">{}</text>').format(
            height + 34, safe(x.label)
        )
    )
    drawn.append(Markup('<text class="tick" x="0" y="-8">{}</text>').format(safe(y.label)))
    frame = Markup('<svg y="24" x="12%" width="85%" height="{}" overflow="visible">{}</svg>')
    return _svg(title, height + 64, frame.format(height, Markup("").join(drawn)))


def legend(names: Sequence[str]) -> Markup:
    """Return which sign and colour stands for which series."""
    each = Markup('<li><svg class="chart key" aria-hidden="true" width="14" height="14">{}</svg>{}</li>')
    items = [each.format(_sign(50, 7, k, ""), safe(name)) for k, name in enumerate(names)]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _svg(title: str, height: int, inside: Markup) -> Markup:
    return Markup('<svg class="chart" role="img" aria-label="{}" width="100%" height="{}">{}</svg>').format(
        safe(title), height, inside
    )


def _inner(drawn: Sequence[Markup], *, left: int, width: int) -> Markup:
    return Markup('<svg x="{}%" width="{}%" overflow="visible">{}</svg>').format(
        left, width, Markup("").join(drawn)
    )


def _upright(place: float, height: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="0" y2="{}"/>').format(
        kind, place, place, height
    )


def _level(y: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="0" x2="100%" y1="{:.1f}" y2="{:.1f}"/>').format(kind, y, y)


def _span(span: Span, axis: Axis, y: int) -> Markup:
    line = Markup('<line class="whisker s{}" x1="{:.2f}%" x2="{:.2f}%" y1="{}" y2="{}"/>').format(
        span.series % SERIES, axis.place(span.low), axis.place(span.high), y, y
    )
    return line + _sign(axis.place(span.value), y, span.series, "")


def _sign(place: float, y: float, series: int, told: str) -> Markup:
    """Return a circle, square or triangle, hollow or full: no two series differ by colour alone."""
    title = Markup("<title>{}</title>").format(safe(told)) if told else ""
    kind = f"sign s{series % SERIES} {'full' if series % 2 else 'hollow'}"
    if shape := _SHAPES[series % SERIES // 2]:
        whole = Markup(
            '<svg x="{:.2f}%" y="{:.1f}" overflow="visible"><path class="{}" d="{}">{}</path></svg>'
        )
        return whole.format(place, y, kind, shape, title)
    return Markup('<circle class="{}" cx="{:.2f}%" cy="{:.1f}" r="5">{}</circle>').format(
        kind, place, y, title
    )


def _tick_labels(axis: Axis, y: int, unit: str) -> list[Markup]:
    text = Markup('<text class="tick" x="{:.2f}%" y="{}" text-anchor="middle">{}{}</text>')
    return [text.format(axis.place(tick), y, _short(tick), unit) for tick in axis.ticks()]


def _short(value: float) -> str:
    return f"{0.0 if value == 0 else value:.4g}"
