"""The process: ``python -m backtal_serving.door.main SETTINGS READY_FILE``, started by `process`.

SIGTERM refuses what is new, lets what is in flight end, and gives 0.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path

from backtal.errors import BacktalError
from backtal.settings import read_json
from backtal_serving.door.core import Door
from backtal_serving.door.grpc_server import GrpcServer
from backtal_serving.door.http.server import HttpServer
from backtal_serving.door.settings import DoorSettings
from backtal_serving.logs import log_as_json


def main() -> int:
    """Run until a signal; the exit code."""
    log_as_json(logging.INFO)
    # It tells of every request, /metrics asks Triton for one each time.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings_file, ready_file = (Path(argument) for argument in sys.argv[1:3])
    try:
        asyncio.run(serve(read_json(DoorSettings, settings_file), ready_file))
    except BacktalError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    return 0


async def serve(settings: DoorSettings, ready_file: Path) -> None:
    """Open the door, write its ports into `ready_file`, and close it after a signal."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    door = Door(settings)
    await door.catalogue.refresh()
    server, web = GrpcServer(door), HttpServer(door)
    tasks = [
        asyncio.create_task(work) for work in (door.watch(), server.watch_health(), web.run_jobs())
    ]
    try:
        ports = {"grpc_port": await server.start()}
        if settings.http_port is not None:
            ports["http_port"] = await web.start()
        temporary = ready_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(ports))
        temporary.replace(ready_file)
        stopped = asyncio.create_task(stopping.wait())
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        grace_seconds = settings.exit_timeout_seconds
        await asyncio.gather(server.stop(grace_seconds), web.stop(grace_seconds))
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await door.close()


if __name__ == "__main__":
    sys.exit(main())
