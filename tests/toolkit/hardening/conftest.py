from pathlib import Path

import pytest

from mothkit.classifier import Classifier
from tests.backdoored import open_model, write_backdoored, write_folded
from tests.tiny import open_tiny, write_tiny


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    return open_tiny(write_tiny(tmp_path / "tiny.onnx"))


@pytest.fixture
def backdoored(tmp_path: Path) -> Classifier:
    return open_model(write_backdoored(tmp_path / "backdoored.onnx"))


@pytest.fixture
def folded(tmp_path: Path) -> Classifier:
    return open_model(write_folded(tmp_path / "folded.onnx"))
