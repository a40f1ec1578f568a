"""What kind of device computes. Pure."""

from enum import StrEnum


class DeviceKind(StrEnum):
    """The values stand in the orchestrator's records of measured memory: they never change."""

    CUDA = "CUDA"
    CPU = "CPU"
    SIMULATED = "SIMULATED"
