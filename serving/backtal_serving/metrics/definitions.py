"""Every metric of the service: its name, its labels, what it means. docs/metrics.md is made of it.

No label takes a value that a caller can make up: codes, stages, reasons and codecs are from fixed
lists, bundles and classes from the repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from backtal.errors import VideoProblem
from backtal.feature_store.entry import Outcome

Kind = Literal["counter", "gauge", "histogram"]
MEBIBYTE = 1 << 20

REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
STAGE_BUCKETS = (0.001, 0.0025, *REQUEST_BUCKETS)
INPUT_SECONDS_BUCKETS = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 21600)
INPUT_BYTES_BUCKETS = tuple(
    int(size * MEBIBYTE) for size in (1 / 64, 1 / 4, 1, 4, 16, 64, 256, 1024, 4096, 8192)
)
CANARY_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


@dataclass(frozen=True)
class Metric:
    """One family. name: as it is exposed. buckets: upper bounds, without the infinite one."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# The door: what callers asked for and what they were told.
REQUESTS = Metric(
    "backtal_requests_total",
    "counter",
    "Detections that ended, by gRPC code, entry (grpc, http, job) and bundle; the bundle is empty "
    "where the request ended before it was known. A job counts once, at its end.",
    ("code", "entry", "bundle"),
)
OTHER_REQUESTS = Metric(
    "backtal_other_requests_total",
    "counter",
    "Requests that ended and were no detections (models, metadata, adding and looking at jobs), by "
    "gRPC code and entry (grpc, http).",
    ("code", "entry"),
)
REQUEST_SECONDS = Metric(
    "backtal_request_seconds",
    "histogram",
    "From a detection's first byte to the end of its answer, whatever that was; of a job, from its "
    "start.",
    ("entry", "bundle"),
    REQUEST_BUCKETS,
)
IN_FLIGHT = Metric("backtal_requests_in_flight", "gauge", "Requests that are inside the door.")
WAITING = Metric(
    "backtal_requests_waiting", "gauge", "Requests that wait for their turn.", ("bundle",)
)
AT_ONCE = Metric(
    "backtal_requests_at_once",
    "gauge",
    "How many requests a bundle works on at once, at most.",
    ("bundle",),
)
QUEUE_SECONDS = Metric(
    "backtal_queue_seconds",
    "histogram",
    "What a request that got its turn had waited for it.",
    ("bundle",),
    STAGE_BUCKETS,
)
SPOOL_BYTES = Metric("backtal_spool_bytes", "gauge", "Bytes of uploads that lie in the spool.")
SPOOL_LIMIT = Metric("backtal_spool_limit_bytes", "gauge", "Bytes that the spool may hold.")
JOBS = Metric(
    "backtal_jobs",
    "gauge",
    "Jobs that are kept, by state (queued, running, succeeded, failed, cancelled).",
    ("state",),
)
BUNDLE_INFO = Metric(
    "backtal_bundle_info",
    "gauge",
    "1 for each version of a bundle that is ready.",
    ("bundle", "sha256", "version", "backbone", "precision"),
)
SOURCE_UP = Metric(
    "backtal_metrics_source_up",
    "gauge",
    "1 where the metrics of Triton, or of the supervisor, could be had for this exposition.",
    ("source",),
)
DOOR = (
    REQUESTS,
    OTHER_REQUESTS,
    REQUEST_SECONDS,
    IN_FLIGHT,
    WAITING,
    AT_ONCE,
    QUEUE_SECONDS,
    SPOOL_BYTES,
    SPOOL_LIMIT,
    JOBS,
    BUNDLE_INFO,
    SOURCE_UP,
)

