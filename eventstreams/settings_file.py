"""Which settings file counts where none is named, and what `{here}` means in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "eventstreams.yaml"
HERE = "{here}"
PLACES = ("log", "streams", "schemas", "kafka")
"""Settings that hold paths, kafka those of secrets and certificates; `intake.spool` is one too."""

DEPTH = 4
"""Maps and lists below one another that are looked through: `kafka.producer.NAME.file`."""


def settings_file() -> str | None:
    """Return the settings file of the working directory, None where there is none."""
    return NAME if Path(NAME).is_file() else None


def placed(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings with `{here}` in paths replaced by the folder that their file is in.

    Deliberate: relative paths without it stay those of the working directory, as in the environment.
    """
    made = {name: _placed(value, folder, DEPTH) if name in PLACES else value for name, value in document.items()}
    intake = made.get("intake")
    if isinstance(intake, dict) and "spool" in intake:
        made["intake"] = {**intake, "spool": _placed(intake["spool"], folder, 0)}
    return made


def _placed(value: Any, folder: Path, depth: int) -> Any:
    if isinstance(value, str):
        return value.replace(HERE, str(folder))
    if depth and isinstance(value, list):
        return [_placed(item, folder, depth - 1) for item in value]
    if depth and isinstance(value, dict):
        return {name: _placed(item, folder, depth - 1) for name, item in value.items()}
    return value
