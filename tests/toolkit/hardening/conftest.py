from pathlib import Path

import pytest

from mothkit.classifier import Classifier
from tests.tiny import open_tiny, write_tiny


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    return open_tiny(write_tiny(tmp_path / "tiny.onnx"))
