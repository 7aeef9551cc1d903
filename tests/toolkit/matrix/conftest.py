import pytest

from mothkit.classifier import Classifier
from tests.tiny import open_tiny, write_tiny


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return open_tiny(write_tiny(tmp_path_factory.mktemp("model") / "tiny.onnx"))
