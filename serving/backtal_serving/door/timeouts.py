"""`timeout`: a block that raises asyncio.TimeoutError when its seconds have passed.

`asyncio.wait_for` runs what it waits for in a task of its own: half a dozen turns of the event
loop more, for each request.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["timeout"]
