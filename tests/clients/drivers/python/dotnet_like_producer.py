"""Requests as .NET's HttpClient writes them over HTTP/1.1 with all its options on.

The whole URL in the first line, an offer of HTTP/2, and the body only after 100 Continue, in chunks or with a length.
"""

import json
import socket
import sys
from urllib.parse import urlsplit

url = sys.argv[1]
parts = urlsplit(url)
with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
    answers = connection.makefile("rb")

    def head():
        lines = list(iter(answers.readline, b"\r\n"))
        fields = dict(line.decode().rstrip().lower().split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), fields

    for post in json.load(sys.stdin):
        body = post["body"].encode()
        length = "Transfer-Encoding: chunked" if post["chunked"] else f"Content-Length: {len(body)}"
        fields = [
            f"Host: {parts.netloc}",
            "Content-Type: application/json; charset=utf-8",
            "Expect: 100-continue",
            length,
        ]
        offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"]
        request = "\r\n".join([f"POST {url} HTTP/1.1", *fields, *offer, "", ""])
        connection.sendall(request.encode())
        status, told = head()
        if status == 100:
            pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)] if post["chunked"] else [body]
            for piece in pieces:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if post["chunked"] else piece)
            if post["chunked"]:
                connection.sendall(b"0\r\n\r\n")
            status, told = head()
        print(json.dumps([status, answers.read(int(told["content-length"])).decode()]), flush=True)
