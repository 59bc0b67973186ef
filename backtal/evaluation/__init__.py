"""How good detections are: mAP, what kinds of errors they hold, and how true their scores are."""

from __future__ import annotations

from backtal.evaluation.diagnosis import Diagnosis, DiagnosisSettings, diagnose
from backtal.evaluation.matching import Detections
from backtal.evaluation.protocol import EvaluationResult, mean_average_precision
from backtal.evaluation.reliability import Reliability, outcomes, reliability
from backtal.evaluation.results import (
    parse_results,
    read_results,
    results_document,
    write_results,
)

__all__ = [
    "Detections",
    "Diagnosis",
    "DiagnosisSettings",
    "EvaluationResult",
    "Reliability",
    "diagnose",
    "mean_average_precision",
    "outcomes",
    "parse_results",
    "read_results",
    "reliability",
    "results_document",
    "write_results",
]
