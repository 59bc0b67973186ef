"""Images without a Docker engine: built by buildah, run by runc."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.tools import assert_succeeds, program, run
from tests.requirements import require

NEEDED, HINT = "buildah", "apt-get install buildah runc debootstrap"
BUILD_SECONDS = 1800.0
SUITE = "bookworm"
# What pip may be told about where packages come from; folders of this machine stay here.
PLACES = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
CA_FILE = "/etc/pip-ca.pem"


@dataclass(frozen=True)
class Image:
    """A built image: its root file system, and its configuration as Docker has it."""

    root: Path
    user: str
    folder: str
    environment: list[str]
    command: list[str]
    health_check: list[str]


class Builder:
    """buildah with a storage of its own below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._command = [program("buildah", NEEDED, HINT), f"--root={folder / 'root'}"]
        self._command += [f"--runroot={folder / 'run'}"]
        # Not every kernel and disk has overlays; vfs copies the whole image for each step.
        overlay = "--storage-driver=overlay"
        has_overlay = run([*self._command, overlay, "images"]).returncode == 0
        self._command.append(overlay if has_overlay else "--storage-driver=vfs")

    def build(self, context: Path, *options: str) -> str:
        """Build an image; its id."""
        id_file = self._folder / "id"
        how = ["--isolation=chroot", "--format=docker", f"--iidfile={id_file}"]
        self._run("bud", *how, *options, str(context))
        return id_file.read_text()

    def open(self, image: str) -> Image:
        """The image's files, as a container would have them, until `close`."""
        config = json.loads(self._run("inspect", "--type=image", image))["Docker"]["config"]
        root = self._run("mount", self._run("from", image))
        kind, *health_check = config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return Image(
            root=Path(root),
            user=config["User"],
            folder=config["WorkingDir"],
            environment=config["Env"],
            command=[*config["Entrypoint"], *config["Cmd"]],
            health_check=health_check,
        )

    def close(self) -> None:
        """Remove all that was built."""
        self._run("rm", "--all")
        self._run("rmi", "--all", "--force")

    def _run(self, *words: str) -> str:
        return assert_succeeds([*self._command, *words], timeout=BUILD_SECONDS).strip()


def debian(builder: Builder, folder: Path) -> str:
    """A minimal Debian, from where apt of this machine gets its own; the image's id."""
    debootstrap = program("debootstrap", NEEDED, HINT)
    index = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    index += ["Origin: Debian", f"Codename: {SUITE}", "Component: main"]
    mirrors = run(["apt-get", *index]).stdout.split()
    if not mirrors:
        require(NEEDED, f"apt has no Debian {SUITE} among its sources")
    context = folder / "debian"
    root = context / "root"
    assert_succeeds(
        [debootstrap, "--variant=minbase", SUITE, root, mirrors[0]], timeout=BUILD_SECONDS
    )
    (context / "Dockerfile").write_text("FROM scratch\nCOPY root /\n")
    return builder.build(context)


def pip_mounts(folder: Path) -> list[str]:
    """Options of a build that gives its pip what this machine's pip is told of the registry."""
    told = assert_succeeds([sys.executable, "-m", "pip", "config", "list"])
    settings = {}
    for line in told.splitlines():
        name, _, value = line.partition("=")
        settings[name.removeprefix(":env:").rpartition(".")[2]] = value.strip("'")
    lines = ["[global]"]
    for name in PLACES:
        words = [word for word in settings.get(name, "").split() if not word.startswith("file:")]
        if words:
            lines.append(f"{name} = {' '.join(words)}")
    configuration = folder / "pip.conf"
    mounts = [f"--volume={configuration}:/etc/pip.conf:ro"]
    if "cert" in settings:
        lines.append(f"cert = {CA_FILE}")
        mounts.append(f"--volume={settings['cert']}:{CA_FILE}:ro")
    configuration.write_text("\n".join(lines) + "\n")
    return mounts


@dataclass(frozen=True)
class Container:
    """A running container; its network is its own loopback, which nobody else reaches."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    _runc: list[str]

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside what runs there."""
        return run([*self._runc, "exec", self.name, *command])

    def stop(self, timeout: float) -> int:
        """As `docker stop` does; the exit code."""
        assert_succeeds([*self._runc, "kill", self.name, "TERM"])
        return self.process.wait(timeout)


@contextmanager
def running(
    image: Image, folder: Path, mounts: Sequence[Mapping[str, Any]] = ()
) -> Iterator[Container]:
    """A container of the image: `docker run --read-only --cap-drop ALL` and no new privileges."""
    bundle, name, log = folder / "bundle", f"backtal-{folder.name}", folder / "container.log"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(_specification(image, mounts)))
    runc = [program("runc", NEEDED, HINT), f"--root={folder / 'runc'}"]
    command = [*runc, "run", f"--bundle={bundle}", name]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        yield Container(name, process, log, runc)
    finally:
        run([*runc, "delete", "--force", name])
        process.wait(60.0)


def bound(source: Path, destination: str, *options: str) -> dict[str, Any]:
    """A folder of this machine in the container."""
    options = ("rbind", "nosuid", "nodev", *options)
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}


def in_memory(destination: str, *options: str) -> dict[str, Any]:
    """A folder that ends with the container."""
    options = ("nosuid", *options)
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}


def _specification(image: Image, mounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    user = int(image.user)
    return {
        "ociVersion": "1.0.0",
        "root": {"path": str(image.root), "readonly": True},
        "process": {
            "user": {"uid": user, "gid": user},
            "args": image.command,
            "env": image.environment,
            "cwd": image.folder,
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            in_memory("/dev", "mode=755", "size=65536k"),
            *mounts,
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]
        },
    }
