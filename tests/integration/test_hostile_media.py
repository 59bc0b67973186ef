"""Files that are made to do harm, in the decoders that serve: nothing else is read or reached."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from backtal.errors import BacktalError, InvalidArgument, InvalidVideo
from backtal.manifest import ClipPlan
from backtal.video import VideoLimits, open_video
from backtal.video.sandbox import DecoderPool
from tests.made_videos import Layout, encode, steady
from tests.mutations import mutated
from tests.requirements import shared_folder

PLAN = ClipPlan(short_side_pixels=32, crop_pixels=32)
LIMITS = VideoLimits(max_duration_seconds=60.0)
SECONDS_A_FILE = 20.0


@dataclass
class Bytes:
    """A remote object, as a child sees it: through a file object instead of a descriptor."""

    data: bytes
    name: str = "object"
    version: str | None = None
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        self.asked.append((offset, num_bytes))
        return self.data[offset : offset + num_bytes]

    def close(self) -> None: ...


class Canary:
    """A server and a UDP port that nobody may talk to, and a video that nobody may open."""

    def __init__(self, folder: Path) -> None:
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._tcp.getsockname()[1]}/a.mp4"
        self.neighbour = folder / "neighbour.mp4"
        self.neighbour.write_bytes(steady(6))

    def was_touched(self) -> bool:
        return bool(select.select([self._tcp], [], [], 0)[0])

    def close(self) -> None:
        self._tcp.close()


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    with closing(Canary(tmp_path)) as made:
        yield made
        assert not made.was_touched()


def hostile(canary: Canary) -> dict[str, str]:
    """Text that a demuxer may take for an order to open something else."""
    path, url = canary.neighbour, canary.url
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
    return {
        "a playlist of http": playlist.format(url),
        "a playlist of a file": playlist.format(path),
        "a playlist of a neighbour": playlist.format(path.name),
        "a playlist of concat": playlist.format(f"concat:{path}|{path}"),
        "a playlist of subfile": playlist.format(f"subfile,,start,0,end,9999,,:{path}"),
        "a playlist of crypto": playlist.format(f"crypto:{path}"),
        "a playlist with a key": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:1,\nx\n',
        "ffconcat of a file": f"ffconcat version 1.0\nfile '{path}'\n",
        "ffconcat of http": f"ffconcat version 1.0\nfile {url}\n",
        "ffconcat of a device": "ffconcat version 1.0\nfile /proc/self/environ\n",
        "a session description": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 47110 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "a manifest": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
        f'<AdaptationSet mimeType="video/mp4"><Representation id="1"><BaseURL>{url}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "a reference movie": f"RTSPtext\r\n{url}\r\n",
        "metadata": f";FFMETADATA1\ntitle={path}\n",
        "a script": f"#!/bin/sh\ncat {path}\n",
        "subtitles": f"1\n00:00:00,000 --> 00:00:01,000\n{url}\n",
    }


def names() -> list[str]:
    class Nobody:
        neighbour, url = Path("x"), "x"

    return list(hostile(Nobody()))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("is_remote", [False, True])
def test_a_file_that_names_another_is_no_video(
    pool: DecoderPool, canary: Canary, name: str, is_remote: bool
) -> None:
    data = hostile(canary)[name].encode()
    for content in (data, data + b"\n" * 4096):
        with pytest.raises(InvalidVideo, match="no video that can be read"):
            open_video(Bytes(content) if is_remote else content, pool=pool)
        # By its name as well: some demuxers go by that.
        path = canary.neighbour.with_name("innocent.mp4")
        path.write_bytes(content)
        with pytest.raises(InvalidVideo, match="no video that can be read"):
            open_video(path, pool=pool)


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_track_in_another_file_is_not_fetched(
    pool: DecoderPool, canary: Canary, is_remote: bool
) -> None:
    data = with_external_track(steady(6, container="mov"), str(canary.neighbour))
    assert str(canary.neighbour).encode() in data
    # The frames of the file itself, which are where the reference says something else is.
    with pytest.raises(InvalidVideo):
        frames_of(Bytes(data) if is_remote else data, pool)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (encode(Layout(stamps=[0, 25, 25 * 3600])), "one frame for|allowed are up to"),
        (encode(Layout(stamps=[0, 1], size=(64, 2048))), "aspect ratio of 32"),
    ],
)
def test_a_bomb_is_refused(pool: DecoderPool, data: bytes, says: str) -> None:
    with (
        pytest.raises(InvalidArgument, match=says),
        closing(open_video(data, pool=pool)) as video,
    ):
        list(video.windows(PLAN))


@pytest.mark.parametrize("kind", ["gif", "vp8"])
def test_a_header_of_a_huge_picture_is_refused_before_it_is_drawn(
    pool: DecoderPool, kind: str
) -> None:
    data = huge_gif() if kind == "gif" else huge_vp8()
    assert len(data) < 10_000
    started = time.monotonic()
    with pytest.raises(InvalidArgument, match="pixels|no frame of it|no video that can be read"):
        frames_of(data, pool)
    assert time.monotonic() - started < 2.0


def test_shared_media_is_answered_or_refused_in_time(pool: DecoderPool) -> None:
    for path in sorted((shared_folder() / "media" / "broken").iterdir()):
        started = time.monotonic()
        for allow_partial in (False, True):
            with suppress(InvalidArgument):
                frames_of(path, pool, allow_partial=allow_partial)
        assert time.monotonic() - started < SECONDS_A_FILE, path


@pytest.mark.parametrize(
    ("num_files", "seed"),
    [
        (150, 11),
        pytest.param(5000, 12, marks=pytest.mark.long),
        pytest.param(5000, 13, marks=pytest.mark.long),
    ],
)
def test_damage_gives_an_answer_or_an_error_of_the_request(
    pool: DecoderPool,
    num_files: int,
    seed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tell: Callable[[str], None],
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    random = np.random.default_rng(seed)
    kinds = ("mp4", "matroska", "mpegts", "avi", "flv")
    whole = [
        *(steady(12, container=kind, b_frames=2) for kind in kinds),
        steady(12, movflags="frag_keyframe+empty_moov"),
        steady(12, container="matroska", codec="mpeg4"),
    ]
    zygote = pool.zygote_process_id
    num_refused = num_crashed = 0
    slowest_seconds = 0.0
    for number in range(num_files):
        data = mutated(whole[number % len(whole)], random)
        started = time.monotonic()
        source = Bytes(data) if number % 3 == 0 else data
        try:
            frames_of(source, pool, allow_partial=number % 2 == 0)
        except InvalidArgument as error:
            num_refused += 1
            num_crashed += "crashed" in error.message
        except BacktalError as error:
            pytest.fail(f"file {number}: {error!r}")
        slowest_seconds = max(slowest_seconds, time.monotonic() - started)
    tell(
        f"{num_files} files, {num_refused} refused, {num_crashed} crashed a decoder, "
        f"the slowest took {slowest_seconds:.2f} s"
    )
    assert num_files / 10 < num_refused < num_files
    assert num_crashed == 0
    assert slowest_seconds < SECONDS_A_FILE
    assert pool.zygote_process_id == zygote
    assert pool.process_ids == ()
    assert not list(tmp_path.iterdir())


def frames_of(
    source: bytes | Path | Bytes, pool: DecoderPool, *, allow_partial: bool = False
) -> int:
    with closing(open_video(source, LIMITS, pool=pool)) as video:
        return sum(len(w.frames) for w in video.windows(PLAN, allow_partial=allow_partial))


def huge_gif() -> bytes:
    """A picture of 65535x65535 pixels in 800 bytes."""
    data = bytearray(steady(3, container="gif", codec="gif", pix_fmt="rgb8"))
    size = struct.pack("<HH", 0xFFFF, 0xFFFF)
    data[6:10] = size
    return bytes(data)


def huge_vp8() -> bytes:
    """Frames whose own header says 16383x16383, in a track that says 64x48."""
    data = bytearray(steady(3, container="webm", codec="libvpx"))
    at = data.index(b"\x9d\x01\x2a") + 3
    data[at : at + 4] = struct.pack("<HH", 0x3FFF, 0x3FFF)
    return bytes(data)


def with_external_track(mov: bytes, path: str) -> bytes:
    """The file with a reference of its track to another file, as QuickTime writes it."""
    names = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    starts = []
    start = 0
    for name in names:
        start = mov.index(name, start) - 4
        starts.append(start)
    old_start = starts[-1] + 16
    old_size = struct.unpack(">I", mov[old_start : old_start + 4])[0]
    raw = path.encode() + b"\0" * (len(path) % 2)
    alias = bytes(10) + b"\3vol".ljust(28, b"\0") + bytes(12) + b"\4x.mp".ljust(64, b"\0")
    alias += bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    alias += struct.pack(">HH", 2, len(path)) + raw + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    changed = bytearray(mov)
    changed[old_start : old_start + old_size] = entry
    for start in starts:
        size = struct.unpack(">I", changed[start : start + 4])[0] + len(entry) - old_size
        changed[start : start + 4] = struct.pack(">I", size)
    return bytes(changed)
