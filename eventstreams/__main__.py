"""The command `eventstreams`, before anything large is imported: Ctrl-C ends it quietly from the first moment."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

EXIT_INTERRUPTED = 130


def _leave(number: int, frame: FrameType | None) -> None:
    # Not by an exception: libraries that are just being imported would make other errors of it.
    os._exit(EXIT_INTERRUPTED)


def run() -> None:
    """Import the commands and run the one that is asked for."""
    # Where Ctrl-C is ignored, as under nohup, it stays so.
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, _leave)
    from eventstreams.cli import main

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())


if __name__ == "__main__":
    run()
