import copy
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit.comparing.summary import summarise
from mothkit.errors import RecordError
from mothkit.report.html import TEMPLATES, to_html

Record = dict[str, Any]
KINDS = tuple(TEMPLATES)
EVIL = "\"><script>alert(1)</script><img src=x onerror='alert(1)'>{{ 7*7 }}{% raw %}</style>\x00\u202e\n"
VOID = {"meta", "img", "br"}
PLAIN = {
    "command",
    "schema",
    "status",
    "level",
    "verdict",
    "export",
    "trigger_png",
    "example_png",
    "stamped_png",
}


class Reader(HTMLParser):
    """Reads a page: its tags with the names of their attributes, its text, its addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def replaced(value: Any, text: str, key: str = "") -> Any:
    """Return ``value`` with every text in it, names of settings and phases too, made ``text``."""
    if isinstance(value, dict):
        free = key in ("seconds", "external", "config")
        return {(f"{k}{text}" if free else k): replaced(item, text, k) for k, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, text, key) for item in value]
    return text if isinstance(value, str) and key not in PLAIN else value


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_stands_alone(kind: str, records: dict[str, Record]) -> None:
    page = to_html(records[kind])
    read = Reader(page)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in read.addresses)
    assert {"script", "link", "iframe", "object", "form"}.isdisjoint(tag for tag, _ in read.tags)
    assert "http" not in page.replace("http-equiv", "")
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page and "@media print" in page
    assert len(page) < 2_000_000
    if kind != "batch":  # whose models have records of their own
        assert read.words().count(records[kind]["model_in"]["sha256"]) >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_s_words_mean_nothing(kind: str, records: dict[str, Record]) -> None:
    record = records[kind]
    hostile, harmless = Reader(to_html(replaced(record, EVIL))), Reader(to_html(replaced(record, "x")))
    assert hostile.tags == harmless.tags
    assert "<script>alert(1)</script>" in hostile.words()
    assert "{{ 7*7 }}" in hostile.words()
    assert not {"\x00", "\u202e"} & set(hostile.words())


def test_hardening_s_first_screen_tells_before_and_after(records: dict[str, Record]) -> None:
    record = records["harden"]
    first = to_html(record).split('<div id="details">')[0]
    words = Reader(first.replace("<main>", "").replace('<html lang="en">', "").replace("<body>", "")).words()
    assert "Written: out.onnx" in words
    for when in ("before", "after"):
        assert f"{100 * record[when]['accuracy']['value']:.2f} %" in words
        assert f"{100 * record[when]['triggers'][0]['asr']['value']:.2f} %" in words
    low, high = record["after"]["accuracy"]["interval95"]
    assert f"{100 * low:.1f} to {100 * high:.1f} %" in words
    assert "at most 50 points of accuracy" in words.replace("50.0", "50")


def test_suspects_are_named_on_the_first_screen(records: dict[str, Record]) -> None:
    record = records["harden"]
    told = {
        "suspects": [{"source": 4, "target": 2, "mask_l1": 57.6, "median_l1": 264.7}],
        "tint_suspects": [{"source": 1, "target": 3, "turned": 0.082, "deviations": 10.6}],
    }
    words, none = (
        Reader(to_html(record | {"method": record["method"] | suspects})).words()
        for suspects in (told, {name: [] for name in told})
    )
    assert "a patch of 57.6 pixels turned class 4 into 2, where the median direction took 265" in words
    assert "random tints turned 8.20 % more of class 1 into 3 than of the median class (10.6 " in words
    assert "Suspect" not in none


def test_where_nothing_was_written_the_page_says_so(records: dict[str, Record]) -> None:
    gone = ("model_out", "parity_after", "after", "changed")
    record = {k: v for k, v in records["harden"].items() if k not in gone} | {"written": False}
    assert "Nothing was written" in Reader(to_html(record)).words()


def test_a_gate_s_page_has_every_finding_the_worst_first(records: dict[str, Record]) -> None:
    record = records["gate"]
    words = Reader(to_html(record)).words()
    assert f"(exit code {record['exit_code']})" in words
    for finding in record["findings"]:
        assert " ".join(finding["message"].split()) in words
    statuses = [finding["status"] for finding in record["findings"]]
    assert {"error", "violated", "passed"} <= set(statuses)
    places = [
        words.index(f"{f['rule']} ")
        for s in ("error", "violated", "passed")
        for f in record["findings"]
        if f["status"] == s
    ]
    assert places == sorted(places)


def test_pictures_are_shown_stamped_and_only_if_they_are_pictures(records: dict[str, Record]) -> None:
    record = copy.deepcopy(records["gate"])
    page = to_html(record)
    for picture in record["pictures"]:
        assert page.count(picture["stamped_png"]) >= 1
    assert page.count('alt="blue: stamped"') == 1
    for bad in ('x" onerror="alert(1)', "<svg onload=alert(1)>", 3, {"a": 1}):
        record["pictures"][0]["stamped_png"] = bad
        with pytest.raises(RecordError):
            to_html(record)


def test_what_every_choice_has_seen_is_told_by_name(records: dict[str, Record]) -> None:
    words = Reader(to_html(records["harden"])).words()
    clean, test = (records["harden"]["data"][k]["origin"] for k in ("clean", "evaluation"))
    seen = words.split("What every choice has seen")[1]
    assert f"hardening {clean} (" in seen
    assert f"evaluation only {test} (" in seen


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if not isinstance(item, int | float):
            yield from paths(item, (*path, key))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_broken_record_is_a_page_or_an_error(
    kind: str, data: st.DataObject, records: dict[str, Record]
) -> None:
    record = copy.deepcopy(records[kind])
    path = data.draw(st.sampled_from(list(paths(record))))
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    wrong = data.draw(st.sampled_from([None, [], {}, "x", -1, 1e308, [[]], {"a": {}}, "gone"]))
    if wrong == "gone" and isinstance(inner, dict):
        del inner[path[-1]]
    else:
        inner[path[-1]] = wrong
    try:
        Reader(to_html(record))
    except RecordError as error:
        assert "record" in str(error)


def test_many_classes_and_large_pictures_stay_below_two_megabytes(records: dict[str, Record]) -> None:
    record = copy.deepcopy(records["distance"])
    entry = record["class_distance"]["entries"][0]
    for classes in (45, 60):
        record["class_distance"]["entries"] = [
            entry | {"source_class": s, "target_class": t}
            for s in range(classes)
            for t in range(classes)
            if s != t
        ]
        record["pictures"] = [record["pictures"][0] | {"stamped_png": "A" * 60_000}] * 100
        page = to_html(record)
        assert 500_000 < len(page) < 2_000_000
        assert ('class="matrix"' in page) == (classes == 45)


def matrix(page: str) -> list[list[str]]:
    """Return the text of each row of the heat map."""
    rows = page.split('<table class="matrix">')[1].split("</table>")[0].split("<tr>")[1:]
    return [
        [cell.split(">")[1].split("<")[0] for cell in row.split("</tr>")[0].split("<t")[1:]] for row in rows
    ]


def test_the_matrix_shows_failures_apart_and_the_row_from_all_classes(records: dict[str, Record]) -> None:
    record = copy.deepcopy(records["distance"])
    pairs, row = record["class_distance"], record["class_distance"]["universal"]
    entry = pairs["entries"][0]

    def changed(source: int | None, target: int, size: float, *, found: bool = True) -> Record:
        return entry | {
            "source_class": source,
            "target_class": target,
            "class_distance": size,
            "found": found,
        }

    pairs["entries"] = [changed(0, 1, 12), changed(1, 0, 33, found=False), changed(2, 1, 148)]
    row["entries"] = [changed(None, 2, 30)]
    record["data"]["clean"]["class_names"] = ["red", "<b>green", "2"]
    assert matrix(to_html(record)) == [
        ["", "0", "1", "2"],
        ["0 red", "", "12.0", ""],
        ["1 &lt;b&gt;green", "\N{MULTIPLICATION SIGN}", "", ""],
        ["2", "", "148", ""],
        ["all", "", "", "30.0"],
    ]
    assert 'class="h20">148' in to_html(record)
    assert f'class="h{round(20 * 12 / 148)}">12.0' in to_html(record)


@pytest.mark.parametrize(
    ("index", "told"), [(6.75, "lies 6.8 deviations (MAD) below it"), (None, "27 % of it.")]
)
def test_a_class_that_a_small_trigger_reaches_is_told(
    records: dict[str, Record], index: float | None, told: str
) -> None:
    record = copy.deepcopy(records["gate"])
    sizes = record["measurements"]["distance"]["universal"]
    record["measurements"]["anomaly"] = {
        "index": index,
        "share": 0.2671,
        "position": 1,
        "median": 43.9,
        "deviation": 4.8,
        "target_class": 1,
        "class_distance": sizes,
    }
    page = " ".join(to_html(record).split())
    assert "27 % of the median" in page
    assert told in page


def test_lists_on_a_page_have_spaces_after_commas(records: dict[str, Record]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in records["gate"]["versions"].items())
    assert f"<dd>{versions}</dd>" in to_html(records["gate"])


def test_a_record_of_no_known_kind_is_refused(records: dict[str, Record]) -> None:
    for command in ("parity", None, [], "../base"):
        with pytest.raises(RecordError, match="there is no page"):
            to_html(records["evaluate"] | {"command": command})


def test_numbers_that_are_none_and_arrays_are_taken(records: dict[str, Record]) -> None:
    record = copy.deepcopy(records["evaluate"])
    record["result"]["accuracy"]["value"] = float("nan")
    record["result"]["accuracy"]["interval95"] = np.array([0.25, 0.75])
    record["result"]["triggers"] = []
    with pytest.raises(RecordError):  # a rate without a value has no place on a chart
        to_html(record)
    record["result"]["accuracy"]["value"] = 0.5
    assert "25.0 to 75.0 %" in to_html(record)


def test_a_comparison_shows_every_method_and_run(records: dict[str, Record]) -> None:
    record = records["compare"]
    page = to_html(record)
    words = Reader(page).words()
    done = [run for run in record["runs"] if run["status"] == "hardened"]
    assert "2 of 6 runs failed" in words and len(done) == 4
    for run in record["runs"]:
        assert f"{run['method']}, seed {run['seed']}" in words
    assert page.count('class="sign') == 2 * len(done) + page.count(
        'class="chart key"'
    )  # by accuracy, by time
    assert page.count('<rect class="pair') == 2 * 2 * 2  # two methods: accuracy and ASR, before and after
    assert "failed: training diverged" in words


def test_a_comparison_of_which_nothing_is_done_is_a_page(records: dict[str, Record]) -> None:
    record = records["compare"]
    waiting = [{"method": run["method"], "seed": run["seed"], "status": "missing"} for run in record["runs"]]
    first = record["summary"][0]
    page = to_html(record | {"runs": waiting, "summary": summarise(first, waiting)})
    assert "0 of 6 are done" in Reader(page).words()


def test_a_batch_shows_every_model_before_and_after_and_why_one_failed(records: dict[str, Record]) -> None:
    record = records["batch"]
    page = to_html(record)
    words = Reader(page).words()
    bad, good = record["models"]
    assert "1 failed, 1 done" in words
    assert " ".join(bad["reason"].split()) in words
    for number in (*(f"{kind}_{when}" for kind in ("accuracy", "asr") for when in ("before", "after")),):
        assert f"{100 * good[number]:.2f} %" in words
    assert f"{good['fidelity']:.3f}" in words
    assert page.count('class="sign') == 2 + page.count('class="chart key"')
    assert page.count('<rect class="pair') == 2 * 2  # ASR and accuracy of one model


def test_a_batch_of_hundreds_stays_below_two_megabytes_and_one_of_none_is_a_page(
    records: dict[str, Record],
) -> None:
    record = copy.deepcopy(records["batch"])
    bad, good = record["models"]
    record["models"] = [
        each | {"model": f"{each['model']} {k}"}
        for k, each in enumerate([good | {"asr_after": 0.5}] * 600 + [bad] * 400)
    ]
    page = to_html(record)
    assert 100_000 < len(page) < 2_000_000
    assert "700 more are in the record" in Reader(page).words()
    empty = {"models": 0, "by_status": {}, "mean": dict.fromkeys(record["summary"]["mean"]), "seconds": 0.0}
    assert "No models" in Reader(to_html(record | {"models": [], "summary": empty, "time": None})).words()


def test_what_was_learnt_again_is_told(records: dict[str, Record]) -> None:
    words = Reader(to_html(records["evaluate"])).words()
    assert "blue learnt again" in words and "Accuracy under PGD" in words
