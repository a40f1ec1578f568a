"""The values of `--device` and of the shares by device. Pure."""

from dataclasses import dataclass
from math import inf

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, Reason, invalid_field

_KINDS = {"cuda": DeviceKind.CUDA, "cpu": DeviceKind.CPU, "sim": DeviceKind.SIMULATED}


@dataclass(frozen=True, slots=True)
class DeviceSet:
    """One kind, and the ids of its devices in the order in which the engine sees them."""

    kind: DeviceKind
    ids: tuple[str, ...]


def parse_device(text: str, *, allow_cpu: bool) -> DeviceSet:
    """Refuses what is not a device, and the CPU where it was not allowed: there is no silent way to it."""
    word, _, rest = text.partition(":")
    ids = tuple(rest.split(",")) if rest else ()
    kind = _KINDS.get(word)
    if kind is DeviceKind.CPU and not rest:
        if not allow_cpu:
            raise FailedPrecondition(
                Reason.CPU_NOT_ALLOWED,
                "the model would run on the CPU, and that is not allowed; use a GPU, or say --allow-cpu",
            )
        return DeviceSet(DeviceKind.CPU, ("cpu",))
    if kind in (DeviceKind.CUDA, DeviceKind.SIMULATED) and ids and all(ids):
        return DeviceSet(kind, ids)
    raise invalid_field("device", f"is {text!r}; it has to be cuda:<uuid>[,<uuid>…], cpu, or sim:<id>[,<id>…]")


def parse_shares(text: str, devices: int) -> tuple[float, ...]:
    """The shares of a model by device, like "3,1"; none where the text is empty."""
    if not text:
        return ()
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != devices or not all(0 <= share < inf for share in shares) or not sum(shares):
        raise invalid_field("tensor_split", f"is {text!r}; it has to be one share per device ({devices}), like 3,1")
    return shares
