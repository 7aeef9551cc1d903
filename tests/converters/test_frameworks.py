"""Small models as today's frameworks export them, the whole way; ``benchmarks/frameworks`` made them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.frameworks.measure import WAY, measure

FILES = sorted((Path(__file__).parents[1] / "golden" / "frameworks").glob("*.onnx"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_fresh_export_is_imported_trained_and_written_back(path: Path) -> None:
    row = dataclasses.asdict(measure(path))
    assert [step for step in WAY if not row[step]] == [], row["why"]
