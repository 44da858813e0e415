"""The studio as a Space: the tabletop lab, on a CPU."""

from __future__ import annotations

from pathlib import Path

from attnshift.studio.networks import StudioOptions
from attnshift.studio.serve import serve

if __name__ == "__main__":
    serve(StudioOptions(out=Path("attacks"), host="0.0.0.0"), print)
