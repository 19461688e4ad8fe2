"""curl, in a loop of its user's: it is no SSE client, so the blocks are read here and the last id is given back."""

import json
import subprocess
import sys

last = ""
while True:
    header = ["-H", f"Last-Event-ID: {last}"] if last else []
    with subprocess.Popen(["curl", "-sN", *header, sys.argv[1]], stdout=subprocess.PIPE, text=True) as curl:
        block: dict[str, str] = {}
        for line in curl.stdout or ():
            if line != "\n":
                name, _, value = line.rstrip("\n").partition(": ")
                block[name] = value
                continue
            last = block.get("id", last)
            if "data" in block:
                print(json.dumps([block.get("event", "message"), block["data"]]), flush=True)
            block = {}
