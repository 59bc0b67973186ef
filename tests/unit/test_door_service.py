"""What a door is told of the server behind it."""

from __future__ import annotations

from pathlib import Path

from backtal_serving.door.service import behind_door, door_of
from backtal_serving.door.settings import DoorSettings
from backtal_serving.server_options import ServerOptions


def test_requests_in_flight_have_as_long_in_the_door_as_in_triton(tmp_path: Path) -> None:
    options = ServerOptions(repository=tmp_path, exit_timeout_seconds=600)
    server = behind_door(options, tmp_path, tmp_path / "spool")
    door = door_of(server, DoorSettings(triton_address="", folder=tmp_path))
    door.stop()
    assert door.settings.exit_timeout_seconds == 600
