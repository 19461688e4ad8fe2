"""launchdarkly-eventsource: reconnects and resumes by itself."""

import json
import sys

from ld_eventsource import SSEClient
from ld_eventsource.config import ConnectStrategy, ErrorStrategy

source = SSEClient(
    connect=ConnectStrategy.http(sys.argv[1]),
    error_strategy=ErrorStrategy.always_continue(),
    initial_retry_delay=0.1,
)
for event in source.events:
    print(json.dumps([event.event, event.data]), flush=True)
