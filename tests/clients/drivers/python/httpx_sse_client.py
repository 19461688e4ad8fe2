"""httpx-sse: no reconnect of its own, by design; an empty message for what is not an event is passed on as it comes."""

import json
import sys

import httpx
import httpx_sse

last = ""
with httpx.Client(timeout=30.0) as http:
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with httpx_sse.connect_sse(http, "GET", sys.argv[1], headers=headers) as source:
                for event in source.iter_sse():
                    last = event.id or last
                    print(json.dumps([event.event, event.data]), flush=True)
        except httpx.TransportError:
            pass
