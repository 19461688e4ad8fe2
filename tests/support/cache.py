"""What tests fetch from package registries, kept in a cache folder outside of the tree until its manifest changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path


def fetched(name: str, manifests: Sequence[Path], fetch: Callable[[Path], None]) -> Path:
    """Return the folder that `fetch` fills, once for these manifests; it may be called again after a failure.

    Raises: whatever `fetch` raises.
    """
    digest = hashlib.sha256(b"\0".join(manifest.read_bytes() for manifest in manifests)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eventstreams"
    folder = cache / f"{name}-{digest}"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        fetch(folder)
        (folder / "complete").touch()
    return folder
