"""requests-sse: reconnects and resumes by itself."""

import datetime
import json
import sys

import requests_sse

source = requests_sse.EventSource(sys.argv[1], reconnection_time=datetime.timedelta(seconds=0.1))
with source:
    for event in source:
        print(json.dumps([event.type, event.data]), flush=True)
