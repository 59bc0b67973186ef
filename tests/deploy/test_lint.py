"""YAML and the Dockerfile are tidy."""

from __future__ import annotations

from tests.deploy.tools import assert_succeeds, program
from tests.requirements import PROJECT_ROOT


def test_yaml() -> None:
    yamllint = program("yamllint", "yamllint", "pip install 'backtal[dev]'")
    assert_succeeds([yamllint, "--strict", "deploy", ".yamllint.yaml"], cwd=PROJECT_ROOT)


def test_the_dockerfile() -> None:
    hadolint = program("hadolint", "hadolint", "pip install 'backtal[dev]'")
    assert_succeeds([hadolint, PROJECT_ROOT / "Dockerfile"])