# The pipeline: what answers cost and what was in them. The canary's are not among them.
STAGES = ("decode", "rgb", "flow", "cas", "localize", "total")
STAGE_SECONDS = Metric(
    "backtal_stage_seconds",
    "histogram",
    f"Seconds that a stage ({', '.join(STAGES)}) worked on a request that was answered; one "
    "observation a request and stage. Decoding runs beside the networks, so that the stages' sum "
    "may exceed the total.",
    ("bundle", "stage"),
    STAGE_BUCKETS,
)
VIDEO_SECONDS = Metric(
    "backtal_video_seconds_total", "counter", "Seconds of video that were answered.", ("bundle",)
)
FRAMES = Metric(
    "backtal_frames_total", "counter", "Frames that were decoded for answers.", ("bundle",)
)
CLIPS = Metric(
    "backtal_clips_total",
    "counter",
    "Clips that went through the backbones for answers; each counts once, whatever the streams.",
    ("bundle",),
)
WINDOWS = Metric(
    "backtal_windows_total", "counter", "Windows that localization scored for answers.", ("bundle",)
)
INPUT_SECONDS = Metric(
    "backtal_input_seconds",
    "histogram",
    "Duration of what was answered.",
    ("bundle",),
    INPUT_SECONDS_BUCKETS,
)
INPUT_BYTES = Metric(
    "backtal_input_bytes",
    "histogram",
    "Size of what was answered: of the file, or of the features.",
    ("bundle",),
    INPUT_BYTES_BUCKETS,
)
CODECS = (
    *("h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "prores"),
    *("wmv1", "wmv2", "wmv3", "vc1", "theora", "flv1", "h263", "msmpeg4v3", "ffv1", "dnxhd", "gif"),
)
FEATURES_CODEC, OTHER_CODEC = "features", "other"
INPUTS = Metric(
    "backtal_inputs_total",
    "counter",
    f"Inputs that were answered, by the video's codec ({', '.join(CODECS)}, else {OTHER_CODEC}), "
    f"or {FEATURES_CODEC}.",
    ("bundle", "codec"),
)
REASONS = (*get_args(VideoProblem), "limit", "decoder_unavailable")
DECODE_FAILURES = Metric(
    "backtal_decode_failures_total",
    "counter",
    "Videos that could not be decoded: unreadable (no video at all), no_video_stream, "
    "nothing_decoded, damaged, incomplete (less than it declares), decoder_crashed (twice), limit "
    "(too long, too large), decoder_unavailable (its process did not start, or was killed from "
    "outside).",
    ("bundle", "reason"),
)
STORE_OUTCOMES = get_args(Outcome)
FEATURE_STORE = Metric(
    "backtal_feature_store_total",
    "counter",
    "What the feature store did: videos that were found, missing, or damaged (and made again); "
    "those whose features were kept; failed, a look-up or an entry that its disk or object store "
    "did not serve.",
    ("bundle", "outcome"),
)
SEGMENTS = Metric(
    "backtal_segments_total", "counter", "Segments in answers, by class.", ("bundle", "label")
)
SEGMENT_SCORES = Metric(
    "backtal_segment_scores_total",
    "counter",
    "The sum of these segments' scores: the mean score is the ratio of the two rates.",
    ("bundle", "label"),
)
CHILDREN_RESTARTED = Metric(
    "backtal_children_restarted_total",
    "counter",
    "Processes that ended before their time and were started again: decoder (told by the "
    "pipeline), model, triton, door.",
    ("child",),
)
PIPELINE = (
    STAGE_SECONDS,
    VIDEO_SECONDS,
    FRAMES,
    CLIPS,
    WINDOWS,
    INPUT_SECONDS,
    INPUT_BYTES,
    INPUTS,
    DECODE_FAILURES,
    FEATURE_STORE,
    SEGMENTS,
    SEGMENT_SCORES,
    CHILDREN_RESTARTED,
)

# The process above the door and Triton, `backtal serve`.
CANARY_SECONDS = Metric(
    "backtal_canary_seconds",
    "histogram",
    "How long the supervisor's own small request took, where it was answered.",
    ("bundle",),
    CANARY_BUCKETS,
)
CANARY_FAILURES = Metric(
    "backtal_canary_failures_total",
    "counter",
    "Small requests of the supervisor's own that say that a bundle does not work.",
    ("bundle",),
)
BUILD_INFO = Metric(
    "backtal_build_info", "gauge", "1: what runs here.", ("version", "python", "triton")
)
SUPERVISOR = (CHILDREN_RESTARTED, CANARY_SECONDS, CANARY_FAILURES, BUILD_INFO)
