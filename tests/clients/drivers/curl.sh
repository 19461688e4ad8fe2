#!/bin/sh
# Prints the stream as it comes; resumes nothing: curl is no SSE client.
exec curl -sN --max-time 60 "$1"
