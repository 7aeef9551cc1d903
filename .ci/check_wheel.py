"""Run the installed wheel: its own files must be what runs. Give a model for ``mothkit inspect``."""

import importlib
import subprocess
import sys
from pathlib import Path

HERE = Path(sys.prefix).resolve()


def main(model: str) -> None:
    """Exit with a message if a package comes from elsewhere or a command fails."""
    for name in ("mothkit", "mothkit_converters", "mothkit_cli"):
        file = importlib.import_module(name).__file__
        if file is None or not Path(file).resolve().is_relative_to(HERE):
            sys.exit(f"{name} comes from {file}, not from the wheel in {HERE}")
    mothkit = str(HERE / "bin" / "mothkit")
    for args in (["--version"], ["--help"], ["doctor"], ["inspect", model]):
        subprocess.run([mothkit, *args], check=True)  # noqa: S603 - our own command
    subprocess.run([sys.executable, "-I", "-m", "mothkit", "--version"], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
