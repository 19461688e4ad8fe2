"""aiohttp-sse-client2: comes back by itself after an end; a cut within a chunk is raised, and its user goes on."""

import asyncio
import datetime
import json
import sys

import aiohttp
from aiohttp_sse_client2 import client


async def main() -> None:
    last = ""
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        pause = datetime.timedelta(seconds=0.1)
        try:
            async with client.EventSource(sys.argv[1], reconnection_time=pause, headers=headers) as source:
                async for event in source:
                    last = event.last_event_id or last
                    print(json.dumps([event.type, event.data]), flush=True)
        except (aiohttp.ClientError, ConnectionError):
            await asyncio.sleep(0.1)


asyncio.run(main())
