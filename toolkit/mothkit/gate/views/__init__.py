"""Views of a gate record: JUnit, SARIF, Markdown."""
