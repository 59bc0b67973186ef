"""Where the runbook is read: alerts and panels link to its sections."""

from __future__ import annotations

# Of nobody: put your own here and into prometheus/rules, then run `python -m deploy.write`.
RUNBOOK_URL = "https://backtal.example/docs/runbook.md"


def section_url(section: str) -> str:
    """The address of a section, by its anchor."""
    return f"{RUNBOOK_URL}#{section}"
