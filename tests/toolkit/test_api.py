import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import mothkit
import mothkit_converters


@pytest.mark.parametrize("package", [mothkit, mothkit_converters])
def test_no_module_has_the_name_of_a_function(package: ModuleType) -> None:
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert modules.isdisjoint(package.__all__)


@pytest.mark.parametrize("first", mothkit.__all__)
def test_every_function_is_there_whichever_was_used_first(first: str) -> None:
    code = (
        f"import mothkit; mothkit.{first}; assert all(callable(getattr(mothkit, n)) for n in mothkit.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
