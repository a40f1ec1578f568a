"""Whether a file is still the one that it was."""

import os


def identity_of(status: os.stat_result) -> dict[str, int]:
    """What changes when a file is written or replaced."""
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "device": status.st_dev,
        "inode": status.st_ino,
    }
