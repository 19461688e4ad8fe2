"""Public server-sent event streams over an event log. Imports nothing; holds the version."""

__version__ = "0.1.0"
