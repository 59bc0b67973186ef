"""The model repository as one server sees it: links to the models, our limits on the bundles.

A bundle's configuration is exported once and says nothing of the machine that serves it. So a
server reads a copy, with its own number of instances and length of queue.
"""

from __future__ import annotations

from pathlib import Path

from backtal.errors import InvalidFile
from backtal.manifest import MANIFEST_NAME
from backtal_serving.limits import RequestLimits

CONFIG_NAME = "config.pbtxt"
VARIANTS_NAME = "configs"


def write_view(repository: Path, folder: Path, limits: RequestLimits) -> Path:
    """Write the view of `repository` into the new `folder`, which is returned.

    Raises InvalidFile for a bundle's configuration that cannot be read.
    """
    folder.mkdir()
    for model in sorted(repository.resolve().iterdir()):
        if any(model.glob(f"*/{MANIFEST_NAME}")):
            _write_bundle(model, folder / model.name, limits)
        else:
            (folder / model.name).symlink_to(model)
    return folder


def _write_bundle(model: Path, target: Path, limits: RequestLimits) -> None:
    target.mkdir()
    for entry in model.iterdir():
        if entry.name == CONFIG_NAME:
            (target / entry.name).write_text(limited(entry, limits))
        elif entry.name == VARIANTS_NAME:
            (target / entry.name).mkdir()
            for variant in entry.glob("*.pbtxt"):
                (target / entry.name / variant.name).write_text(limited(variant, limits))
        else:
            (target / entry.name).symlink_to(entry)


def limited(config: Path, limits: RequestLimits) -> str:
    """A model's configuration with `limits` in place of its own. Raises InvalidFile."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise InvalidFile(f"{config} is no model configuration: {error}") from None
    for group in parsed.instance_group:
        group.count = limits.at_once
    # The queue belongs to the batcher; without a batch size it batches nothing.
    policy = parsed.dynamic_batching.default_queue_policy
    policy.max_queue_size = limits.queued
    return str(text_format.MessageToString(parsed))
