"""pywikibot's EventStreams: reconnects and resumes by requests-sse."""

import datetime
import json
import os
import sys

os.environ["PYWIKIBOT_NO_USER_CONFIG"] = "2"
from pywikibot.comms.eventstreams import EventStreams

stream = EventStreams(url=sys.argv[1], site=None, reconnection_time=datetime.timedelta(seconds=0.1))
for event in stream:
    print(json.dumps(["message", json.dumps(event)]), flush=True)
