"""What the supervisor tells the front door of the versions: a file in the folder they share."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from backtal.settings import Settings

REPORT_NAME = "versions.json"


class RefusedVersion(Settings):
    """A version that the repository holds and that is not served, and why."""

    bundle: str
    number: int
    problem: str


class VersionReport(Settings):
    """served: of each bundle the versions, with their hashes. refused: what was tried in vain."""

    served: dict[str, dict[str, str]] = Field(default_factory=dict)
    refused: tuple[RefusedVersion, ...] = ()

    def write(self, path: Path) -> None:
        """Put it in the place of the one before, whole."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(self.model_dump_json())
        temporary.replace(path)
