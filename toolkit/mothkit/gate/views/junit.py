"""A gate record as JUnit XML: one suite, a test case a rule and subject."""

from typing import TYPE_CHECKING

from mothkit.gate.views.words import Record, plain, title

if TYPE_CHECKING:
    from junitparser import TestCase


def to_junit(record: Record) -> str:
    """Return ``record`` as JUnit XML; a warning is a passed case with a line of output.

    Raises:
        ImportError: junitparser is not installed.
    """
    from junitparser import JUnitXml, TestSuite

    suite = TestSuite("mothkit gate")  # its properties come first, as Ant's schema has it
    model = record["model_in"]
    for name, value in (
        ("model", model["path"]),
        ("sha256", model.get("sha256", "")),
        ("policy", record["policy"]["name"]),
        ("verdict", record["verdict"]),
    ):
        suite.add_property(name, plain(value))
    for finding in record["findings"]:
        suite.add_testcase(_case(finding))
    xml = JUnitXml("mothkit gate")
    xml.add_testsuite(suite)
    text: str = xml.tostring().decode("utf-8")  # type: ignore[no-untyped-call]
    return text + "\n"


def _case(finding: Record) -> "TestCase":
    from junitparser import Error, Failure, Skipped, TestCase

    case = TestCase(title(finding), classname=f"mothkit.gate.{finding['rule'].split('.')[0]}")
    message = plain(finding["message"])
    match finding["status"], finding["level"]:
        case "error", _:
            case.result = [Error(message, "could not be checked")]
        case "violated", "fail":
            case.result = [Failure(message, "violated")]
        case "violated", _:
            case.system_out = f"warning: {message}"
        case "skipped", _:
            case.result = [Skipped(message)]
        case _:
            case.system_out = message
    return case
