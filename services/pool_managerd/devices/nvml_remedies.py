"""What the owner of a machine does about an NVIDIA driver that shows no GPU. Pure."""

INSTALL_DRIVER = "install the NVIDIA driver (nvidia-smi must list the card)"
INSTALL_BINDING = "pip install 'llama-orch[gpu]'"
LOOK_AT_THE_CARD = (
    "see what nvidia-smi and `sudo dmesg | grep -i xid` say; a card that fell off the bus comes back with a reboot, "
    "if its power supply and its slot are sound"
)

# By the codes of nvml.h (nvmlReturn_t).
_BY_CODE = {
    4: "give the user of this daemon access to /dev/nvidia* (groups video and render), or run it as one who has it",
    9: "load the driver with `sudo modprobe nvidia`; where that fails after an upgrade of the kernel, install it again",
    12: INSTALL_DRIVER,
    15: LOOK_AT_THE_CARD,
    16: LOOK_AT_THE_CARD,
    18: "reboot: the driver was upgraded, and the old one is still loaded",
}


def remedy(code: object) -> str:
    """`code` is the `value` of an NVMLError."""
    return _BY_CODE.get(code, INSTALL_DRIVER) if isinstance(code, int) else INSTALL_DRIVER
