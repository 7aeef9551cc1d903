"""Random mutations of ONNX files: each must be converted, or refused by a typed error.

Run: ``python benchmarks/fuzz.py FOLDER [--cases 10000]``. Case ``i`` is the same for one folder and seed. Each slice
runs in a process of its own with bounded memory; finished cases are kept in ``results/fuzz/work`` and not run
again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "fuzz" / "work" / "cases.jsonl"
SLICE = 1000  # cases a process
SECONDS = 120  # that one step of a case may take
BEGINNING = 600  # seconds until the first case; torch may load slowly
ROOM = 200 * 2**20  # bytes that a case may take beside four times its file
LARGEST = 3 * 2**20  # bytes of a file that is mutated; larger ones only take longer
FIELDS = 0.5  # share of cases that change fields, not bytes
PATIENCE = 10**6  # input elements up to which a converted model is run


def mutate(content: bytes, places: Sequence[int], others: Sequence[bytes], draw: random.Random) -> bytes:
    """Return ``content`` with one to four mutations of bytes, most of them at ``places``."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.choice(places) if draw.random() < 0.8 else draw.randrange(len(content))
        if data:
            _mutate_at(data, min(at, len(data) - 1), others, draw)
    return bytes(data)


def _mutate_at(data: bytearray, at: int, others: Sequence[bytes], draw: random.Random) -> None:
    length = draw.choice((1, 1, 2, 4, 16, 64))
    kind = draw.choice((*("flip", "byte") * 5, "delete", "insert", "splice", "repeat", "cut"))
    if kind == "flip":
        data[at] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        data[at] = draw.choice((0, 1, 2, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    elif kind == "delete":
        del data[at : at + length]
    elif kind == "insert":
        data[at:at] = draw.choice((draw.randbytes(length), b"\xff" * 9 + b"\x01", b"\x80" * length))
    elif kind == "splice":
        other = draw.choice(others)
        start = draw.randrange(len(other))
        data[at : at + draw.choice((0, length))] = other[start : start + length]
    elif kind == "repeat":
        data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
    else:
        del data[at:]


def mutate_fields(content: bytes, draw: random.Random) -> bytes:
    """Return ``content`` with one to three fields changed, and lengths that still fit."""
    import onnx

    model = onnx.ModelProto.FromString(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        message: Any = model.graph
        while True:
            field, value = draw.choice(message.ListFields() or [(None, None)])
            if field is None:
                break
            if field.message_type is None:
                _change(message, field, value, draw)
                break
            entries = value if field.is_repeated else [value]
            if field.is_repeated and draw.random() < 0.1:
                _rearrange(value, draw)
                break
            message = draw.choice(entries)
    return bytes(model.SerializeToString())


def _rearrange(entries: Any, draw: random.Random) -> None:  # noqa: ANN401 - a repeated field
    """Delete, double, or swap entries."""
    at, other = draw.randrange(len(entries)), draw.randrange(len(entries))
    kind = draw.choice(("delete", "double", "swap"))
    if kind == "delete":
        del entries[at]
    elif kind == "double":
        entries.append(entries[at])
    else:
        kept = type(entries[at])()
        kept.CopyFrom(entries[at])
        entries[at].CopyFrom(entries[other])
        entries[other].CopyFrom(kept)


def _change(message: Any, field: Any, value: Any, draw: random.Random) -> None:  # noqa: ANN401 - as protobuf has it
    """Give one field another value, or one of its values."""
    repeated = field.is_repeated
    old = value[at := draw.randrange(len(value))] if repeated else value
    if isinstance(old, str):
        new: Any = draw.choice(("", old + "x", old[::-1], old[:-1], "x", "Loop", "If", "Conv", "ai.onnx.ml"))
    elif isinstance(old, bytes):
        new = draw.choice((b"", old[:-1], old + b"\0", old[::-1], b"VALID"))
    elif isinstance(old, int):
        big = (
            (2**31 - 1, -(2**31), 10**6, 10**9) if field.cpp_type in (1, 3, 8) else (2**62, -(2**63), 10**12)
        )
        new = draw.choice((0, 1, -1, 2, 3, 7, old + 1, max(old - 1, 0), *big))
    else:
        new = draw.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
    with contextlib.suppress(ValueError, TypeError):  # out of the field's range
        if not repeated:
            setattr(message, field.name, new)
        elif draw.random() < 0.7:
            value[at] = new
        elif draw.random() < 0.5:
            del value[at]
        else:
            value.extend([new] * draw.choice((1, 10)))


def structure(content: bytes) -> list[int]:
    """Return the places in ``content`` that hold no bytes of weights."""
    import onnx

    from mothkit_converters.tensors import all_tensors

    taken = bytearray(len(content))
    for tensor in all_tensors(onnx.ModelProto.FromString(content)):
        for data in (tensor.raw_data, tensor.SerializeToString() if len(tensor.float_data) > 16 else b""):
            start = content.find(data) if len(data) > 64 else -1
            if start >= 0:
                taken[start : start + len(data)] = b"\1" * len(data)
    return [place for place, weight in enumerate(taken) if not weight]


def outcome_of(path: Path, say: Any) -> str:  # noqa: ANN401 - a callable that takes text
    """Return how reading, converting and running ``path`` ends."""
    import numpy as np
    import torch

    from mothkit_converters import ConversionError, read_source, to_torch
    from mothkit_converters.source import Source

    def inputs(source: Source) -> list[torch.Tensor] | None:
        drawn = []
        for value in source.inputs:
            shape = [dim if isinstance(dim, int) and dim > 0 else 2 for dim in value.shape or ()]
            if len(shape) > 8 or float(np.prod([float(dim) for dim in shape])) > PATIENCE:
                return None
            whole = "int" in (value.dtype or "")
            drawn.append(torch.ones(shape, dtype=torch.int64) if whole else torch.rand(shape))
        return drawn

    try:
        source = read_source(path)
        bound = to_torch(source, allow_unbound=True)
    except ConversionError as error:
        return f"refused: {type(error).__name__}"
    say("run")
    given = inputs(source)
    if given is None:
        return "converted, input too large to run"
    try:
        with torch.no_grad():
            bound(*given)
    except ConversionError as error:
        return f"converted, refused at run time: {type(error).__name__}"
    except Exception as error:  # told by its kind
        return f"converted, failed at run time: {type(error).__name__}"
    return "converted and ran"


def work(folder: Path, seed: int, start: int, stop: int) -> None:
    """Run these cases, telling each step on stdout."""
    import torch

    from mothkit_converters import read_source, to_torch  # noqa: F401 - loaded before memory is bounded

    torch.set_num_threads(1)
    files = [p for p in sorted(folder.glob("*.onnx")) if p.stat().st_size <= LARGEST]
    contents = [path.read_bytes() for path in files]
    weights = [1 / (1 + len(content) / 300_000) for content in contents]
    places: dict[int, list[int]] = {}

    def say(text: str) -> None:
        print(text, flush=True)

    for case in range(start, stop):
        say(f"begin {case}")
        draw = random.Random(f"{seed} {case}")  # noqa: S311
        chosen = draw.choices(range(len(files)), weights)[0]
        if chosen not in places:
            places[chosen] = structure(contents[chosen])
        data = mutate(contents[chosen], places[chosen], contents, draw)
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / files[chosen].name
            path.write_bytes(data)
            limit_memory(4 * len(data) + ROOM)
            try:
                outcome, where = outcome_of(path, say), ""
            except BaseException as error:  # every one is a fault
                where = traceback.format_exc().strip()
                outcome = f"FAULT: {type(error).__name__}"
                path.rename(Path(tempfile.gettempdir()) / f"fuzz_{case}.onnx")  # to look at
        entry = {"case": case, "file": files[chosen].name, "outcome": outcome}
        say("end " + json.dumps(entry | ({"where": where[-3000:]} if where else {})))


def limit_memory(room: int) -> None:
    """Bound this process's address space at ``room`` bytes above what it has now."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def run_slice(folder: Path, seed: int, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Yield what became of these cases; the process may die at any of them."""
    while start < stop:
        command = [sys.executable, __file__, str(folder), "--seed", str(seed), "--work", f"{start}:{stop}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            step = ""
            for line in lines_of(child):
                word, _, rest = line.partition(" ")
                step = word.strip() if word.strip() in ("begin", "run", "end") else step
                if word == "begin":
                    start = int(rest)
                elif word == "end":
                    yield json.loads(rest)
                    start += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
            code = child.poll()
            child.kill()
            if not step:
                raise SystemExit("a process could not begin: run one slice by hand with --work 0:1")
        if start < stop:
            how = f"died ({code})" if code is not None else f"took over {SECONDS} s"
            kind = "converted, run-time" if step == "run" else "FAULT:"
            yield {"case": start, "outcome": f"{kind} {how}"}
            start += 1


def lines_of(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yield what ``child`` prints, until it ends or is silent for too long."""
    assert child.stdout is not None  # noqa: S101
    handle, held, patience = child.stdout.fileno(), b"", BEGINNING
    while select.select([handle], [], [], patience)[0]:
        patience = SECONDS
        if not (read := os.read(handle, 65536)):
            return
        *lines, held = (held + read).split(b"\n")
        yield from (line.decode() for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        start, stop = map(int, options.work.split(":"))
        work(options.folder, options.seed, start, stop)
        return
    options.results.parent.mkdir(parents=True, exist_ok=True)
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    done = {entry["case"]: entry for entry in map(json.loads, lines)}
    with options.results.open("a") as log:
        for start in range(options.start, options.cases, SLICE):
            stop = min(start + SLICE, options.cases)
            left = [case for case in range(start, stop) if case not in done]
            if not left:
                continue
            for entry in run_slice(options.folder, options.seed, left[0], stop):
                done[entry["case"]] = entry
                print(json.dumps(entry), file=log, flush=True)
    counts = Counter(entry["outcome"] for entry in done.values())
    for outcome, count in counts.most_common():
        print(f"{count:6} {outcome}")


if __name__ == "__main__":
    main()
