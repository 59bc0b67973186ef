"""Who is calling: keys, what each may do, and the file that they are read from.

A key is a long random text that its holder sends as ``authorization: Bearer KEY``. The file has
only its SHA-256: there is nothing to guess in 256 random bits, so a slow hash would buy nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator

from backtal.errors import BacktalError, InvalidFile, PermissionDenied, Unauthenticated
from backtal.settings import Settings
from backtal_serving.handover import is_folder
from backtal_serving.uris.access import check_prefix

KEYS_VARIABLE = "BACKTAL_KEYS"
SCHEME = "bearer"

_log = logging.getLogger(__name__)

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Caller(Settings):
    """A key's holder; `name` is what logs and metrics say.

    models: bundles it may use, roots: folders, and prefixes as in `RemoteAccess`, that its `uri`
    may name; None is all that the server offers. requests_per_second, at_once: its quotas, None is
    no bound of its own.
    """

    name: Name
    role: Literal["user", "operator"] = "user"
    models: tuple[str, ...] | None = None
    roots: tuple[str, ...] | None = None
    requests_per_second: float | None = Field(default=None, gt=0)
    at_once: int | None = Field(default=None, ge=1)

    def check_model(self, bundle: str) -> None:
        """Raise PermissionDenied for a bundle that this caller may not use."""
        if self.models is not None and bundle not in self.models:
            raise PermissionDenied(
                f"model {bundle!r} is not among those of this key: {', '.join(self.models)}"
            )

    @field_validator("roots")
    @classmethod
    def _check_roots(cls, roots: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for root in roots or ():
            if root.startswith(("https:", "s3:")):
                check_prefix(root)
            elif not is_folder(root):
                raise ValueError(f"root {root!r} is no absolute folder and no https: or s3: prefix")
        return roots


class KeyEntry(Caller):
    """A caller with the SHA-256 of its key, in hexadecimal."""

    sha256: Sha256


class KeyFile(Settings):
    """The file of keys."""

    keys: tuple[KeyEntry, ...] = Field(min_length=1)

    @field_validator("keys")
    @classmethod
    def _check_names(cls, keys: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
        for field in ("name", "sha256"):
            values = [getattr(key, field) for key in keys]
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {field}")
        return keys


# Everybody on loopback, where no key is set.
ANYBODY = Caller(name="anybody", role="operator")


def sha256_of_key(key: str) -> str:
    """What the file of keys holds of `key`."""
    return hashlib.sha256(key.encode()).hexdigest()


class KeyRing:
    """The keys of a file, or of the environment; read again when the file changes.

    Raises NotFound and InvalidFile when it is made; later a file that cannot be read leaves the
    keys as they were.
    """

    def __init__(self, path: Path | None, environment: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[tuple[str, Caller], ...] = ()
        text = (os.environ if environment is None else environment).get(KEYS_VARIABLE)
        if path is not None:
            self._stamp = _stamp(path)
            self._keys = _read(path.read_text(), str(path))
        elif text:
            self._keys = _read(text, KEYS_VARIABLE)

    @property
    def is_open(self) -> bool:
        """Whether no key is set, so that anybody may call."""
        return not self._keys

    def caller(self, authorization: str | None) -> Caller:
        """The holder of the key of an `authorization` header. Raises Unauthenticated.

        Every key is compared, each in constant time.
        """
        if self.is_open:
            return ANYBODY
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != SCHEME or not key:
            raise Unauthenticated("no key: send the header `authorization: Bearer KEY`")
        given = sha256_of_key(key.strip())
        found = None
        for sha256, caller in self._keys:
            if hmac.compare_digest(sha256, given):
                found = caller
        if found is None:
            raise Unauthenticated("the key is not known")
        return found

    def named(self, name: str) -> Caller:
        """The caller of that name, for a job of its. Raises Unauthenticated where it is gone."""
        known = {caller.name: caller for _, caller in self._keys} or {ANYBODY.name: ANYBODY}
        if name not in known:
            raise Unauthenticated("the key that asked for this is not there any more")
        return known[name]

    def reload_if_changed(self) -> bool:
        """Read the file again if it changed; whether the keys are new ones now."""
        if self._path is None:
            return False
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            self._keys = _read(self._path.read_text(), str(self._path))
        except (OSError, UnicodeDecodeError, BacktalError) as error:
            _log.error("the keys stay as they were: %s", error)
            return False
        _log.warning("keys read again: %d", len(self._keys))
        return True


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidFile(f"{path}, the file of keys, cannot be read: {error.strerror}") from None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(text: str, source: str) -> tuple[tuple[str, Caller], ...]:
    try:
        raw = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    # An excerpt of the file would put what is in it into the log.
    except (ValueError, RecursionError, yaml.YAMLError):
        raise InvalidFile(f"{source} is neither YAML nor JSON") from None
    return tuple(
        (entry.sha256, Caller.model_validate(entry.model_dump(exclude={"sha256"})))
        for entry in key_entries(raw, source)
    )


def key_entries(raw: Any, source: str) -> tuple[KeyEntry, ...]:
    """The entries of a file of keys. InvalidFile says where it is wrong, not what stands there."""
    try:
        return KeyFile.model_validate(raw).keys
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        ]
        raise InvalidFile(f"{source}: {'; '.join(problems)}") from None
