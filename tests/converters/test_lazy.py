"""Importing the package costs nothing until a name is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mothkit_converters


def test_importing_the_package_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, mothkit_converters; sys.exit(any(m in sys.modules for m in ('torch', 'onnx', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_had() -> None:
    for name in mothkit_converters.__all__:
        assert getattr(mothkit_converters, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mothkit_converters.nothing  # noqa: B018
