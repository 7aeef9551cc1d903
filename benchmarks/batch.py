"""Batches: 40 small models with 8 planted faults, killed again and again; two workers against one; Ray against none.

    OMP_NUM_THREADS=1 python -m benchmarks.batch [faults|kills|workers|ray ...] [--good 32] [--kills 20]

From the project's root. ``faults`` runs the batch undisturbed; ``kills`` runs it anew, kills its driver with SIGKILL at
random moments, resumes it each time, and compares what is left of both, times apart; ``workers`` and ``ray`` time sound
models with one worker, with two, and on a local Ray. Resumable: a piece is one of these, and within ``kills`` one kill.
Writes to ``benchmarks/results/batch.jsonl`` and a table of it to ``docs/benchmarks.md`` (``--table`` the table alone);
models and results go to ``build/batch``.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pieces import table, write_section
from mothkit.batch.ledger import Ledger, Status, ledger_path
from tests.planted import FAULTS, final, killing, write_batch

WORK = Path("build/batch").absolute()
RESULTS = Path("benchmarks/results/batch.jsonl")
COMMON = ("--preprocess", "unit", "--device", "cpu", "--max-accuracy-drop", "50")
LIMITS = ("--memory", "2G", "--time-limit", "30s")
_LONGEST_WAIT = 6.0  # seconds between the first sign of work and a kill
STEPS, TIMED_STEPS, TIMED_MODELS = 40, 400, 8


def command(out: Path, manifest: Path, steps: int, *more: object) -> list[str]:
    asked = ("batch", "harden", manifest, "-o", out, *COMMON, "--steps", steps, *more)
    return [sys.executable, "-m", "mothkit", *map(str, asked)]


def planted(good: int) -> Path:
    """Return the manifest of the models, made once."""
    folder = WORK / f"models-{good}"
    if not (folder / "never.npz").exists():
        shutil.rmtree(folder, ignore_errors=True)
        write_batch(folder, good)
        os.mkfifo(folder / "never.npz")
    return folder / "manifest.csv"


def begin(out: Path, manifest: Path) -> None:
    """Begin a batch with its first model, and put a file where the results of one would go."""
    if not ledger_path(out).exists():
        subprocess.run(
            command(out, manifest, STEPS, "--where", "number == 0", "--quiet"),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (out / "readonly").write_text("a file where a folder should be")


def running(out: Path) -> bool:
    return any(row.status is Status.RUNNING for row in Ledger(out).rows())


def kill_once(words: list[str], out: Path, wait: float) -> bool:
    """Start a batch, kill its driver ``wait`` seconds after it began to work; return whether it was still at it."""
    ledger = Ledger(out, writable=True)
    ledger.release()  # what a killed driver left: the next one's first work is to be seen
    ledger.close()
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while driver.poll() is None and not running(out):
        time.sleep(0.05)
    try:
        driver.wait(wait)
    except subprocess.TimeoutExpired:
        driver.kill()
        driver.wait()
        return True
    return False


def faults(good: int, _kills: int) -> dict[str, object]:
    out, manifest = WORK / f"whole-{good}", planted(good)
    begin(out, manifest)
    began = time.monotonic()
    with killing(out / "killed" / "worker.log"):
        ended = subprocess.run(command(out, manifest, STEPS, *LIMITS, "--jobs", 2, "--resume", "--quiet"))
    rows = {row.model: row for row in Ledger(out).rows()}
    named = {name: words in str(rows[name].reason) for name, words in FAULTS.items()}
    right = sum(row.status is Status.DONE for row in rows.values())
    print({name: row.reason for name, row in rows.items() if row.reason})
    return {
        "models": len(rows),
        "right": right,
        "faults_named": sum(named.values()),
        "exit_code": ended.returncode,
        "seconds": round(time.monotonic() - began, 1),
    }


def kills(good: int, times: int) -> dict[str, object]:
    whole, out, manifest = WORK / f"whole-{good}", WORK / f"killed-{good}", planted(good)
    begin(out, manifest)
    words = command(out, manifest, STEPS, *LIMITS, "--jobs", 2, "--resume", "--quiet")
    count = WORK / f"kills-{good}"
    done = int(count.read_text()) if count.exists() else 0
    with killing(out / "killed" / "worker.log"):
        while done < times and kill_once(words, out, random.Random(done).uniform(0, _LONGEST_WAIT)):  # noqa: S311
            done += 1
            count.write_text(str(done))
            finished = sum(row.status in (Status.DONE, Status.FAILED) for row in Ledger(out).rows())
            print(f"killed {done} times, {finished} models finished", flush=True)
        ended = subprocess.run(words, stdout=subprocess.DEVNULL)
    return {"kills": done, "exit_code": ended.returncode, "same": final(whole) == final(out)}


def timed(out: Path, *more: object) -> float:
    """Return the models an hour of a batch of sound models."""
    manifest = planted(TIMED_MODELS)
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    words = command(out, manifest, TIMED_STEPS, "--where", "kind == 'good'", "--quiet", *more)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return round(3600 * TIMED_MODELS / (time.monotonic() - began), 1)


def workers(_good: int, _kills: int) -> dict[str, object]:
    one, two = (timed(WORK / f"workers-{jobs}", "--jobs", jobs) for jobs in (1, 2))
    return {"one_an_hour": one, "two_an_hour": two, "ratio": round(two / one, 3)}


def ray(_good: int, _kills: int) -> dict[str, object]:
    local, on_ray = (timed(WORK / name, "--jobs", 2, "--engine", name) for name in ("local", "ray"))
    return {"local_an_hour": local, "ray_an_hour": on_ray, "ratio": round(on_ray / local, 3)}


WHAT = {
    "faults": "`faults`: 40 models, 8 planted faults, two workers",
    "kills": "`kills`: the same, its driver killed (`SIGKILL`) at random and resumed",
    "workers": "`workers`: one worker, then two",
    "ray": "`ray`: two workers of the local engine, then two on a local Ray",
}
PIECES: dict[str, Callable[[int, int], dict[str, object]]] = {
    "faults": faults,
    "kills": kills,
    "workers": workers,
    "ray": ray,
}


def told(piece: str, found: dict[str, Any]) -> tuple[str, str]:
    """Return what a piece measured, and what is asked of it."""
    match piece:
        case "faults":
            return (
                f"{found['right']} of {found['models']} models right, {found['faults_named']} faults named, "
                f"exit code {found['exit_code']}, {found['seconds']:.0f} s",
                "32 of 40 right, 8 named, exit code 2",
            )
        case "kills":
            same = "the same" if found["same"] else "other"
            return f"{same} records and bytes after {found['kills']} kills", "the same after 20"
        case "workers":
            return (
                f"{found['one_an_hour']:.0f} and {found['two_an_hour']:.0f} models an hour: {found['ratio']:.2f} times",
                "1.7 times",
            )
    return (
        f"{found['local_an_hour']:.0f} and {found['ray_an_hour']:.0f} models an hour: {found['ratio']:.2f} times",
        "0.9 times",
    )


def write(held: list[dict[str, Any]]) -> None:
    """Write the table of what was measured."""
    rows = []
    for piece, what in WHAT.items():
        lines = [line for line in held if line["piece"] == piece]
        measured, asked = told(piece, lines[-1]["found"]) if lines else ("not measured yet", "")
        rows.append([what, measured, asked, str(lines[-1]["cores"]) if lines else ""])
    write_section("batch", table(["piece", "measured", "asked", "cores"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table", action="store_true", help="write the table of what is there, and measure nothing"
    )
    parser.add_argument("pieces", nargs="*", default=list(PIECES), metavar="PIECE")
    parser.add_argument("--good", type=int, default=32)
    parser.add_argument("--kills", type=int, default=20)
    asked = parser.parse_args()
    held = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for piece in () if asked.table else asked.pieces:
        what = {"piece": piece, "good": asked.good, "kills": asked.kills, "cores": os.cpu_count()}
        if any(what.items() <= line.items() for line in held):
            print(f"{piece}: measured before")
            continue
        line = what | {"found": PIECES[piece](asked.good, asked.kills)}
        print(json.dumps(line), flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        held.append(line)
    write(held)


if __name__ == "__main__":
    main()
