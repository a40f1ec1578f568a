"""`llorch gpus`: machines, their devices, and who has their memory."""

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.naming import device_marks, enum_word
from llorch.cli.output import AsJson, as_data, gib, note, print_json, print_table


def gpus(*, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """Show machines and devices: memory used, held by others, reserved, and what can still be given away."""
    from llama_orch.v2 import node_pb2

    state = ask(address, token, lambda client: client.state())
    if json:
        data = as_data(state)
        print_json({"nodes": data["nodes"], "devices": data["devices"]})
        return
    nodes = {node.node_id: node for node in state.nodes}
    if not nodes:
        note("No machine is connected. `llorch up` starts everything on this one.")
        return
    rows = []
    for ledger in state.devices:
        device = ledger.device
        marks = device_marks(ledger)
        node = nodes.get(ledger.node_id)
        if node is not None and node.state != node_pb2.NODE_STATE_READY:
            marks.append(f"machine {enum_word(node_pb2.NodeState, node.state, 'NODE_STATE_')}")
        rows.append(
            (
                ledger.node_id,
                f"{device.index}",
                device.name,
                gib(device.memory_total_mib),
                gib(device.memory_used_mib),
                gib(device.memory_others_mib),
                gib(ledger.reserved_mib),
                gib(ledger.available_mib),
                f"{device.utilization_percent}%" if device.HasField("utilization_percent") else "",
                ", ".join(marks),
            )
        )
    columns = ("MACHINE", ">#", "DEVICE", ">GiB", ">USED", ">OTHERS", ">RESERVED", ">FREE", ">BUSY", "MARKS")
    print_table(columns, rows)
