"""The versions of a bundle's public model and of its streaming twin.

A version is served from the moment that ``<bundle>/N`` is there: it is the last thing to come,
after the networks and the twin's, and the first to go.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from backtal.manifest import MANIFEST_NAME, Manifest
from backtal.repository import (
    STREAM_SUFFIX,
    bundle_versions,
    load_bundle,
    manifest_path,
    public_models,
)
from backtal_export.drafts import draft_beside, rename_over
from backtal_export.model_card import CARD_NAME, model_card
from backtal_export.runtimes import TEMPLATES, fill_template

_PROGRESS = """,
  { name: "progress" data_type: TYPE_FP32 dims: [ 2 ] }"""


def public_configuration(manifest: Manifest, model: str) -> str:
    """The config.pbtxt of the bundle's public model, or of its streaming twin."""
    decoupled = model.endswith(STREAM_SUFFIX)
    return fill_template(
        "bundle",
        name=model,
        feature_dim=manifest.description.feature_dim,
        channels=manifest.description.cas_channels,
        progress=_PROGRESS if decoupled else "",
        decoupled=str(decoupled).lower(),
    )


def write_public_models(repository: Path, manifest: Manifest) -> int:
    """Give the bundle a new version, unless its highest one is the same; the version's number.

    The networks that it names must be there already. Raises OSError, and then there is no new
    version: all that takes room is written before the first of the two folders is put in place.
    """
    name = manifest.description.name
    versions = [bundle_versions(repository, model) for model in public_models(name)]
    newest = max((numbers[-1] for numbers in versions if numbers), default=0)
    # Where only one of the two was written before a crash, both are written anew.
    if newest and all(numbers and numbers[-1] == newest for numbers in versions):
        newest_manifest = manifest_path(repository, name, newest)
        if newest_manifest.read_text() == manifest.to_text():
            return newest
    with ExitStack() as stack:
        drafts = [
            (stack.enter_context(draft_beside(repository / model)), model)
            for model in public_models(name)
        ]
        for draft, model in drafts:
            _write_draft(draft, manifest, model, newest + 1)
        for draft, model in drafts:
            _put_in_place(draft, repository / model, newest + 1)
    return newest + 1


def remove_version(repository: Path, bundle: str, version: int) -> None:
    """Take a version away; its models get the configuration of the highest that is left.

    The bundle goes with its only version.
    """
    left = [number for number in bundle_versions(repository, bundle) if number != version]
    manifest = load_bundle(repository, bundle, left[-1]) if left else None
    for model in reversed(public_models(bundle)):
        folder = repository / model
        with draft_beside(folder) as draft:
            if manifest is None:
                folder.rename(draft / model)
                continue
            config = draft / "config.pbtxt"
            config.write_text(public_configuration(manifest, model))
            if (folder / str(version)).exists():
                (folder / str(version)).rename(draft / str(version))
            config.replace(folder / config.name)


def _write_draft(draft: Path, manifest: Manifest, model: str, version: int) -> None:
    (draft / "config.pbtxt").write_text(public_configuration(manifest, model))
    content = draft / str(version)
    content.mkdir()
    shutil.copyfile(TEMPLATES / "bundle" / "1" / "model.py", content / "model.py")
    (content / CARD_NAME).write_text(model_card(manifest), encoding="utf-8")
    manifest.save(content / MANIFEST_NAME)


def _put_in_place(draft: Path, folder: Path, version: int) -> None:
    if not folder.exists():
        draft.rename(folder)
        return
    (draft / "config.pbtxt").replace(folder / "config.pbtxt")
    rename_over(draft / str(version), folder / str(version))
