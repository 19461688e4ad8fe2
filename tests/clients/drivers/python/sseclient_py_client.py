"""sseclient-py over requests: no reconnect of its own."""

import json
import sys

import requests
import sseclient

last = ""
while True:
    headers = {"Last-Event-ID": last} if last else {}
    response = requests.get(sys.argv[1], stream=True, headers=headers, timeout=30)
    try:
        for event in sseclient.SSEClient(response).events():
            last = event.id or last
            print(json.dumps([event.event, event.data]), flush=True)
    except requests.RequestException:
        pass
