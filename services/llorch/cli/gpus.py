"""`llorch gpus`: machines, their devices, and the programs that hold their memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.naming import device_marks, node_mark, pool_mark
from llorch.cli.node_troubles import note_troubles
from llorch.cli.output import AsJson, as_data, gib, note, note_sentence, print_json, print_rows
from llorch.counted import counted

if TYPE_CHECKING:
    from llama_orch.v2 import device_pb2, fleet_service_pb2, node_pb2

Sensor = tuple[str, Literal["utilization_percent", "temperature_c", "power_w"], str]
"""Column, field of a device, unit."""

_MOST_PROGRAMS = 3
_WORTH_NAMING_MIB = 64

_COLUMNS = ("PLACE", "DEVICE", ">GiB", ">USED", ">OTHERS", ">RESERVED", ">FREE")
_SENSORS: tuple[Sensor, ...] = (
    ("BUSY", "utilization_percent", "%"),
    ("TEMP", "temperature_c", "°C"),
    ("POWER", "power_w", "W"),
)


def gpus(*, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """Show machines and devices: memory used, held by others, reserved, and what can still be given away."""
    state = ask(address, token, lambda client: client.state())
    if json:
        data = as_data(state)
        print_json({"nodes": data["nodes"], "devices": data["devices"]})
        return
    nodes = {node.node_id: node for node in state.nodes}
    if not nodes:
        note("No machine is connected. `llorch up` starts everything on this one.")
        return
    sensors = [sensor for sensor in _SENSORS if any(ledger.device.HasField(sensor[1]) for ledger in state.devices)]
    note_troubles(state)
    print_rows(
        (*_COLUMNS, *(f">{name}" for name, _, _ in sensors)),
        [_row(ledger, sensors) for ledger in state.devices],
        [_notes(ledger, nodes.get(ledger.node_id)) for ledger in state.devices],
    )
    for node in state.nodes:
        if node.saved_sessions.sequences and node.saved_sessions.budget_mib:
            note_sentence(_saved(node))


def _row(ledger: "fleet_service_pb2.DeviceLedger", sensors: Sequence[Sensor]) -> tuple[str, ...]:
    """Sensors that no device here has are left out; the place is as `llorch assign --to` takes it."""
    device = ledger.device
    return (
        _place(ledger),
        device.name,
        gib(device.memory_total_mib),
        gib(device.memory_used_mib),
        gib(device.memory_others_mib),
        gib(ledger.reserved_mib),
        gib(ledger.available_mib),
        *(f"{getattr(device, field)}{unit}" if device.HasField(field) else "" for _, field, unit in sensors),
    )


def _place(ledger: "fleet_service_pb2.DeviceLedger") -> str:
    from llama_orch.v2 import device_pb2

    is_cpu = ledger.device.kind == device_pb2.DEVICE_KIND_CPU
    return f"{ledger.node_id}/{'cpu' if is_cpu else ledger.device.index}"


def _notes(ledger: "fleet_service_pb2.DeviceLedger", node: "node_pb2.Node | None") -> list[str]:

    device = ledger.device
    notes = device_marks(ledger)
    if node is not None:
        notes += filter(None, (node_mark(node), pool_mark(node, [device.device_id])))
    if device.ecc_errors:
        notes.append(f"{device.ecc_errors} memory errors")
    if device.reserve_mib:
        notes.append(f"{gib(device.reserve_mib)} GiB kept free by its owner")
    if ledger.returning_mib:
        notes.append(f"{gib(ledger.returning_mib)} GiB on the way back")
    if programs := _programs_of_others(device):
        notes.append(f"others: {programs}")
    return notes


def _saved(node: "node_pb2.Node") -> str:
    saved = node.saved_sessions
    sequences = counted(saved.sequences, "sequence")
    return f"{node.node_id} has saved sessions: {sequences}, {saved.size_mib} of {saved.budget_mib} MiB."


def _programs_of_others(device: "device_pb2.Device") -> str:
    """The programs that hold most memory there, without our workers."""
    found = [
        process for process in device.processes if not process.worker_id and process.memory_mib >= _WORTH_NAMING_MIB
    ]
    found.sort(key=lambda process: -process.memory_mib)
    named = [f"{process.name or 'a program'} (pid {process.pid}) {gib(process.memory_mib)} GiB" for process in found]
    more = len(named) - _MOST_PROGRAMS
    return " + ".join(named[:_MOST_PROGRAMS]) + (f" + {more} more" if more > 0 else "")
