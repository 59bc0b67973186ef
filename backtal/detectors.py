"""Three places where a video can be answered: a server, one embedded for the call, this process.

A source is a video file, a features v1 file (``.npz``), or a URI that the server may read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from backtal.client import DEFAULT_BUNDLE, Client, DetectionOptions
from backtal.detection import DetectionAnswer
from backtal.errors import InvalidArgument, InvalidVideo, MissingDependency, NotFound
from backtal.features import FeatureSequence
from backtal.repository import bundle_names

FEATURES_SUFFIX = ".npz"
EMBEDDED_GROUP = "backtal.embedded"

OnProgress = Callable[[float, float], None]


class Detector(Protocol):
    """Answers sources with one bundle."""

    @property
    def bundle(self) -> str:
        """The bundle's name."""
        ...

    def detect(
        self, source: str, options: DetectionOptions, on_progress: OnProgress
    ) -> DetectionAnswer:
        """Answer one source; `on_progress` gets seconds done and in all."""
        ...


class ServerDetector:
    """Answers by a running server. A file goes as its bytes; by name where it `shares_files`."""

    def __init__(
        self,
        client: Client,
        bundle: str | None,
        *,
        shares_files: bool = False,
        timeout_seconds: float | None = None,
    ) -> None:
        self._client = client
        self._shares_files = shares_files
        self._timeout_seconds = timeout_seconds
        self.bundle = bundle or client.default_bundle()

    def detect(
        self, source: str, options: DetectionOptions, on_progress: OnProgress
    ) -> DetectionAnswer:
        """See `Detector.detect`."""
        given: dict[str, Any]
        if is_uri(source):
            given = {"uri": source}
        elif source.endswith(FEATURES_SUFFIX):
            given = {"features": FeatureSequence.load(Path(source))}
        elif self._shares_files:
            given = {"uri": existing_file(source).resolve().as_uri()}
        else:
            given = {"video": existing_file(source).read_bytes()}
        return self._client.detect(
            **given,
            bundle=self.bundle,
            options=options,
            with_cas=True,
            on_progress=on_progress,
            timeout_seconds=self._timeout_seconds,
        )


class LocalDetector:
    """Answers in this process, without Triton, from a model repository."""

    def __init__(self, repository: Path, bundle: str | None) -> None:
        from backtal.pipeline import Pipeline
        from backtal.runtime import OnnxStages, load_bundle

        self.bundle = bundle or default_bundle(repository)
        self._manifest = load_bundle(repository, self.bundle)
        self._pipeline = Pipeline(self._manifest, OnnxStages(repository, self._manifest))

    def detect(
        self, source: str, options: DetectionOptions, on_progress: OnProgress
    ) -> DetectionAnswer:
        """See `Detector.detect`."""
        from backtal.pipeline import Request

        if is_uri(source):
            raise InvalidArgument(f"{source}: a URI is for a server; --local reads files")
        is_features = source.endswith(FEATURES_SUFFIX)
        unknown = sorted(set(options.classes) - set(self._manifest.description.classes))
        if unknown:
            raise InvalidArgument(f"classes holds {unknown[0]!r}, no class of {self.bundle}")
        answer = self._pipeline.run(
            Request(
                path=None if is_features else existing_file(source),
                features=FeatureSequence.load(Path(source)) if is_features else None,
                score_threshold=options.score_threshold,
                max_segments=options.max_segments,
                classes=options.classes or None,
                nms=options.nms,
                allow_partial=options.allow_partial,
            ),
            on_progress=lambda progress: on_progress(progress.done_seconds, progress.total_seconds),
        )
        return DetectionAnswer.from_pipeline(answer, self._manifest)


@contextmanager
def embedded_server(
    repository: Path, allowed_roots: Sequence[Path], *, feature_folder: Path | None = None
) -> Iterator[Client]:
    """A server for the length of the `with` block, from the room that registers one.

    With a `feature_folder`, what its backbones say of a video is kept there for the next bundle.

    Raises MissingDependency where none is installed; NotFound where the repository is not there.
    """
    from importlib.metadata import entry_points

    check_repository(repository)
    registered = sorted(entry_points(group=EMBEDDED_GROUP))
    if not registered:
        raise MissingDependency(
            "no server to embed is installed: pip install 'backtal[serving]', or take --local"
        )
    server_class = registered[0].load()
    server = server_class(repository, allowed_roots, feature_folder=feature_folder)
    with server, Client(server.grpc_address) as client:
        yield client


def default_bundle(repository: Path) -> str:
    """The repository's only bundle, else `kinetics400`. Raises InvalidArgument else."""
    check_repository(repository)
    names = bundle_names(repository)
    if len(names) == 1:
        return names[0]
    if DEFAULT_BUNDLE in names:
        return DEFAULT_BUNDLE
    raise InvalidArgument(f"name a bundle: {repository} has {', '.join(names) or 'none'}")


def check_repository(repository: Path) -> None:
    """Raise NotFound, with the command that makes one, where there is no repository."""
    if not repository.is_dir():
        raise NotFound(
            f"no model repository at {repository}. Make one: "
            f"backtal export kinetics400 --repository {repository}"
        )


def is_uri(source: str) -> bool:
    """Whether the source is named by a URI, as in file:, s3: and https:."""
    return "://" in source or source.startswith("file:")


def existing_file(source: str) -> Path:
    """The file's path. Raises NotFound, or InvalidVideo for a folder."""
    path = Path(source)
    if path.is_dir():
        raise InvalidVideo(f"{source} is a folder, expected a video file")
    if not path.is_file():
        raise NotFound(f"no such file: {source}")
    return path
