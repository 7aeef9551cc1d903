"""A gate record as SARIF 2.1.0: a result for each rule that is violated or could not be checked."""

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from mothkit.gate.rules import RULES
from mothkit.gate.views.words import Record, plain

if TYPE_CHECKING:
    from sarif_pydantic import Artifact, ReportingDescriptor, Result

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def to_sarif(record: Record) -> str:
    """Return ``record`` as SARIF; rules are listed in full, and what passed or was skipped is left out.

    Raises:
        ImportError: sarif-pydantic is not installed.
    """
    from sarif_pydantic import Invocation, Run, Sarif, Tool, ToolDriver

    open_ones = [f for f in record["findings"] if f["status"] in ("violated", "error")]
    driver = ToolDriver(name="mothkit gate", version=record["versions"]["mothkit"], rules=_rules())
    run = Run(
        tool=Tool(driver=driver),
        invocations=[
            Invocation(
                execution_successful=record["verdict"] in ("passed", "violated"),
                properties={"verdict": record["verdict"], "exitCode": record["exit_code"]},
            )
        ],
        artifacts=[_artifact(record["model_in"])],
        results=[_result(finding, record["model_in"]["path"]) for finding in open_ones],
        properties={"policy": plain(record["policy"]["name"]), "policySha256": record["policy"]["sha256"]},
    )
    log = Sarif(schema_uri=_SCHEMA, runs=[run])
    text: str = log.model_dump_json(by_alias=True, exclude_none=True, indent=2)
    return text + "\n"


def _rules() -> "list[ReportingDescriptor]":
    from sarif_pydantic import Message, ReportingDescriptor

    return [
        ReportingDescriptor(id=rule, short_description=Message(text=told)) for rule, told in RULES.items()
    ]


def _artifact(model: Record) -> "Artifact":
    from sarif_pydantic import Artifact, ArtifactLocation

    return Artifact(
        location=ArtifactLocation(uri=_uri(model["path"])),
        roles=["analysisTarget"],
        hashes={"sha-256": model["sha256"]} if "sha256" in model else None,
    )


def _result(finding: Record, path: str) -> "Result":
    from sarif_pydantic import ArtifactLocation, Level, Location, Message, PhysicalLocation, Region, Result

    warns = finding["status"] == "violated" and finding["level"] == "warn"
    place = PhysicalLocation(artifact_location=ArtifactLocation(uri=_uri(path)), region=Region(start_line=1))
    same = hashlib.sha256("\n".join((finding["rule"], finding["subject"], path)).encode(errors="replace"))
    return Result(
        rule_id=finding["rule"],
        rule_index=list(RULES).index(finding["rule"]),
        level=Level.WARNING if warns else Level.ERROR,
        message=Message(text=plain(finding["message"])),
        locations=[Location(physical_location=place)],
        partial_fingerprints={"mothkit/1": same.hexdigest()},
        properties={key: finding[key] for key in ("status", "measured", "limit")}
        | {"subject": plain(finding["subject"])},
    )


def _uri(path: str) -> str:
    return quote(path, errors="replace")
