"""The file itself: whole, valid, confined, no larger than allowed."""

from mothkit.errors import ModelError
from mothkit.gate.bench import Bench
from mothkit.gate.findings import Checked, compared, holds
from mothkit.gate.policy import FileCheck


def check_file(settings: FileCheck, bench: Bench) -> Checked:
    """Return whether the file can be taken as a model, and what the policy says of its size and external data."""
    path = bench.request.path
    path.open("rb").close()  # one that cannot be read says nothing of what is in it
    try:
        source = bench.source
    except ModelError as error:
        return Checked(findings=[holds("file.valid", passed=False, message=str(error))])
    external = sorted(source.external)
    size = path.stat().st_size + sum(source.external.values())
    findings = [holds("file.valid", passed=True, message="ONNX's checker takes it; its data are whole")]
    if not settings.external_data:
        told = f"weights lie in {', '.join(external)}" if external else "it has no external data"
        findings.append(holds("file.external-data", passed=not external, message=told))
    findings += compared("file.size", size, "size in bytes", most=settings.max_bytes)
    return Checked(findings=findings, measured={"bytes": size, "external": external})
