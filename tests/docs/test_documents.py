import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mothkit.gate.policy import read_policy

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BEGIN = (DOCS / "first-ten-minutes.md").read_text(encoding="utf-8")
ENDS = {"gate signs_poisoned.onnx": 1}  # exit codes of commands that do not end with 0


@pytest.mark.parametrize("name", ["cli.md", "policy.md", "api.md"])
def test_the_reference_is_what_the_program_says(name: str) -> None:
    pages = runpy.run_path(str(DOCS / "reference.py"))["pages"]()
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == pages[name], f"docs/{name} is not current; run: make reference"


def test_the_index_leads_to_every_document() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    others = {page.name for page in DOCS.glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == others


def test_links_to_parts_of_documents_lead_there() -> None:
    for page in DOCS.glob("*.md"):
        for file, part in re.findall(r"\]\(([\w./-]*\.md)?#([\w-]+)\)", page.read_text(encoding="utf-8")):
            text = (page.parent / (file or page.name)).read_text(encoding="utf-8")
            heads = [
                re.sub(r"[^\w\- ]", "", head.lower()) for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            ]
            assert part in {head.replace(" ", "-") for head in heads}, f"{page.name}: {file}#{part}"


def test_the_first_policy_is_one() -> None:
    text = BEGIN.split("```toml\n")[1].split("```")[0]
    assert read_policy(text, "policy.toml").policy.triggers is not None


@pytest.mark.slow
def test_the_first_ten_minutes_go_as_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(
        ROOT / "examples", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("out", "*.py")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    Path("policy.toml").write_text(BEGIN.split("```toml\n")[1].split("```")[0])
    blocks = "".join(re.findall(r"^```\n(.*?)^```", BEGIN, re.MULTILINE | re.DOTALL))
    commands = blocks.replace("\\\n", " ").splitlines()
    assert len(commands) > 8
    for command in commands:
        if command.startswith(("mothkit", "openssl")):
            wanted = next((code for start, code in ENDS.items() if command.startswith(f"mothkit {start}")), 0)
            done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
            assert done.returncode == wanted, f"{command}\n{done.stdout}{done.stderr}"
