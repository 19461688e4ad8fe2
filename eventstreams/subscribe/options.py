"""What an engine is told once, and what each of its clients is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Sizes in bytes, times in seconds."""

    tail_bytes: int = 64 * 1024 * 1024
    block_cache_bytes: int = 64 * 1024 * 1024
    step_cache_bytes: int = 32 * 1024 * 1024
    heartbeat: float = 15.0
    retry: float = 20.0
    retry_spread: float = 10.0
    """How much later than after `retry` the last of those comes back whose streams end together."""
    flush_interval: float = 0.02
    send_timeout: float = 60.0
    grace: float = 30.0
    partition_refresh: float = 1.0
    """Between looks for partitions that were added, and for topics that were made anew."""
    gone_after: float = 30.0
    """After which a topic that is not there counts as deleted: longer than a cluster takes to restart."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a client is sent what it sees: `positions` is id, event or off; `chunked` for the direct path."""

    json_lines: bool = False
    canary: bool = True
    positions: str = "id"
    chunked: bool = False
