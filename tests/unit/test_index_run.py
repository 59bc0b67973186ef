"""The driver and who watches it, with an engine that does as it is told."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backtal.errors import Internal, InvalidArgument, PermissionDenied
from backtal_indexing.engines import Outcome
from backtal_indexing.metrics import MetricsSettings, RunMetrics
from backtal_indexing.planning import Plan, PlannedVideo, Shard
from backtal_indexing.progress import JsonLines, ProgressBar
from backtal_indexing.run import Driver, RunState
from backtal_indexing.shard import BundleChanged, Rules, ShardReport, VideoFailure


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtal_indexing.run.PAUSE_SECONDS", 0.0)


@dataclass
class FakeEngine:
    """Ends each shard as `decide` says."""

    decide: Callable[[Shard], Outcome]
    max_in_flight: int = 2
    waiting: deque[Shard] = field(default_factory=deque)
    seen: list[Shard] = field(default_factory=list)
    most_in_flight: int = 0
    is_stopped: bool = False

    def submit(self, shard: Shard) -> None:
        self.waiting.append(shard)
        self.seen.append(shard)
        self.most_in_flight = max(self.most_in_flight, len(self.waiting))

    def wait(self, timeout_seconds: float) -> Outcome | None:
        return self.decide(self.waiting.popleft())

    def stop(self) -> None:
        self.is_stopped = True


def done(shard: Shard) -> Outcome:
    num_videos = len(shard.videos)
    return Outcome(shard, report=ShardReport(Counter(done=num_videos), 2.0 * num_videos))


def plan_of(*shards: tuple[int, ...]) -> Plan:
    plan = Plan()
    plan.write(
        Shard(part, -1, tuple(PlannedVideo(f"v{number}", "tiny") for number in numbers))
        for part, numbers in enumerate(shards)
    )
    plan.counts.num_to_do = sum(map(len, shards))
    return plan


def drive(engine: FakeEngine, plan: Plan) -> RunState:
    with plan:
        try:
            return Driver(plan, engine, Rules(max_attempts=3)).run()
        finally:
            assert engine.is_stopped


def test_all_shards_are_done_a_few_at_a_time() -> None:
    engine = FakeEngine(done)
    state = drive(engine, plan_of((1, 2), (3,), (4, 5, 6)))
    assert state.num_videos == Counter(done=6)
    assert state.video_seconds == 12.0
    assert (state.num_left, state.num_shards_left, state.num_in_flight) == (0, 0, 0)
    assert engine.most_in_flight == 2


def test_a_video_that_kills_its_worker_is_found_and_the_others_are_done() -> None:
    def decide(shard: Shard) -> Outcome:
        is_poisoned = any(video.uri == "v2" for video in shard.videos)
        if is_poisoned and shard.verdict is None:
            return Outcome(shard, crash="its worker was killed by SIGSEGV")
        if is_poisoned:
            return Outcome(shard, report=ShardReport(Counter(quarantined=1)))
        return done(shard)

    engine = FakeEngine(decide)
    state = drive(engine, plan_of((1, 2, 3), (4, 5)))
    assert state.num_videos == Counter(done=4, quarantined=1)
    assert (state.num_left, state.num_shards_left) == (0, 0)
    told = [shard for shard in engine.seen if shard.verdict is not None]
    assert [video.uri for shard in told for video in shard.videos] == ["v2"]
    assert told[0].verdict is not None
    assert told[0].verdict.error.startswith("its worker was killed by SIGSEGV, 3 times")
    # Twice as a whole, three times alone, and the verdict.
    assert sum(any(v.uri == "v2" for v in shard.videos) for shard in engine.seen) == 6


def test_a_worker_that_is_lost_once_costs_nobody_anything() -> None:
    lost = Counter(range(2))

    def decide(shard: Shard) -> Outcome:
        if lost[shard.part]:
            lost[shard.part] -= 1
            return Outcome(shard, crash="its worker was lost")
        return done(shard)

    state = drive(FakeEngine(decide), plan_of((1, 2), (3, 4)))
    assert state.num_videos == Counter(done=4)


def test_not_even_a_verdict_can_be_written() -> None:
    state = drive(FakeEngine(lambda shard: Outcome(shard, crash="lost")), plan_of((1,)))
    assert state.num_videos == Counter(failed=1)


def test_an_error_of_the_index_is_tried_three_times_and_then_ends_the_run() -> None:
    refused = PermissionDenied("the store refuses it")
    engine = FakeEngine(lambda shard: Outcome(shard, error=refused))
    with pytest.raises(PermissionDenied, match="the store refuses it"):
        drive(engine, plan_of((1,)))
    assert len(engine.seen) == 3
    twice = [Outcome(Shard(0, -1, ()), error=Internal("x"))] * 2

    def decide(shard: Shard) -> Outcome:
        return Outcome(shard, error=twice.pop().error) if twice else done(shard)

    assert drive(FakeEngine(decide), plan_of((1,))).num_videos == Counter(done=1)


def test_another_bundle_ends_the_run_at_once() -> None:
    engine = FakeEngine(lambda shard: Outcome(shard, error=BundleChanged("start it again")))
    with pytest.raises(BundleChanged, match="start it again"):
        drive(engine, plan_of((1,), (2,), (3,), (4,)))
    assert len(engine.seen) <= 2


CONTRACT = {
    ("backtal_index_videos_total", "done"): 3,
    ("backtal_index_videos_total", "failed"): 0,
    ("backtal_index_videos_total", "quarantined"): 1,
    ("backtal_index_videos_total", "deleted"): 0,
    ("backtal_index_videos_total", "unchanged"): 7,
    ("backtal_index_videos_remaining", None): 6,
    ("backtal_index_shards_remaining", None): 2,
    ("backtal_index_videos_in_flight", None): 5,
    ("backtal_index_video_seconds_total", None): 12.5,
    ("backtal_index_retries_total", None): 4,
    ("backtal_index_last_progress_timestamp_seconds", None): 200.0,
    ("backtal_index_run_start_timestamp_seconds", None): 100.0,
}


def told_state() -> RunState:
    return RunState(
        num_to_do=10,
        num_shards_left=2,
        num_videos=Counter(done=3, quarantined=1),
        video_seconds=12.5,
        num_retries=4,
        num_in_flight=5,
        started=100.0,
        last_progress=200.0,
    )


def samples(text: str) -> dict[tuple[str, str | None], float]:
    return {
        (sample.name, sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels["index"] == "mine"
    }


def test_metrics_have_the_names_of_the_dashboards(tmp_path: Path) -> None:
    file = tmp_path / "index.prom"
    settings = MetricsSettings(port=0, textfile=file)
    with RunMetrics("mine", settings, num_unchanged=7) as metrics:
        metrics.update(told_state())
        metrics.update(told_state())
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as response:
            assert samples(response.read().decode()) == CONTRACT
    assert samples(file.read_text()) == CONTRACT


def test_metrics_that_cannot_be_had_are_told_at_the_start() -> None:
    with RunMetrics("mine", MetricsSettings(port=0)) as first:
        taken = RunMetrics("mine", MetricsSettings(port=first.port))
        with pytest.raises(InvalidArgument, match="cannot be had at 127.0.0.1"):
            taken.__enter__()
    with pytest.raises(InvalidArgument, match="cannot be pushed"):
        RunMetrics("mine", MetricsSettings(push_gateway="127.0.0.1:9")).__enter__()


def test_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines()
    lines.update(told_state())
    lines.update(told_state())
    lines.failed(VideoFailure("v1", "quarantined", "no video"))
    lines.summary(told_state())
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == ["progress", "video_failed", "summary"]
    assert events[1]["error"] == "no video"
    assert events[2]["done"] == 3
    assert events[2]["video_hours"] == pytest.approx(12.5 / 3600)


def test_a_bar_off_a_terminal_tells_failures_and_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ProgressBar() as bar:
        bar.update(told_state())
        for number in range(60):
            bar.failed(VideoFailure(f"v{number}", "failed", "[bold]x"))
    bar.summary(told_state())
    shown = capsys.readouterr().err
    assert "v49: failed: [bold]x" in shown
    assert "v50" not in shown
    assert "more failed" in shown
    assert "3 done, 1 quarantined; 0.00 hours" in shown
