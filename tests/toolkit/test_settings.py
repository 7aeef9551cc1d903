from dataclasses import dataclass, field
from typing import Literal

import pytest

from mothkit.errors import ConfigError
from mothkit.settings import known_settings, with_settings


@dataclass(frozen=True, kw_only=True)
class Inner:
    steps: int = 3
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int | None = None
    flip: bool = True
    word: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ConfigError("count is 13")


def test_texts_are_read_by_the_types_of_the_fields() -> None:
    given = {"count": "4", "flip": "no", "word": "b", "names": "x,/y/Add", "inner.rate": "1e-3"}
    wanted = Outer(count=4, flip=False, word="b", names=("x", "/y/Add"), inner=Inner(rate=1e-3))
    assert with_settings(Outer(), given) == wanted
    assert with_settings(wanted, {"count": "none", "names": ""}) == Outer(
        flip=False, word="b", inner=Inner(rate=1e-3)
    )
    assert with_settings(wanted, {}) == wanted


def test_every_name_that_is_listed_can_be_set_to_what_it_is() -> None:
    config = Outer(count=1, names=("x",))
    texts = {name: "x" if name == "names" else str(value) for name, value in known_settings(config)}
    assert list(texts) == ["count", "flip", "word", "names", "inner.steps", "inner.rate"]
    assert with_settings(config, texts) == config


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rate", "1", r"no setting is called 'rate'; there are count, flip, .*inner\.rate"),
        ("inner", "1", "no setting is called 'inner'"),
        ("count", "3.5", r"count is '3\.5', expected a whole number"),
        ("inner.rate", "fast", r"inner\.rate is 'fast', expected a number"),
        ("flip", "maybe", "flip is 'maybe', expected true or false"),
        ("word", "c", "word is 'c', not one of a, b"),
        ("count", "13", "count is 13"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(Outer(), {name: text})
