import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mothkit.report.charts import (
    SERIES,
    Axis,
    Bar,
    Pair,
    Point,
    Span,
    axis_over,
    bar_chart,
    interval_chart,
    legend,
    pair_chart,
    scatter_chart,
)
from mothkit.report.scale import STEPS, colour, contrast, ink_on, scale_css, step_of

EVIL = '"><script>x</script>'
FINITE = st.floats(-1e6, 1e6)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own


def test_bars_are_as_long_as_their_values() -> None:
    chart = parsed(
        bar_chart(
            [Bar(label="a", value=5, told="5"), Bar(label=EVIL, value=20, told="x", marked=True)],
            title=EVIL,
            limit=10,
        )
    )
    bars = chart.findall("rect")
    assert [bar.get("width") for bar in bars] == ["25.00%", "100.00%"]
    assert [bar.get("class") for bar in bars] == ["bar", "bar marked"]
    (limit,) = chart.findall("line")
    assert limit.get("x1") == "50.00%"
    assert (chart.get("role"), chart.get("aria-label")) == ("img", EVIL)
    assert chart.findall("text")[2].text == EVIL
    assert parsed(bar_chart([], title="none")).findall("rect") == []


def test_two_bars_a_row_are_as_long_as_their_values() -> None:
    pairs = [Pair(label="a", before=100, after=0.5), Pair(label=EVIL, before=25, after=75)]
    chart = parsed(pair_chart(pairs, title=EVIL))
    assert [bar.get("width") for bar in chart.findall("rect")] == ["100.00%", "0.50%", "25.00%", "75.00%"]
    tops = [int(bar.get("y", "0")) for bar in chart.findall("rect")]
    assert tops == sorted(tops) and len(set(tops)) == 4
    assert chart.findall("text")[1].text == "100.00 %, then 0.50 %"


def test_intervals_lie_where_their_numbers_say() -> None:
    spans = [
        Span(label="a", value=50, low=40, high=75),
        Span(label="a", value=25, low=0, high=100, series=1),
        Span(label="b", value=100, low=90, high=110),
    ]
    chart = parsed(interval_chart(spans, title="t", axis=Axis(label="", low=0, high=100)))
    assert [sign.get("cx") for sign in chart.iter("circle")] == ["50.00%", "25.00%", "100.00%"]
    whiskers = [line for line in chart.iter("line") if "whisker" in line.get("class", "")]
    assert [(w.get("x1"), w.get("x2")) for w in whiskers] == [
        ("40.00%", "75.00%"),
        ("0.00%", "100.00%"),
        ("90.00%", "100.00%"),  # what lies outside is put at the end
    ]
    assert "hollow" in next(chart.iter("circle")).get("class", "")


def test_points_lie_where_their_numbers_say() -> None:
    axis = Axis(label="x", low=0, high=10, limit=5)
    chart = parsed(scatter_chart([Point(x=2.5, y=10, told=EVIL)], title="t", x=axis, y=axis, height=200))
    (sign,) = chart.iter("circle")
    assert (sign.get("cx"), sign.get("cy")) == ("25.00%", "0.0")
    assert sign.findtext("title") == EVIL
    assert sum(line.get("class") == "limit" for line in chart.iter("line")) == 2


@given(st.lists(FINITE, max_size=5), st.none() | FINITE)
def test_an_axis_holds_all_values_and_has_a_few_round_ticks(values: list[float], limit: float | None) -> None:
    axis = axis_over("x", values, limit=limit)
    for value in [*values, *([] if limit is None else [limit])]:
        assert 0 < axis.place(value) < 100
    assert 2 <= len(axis.ticks()) <= 8
    rounding = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - rounding <= tick <= axis.high + rounding for tick in axis.ticks())


def test_no_two_series_differ_by_colour_alone() -> None:
    items = parsed(legend([str(k) for k in range(SERIES)])).findall("li")
    signs = [next(e for e in item.iter() if "sign" in e.get("class", "")) for item in items]
    looks = {(sign.tag, sign.get("d"), "full" in sign.get("class", "")) for sign in signs}
    assert len(looks) == SERIES
    point = Point(x=2.5, y=10, told="x", series=3)
    axis = Axis(label="x", low=0, high=10)
    (sign,) = parsed(scatter_chart([point], title="t", x=axis, y=axis, height=200)).iter("path")
    assert sign.findtext("title") == "x"


def test_a_legend_names_every_series_by_its_own_sign() -> None:
    items = parsed(legend(("before", EVIL))).findall("li")
    assert ["".join(item.itertext()) for item in items] == ["before", EVIL]
    assert len({sign.get("class") for item in items for sign in item.iter("circle")}) == 2


@pytest.mark.parametrize("dark", [False, True])
def test_every_colour_of_the_scale_can_be_read_on(dark: bool) -> None:
    grounds = [colour(step / (STEPS - 1), dark=dark) for step in range(STEPS)]
    assert min(contrast(ink_on(ground), ground) for ground in grounds) >= 4.5  # WCAG 2.2, AA
    assert len(re.findall(r"\.h\d+\{", scale_css(dark=dark))) == STEPS
    sums = [sum(ground) for ground in grounds]
    assert sums == sorted(sums, reverse=not dark)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((255, 255, 255), (118, 118, 118)) == pytest.approx(4.54, abs=0.01)  # a well-known grey
    assert [step_of(share) for share in (-1, 0, 0.5, 1, 2)] == [0, 0, 10, 20, 20]


@given(st.lists(st.floats(0, 100), max_size=5))
def test_an_axis_of_rates_ends_where_rates_end(values: list[float]) -> None:
    axis = axis_over("ASR, %", values, within=(0, 100))
    assert 0 <= axis.low < axis.high <= 100
    assert all(0 <= tick <= 100 for tick in axis.ticks())
    assert all(axis.low <= value <= axis.high for value in values)
