"""Debian's curl, with the options that are given."""

import json
import subprocess
import sys

url, *options = sys.argv[1:]
for post in json.load(sys.stdin):
    chunked = ["-H", "Transfer-Encoding: chunked"] if post["chunked"] else []
    command = ["curl", "-sS", *options, *chunked, "-H", "Content-Type: application/json", "--data-binary", "@-"]
    command += ["-w", "\n%{http_code}", url]
    done = subprocess.run(command, input=post["body"].encode(), capture_output=True, check=True)
    text, _, status = done.stdout.decode().rpartition("\n")
    print(json.dumps([int(status), text]), flush=True)
