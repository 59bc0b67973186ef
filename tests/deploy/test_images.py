"""What the images install: pinned by hash, at the versions that the tests have run with."""

from __future__ import annotations

import re

import pytest

from tests.requirements import PROJECT_ROOT

IMAGE = PROJECT_ROOT / "deploy" / "image"
DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text()
CONSTRAINTS = (PROJECT_ROOT / "constraints.txt").read_text()


def pins(name: str) -> dict[str, str]:
    """The versions of a file, by package."""
    lines = re.findall(r"^([\w.-]+)==(\S+) \\$", (IMAGE / name).read_text(), re.M)
    assert lines
    return dict(lines)


@pytest.mark.parametrize("name", ["embedded.txt", "triton.txt", "index.txt"])
def test_the_pins_are_those_of_the_constraints(name: str) -> None:
    for package, version in pins(name).items():
        assert re.search(rf"^{re.escape(package)}=={re.escape(version)}(;|$)", CONSTRAINTS, re.M), (
            f"{package}=={version} is not in constraints.txt: make image-pins"
        )


@pytest.mark.parametrize("name", ["embedded.txt", "triton.txt", "index.txt", "tools.txt"])
def test_every_package_has_its_hashes(name: str) -> None:
    text = (IMAGE / name).read_text()
    assert "://" not in text
    assert text.count(" \\\n    --hash=sha256:") >= len(pins(name))
    assert f"{name}" in DOCKERFILE
    assert DOCKERFILE.count("--require-hashes") == 4


def test_the_images_have_no_torch_and_one_triton() -> None:
    assert "nvidia-pytriton" in pins("embedded.txt")
    for name in ("embedded.txt", "triton.txt"):
        assert not {"torch", "decord", "pyarrow"} & set(pins(name))
        assert pins(name)["numpy"].startswith("1.")
    assert "nvidia-pytriton" not in pins("triton.txt")


def test_the_images_run_as_nobody_special() -> None:
    assert re.findall(r"^USER (\d+)$", DOCKERFILE, re.M)[-1] == "10001"
    stages = re.findall(r"^FROM \S+ AS ([\w-]+)$", DOCKERFILE, re.M)
    assert [stage for stage in stages if "packages" not in stage] == [
        "build",
        "index",
        "triton",
        "embedded",
    ]
    assert DOCKERFILE.count("HEALTHCHECK") == 2


def test_the_context_has_what_is_copied_and_no_more() -> None:
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.M)
    wanted = {word.split("/")[0] for line in copied for word in line.split()}
    ignored = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == wanted
    for word in wanted:
        assert (PROJECT_ROOT / word).exists()


def test_what_is_copied_from_a_stage_is_named_from_its_root() -> None:
    copied = re.findall(r"^COPY --from=\S+ (.+) \S+$", DOCKERFILE, re.M)
    assert copied
    for line in copied:
        assert all(word.startswith("/") for word in line.split()), line
