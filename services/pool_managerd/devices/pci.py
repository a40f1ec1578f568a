"""Graphics cards that are plugged in, whether or not a driver knows of them."""

from collections.abc import Sequence
from pathlib import Path

_DISPLAY_CLASSES = ("0x0300", "0x0302", "0x0380")  # VGA, 3D, other display controllers
_MAKERS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}


def cards_on_the_bus(root: Path = Path("/sys/bus/pci/devices")) -> Sequence[str]:
    """As sentences say them, e.g. "a card of NVIDIA (0000:01:00.0)"; those of makers without GPUs are left out."""
    cards = []
    for device in sorted(root.glob("*")):
        maker = _MAKERS.get(_read(device / "vendor"))
        if maker is not None and _read(device / "class").startswith(_DISPLAY_CLASSES):
            cards.append(f"a card of {maker} ({device.name})")
    return cards


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
