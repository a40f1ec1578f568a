"""Devices, as they are reported."""

from llama_orch.v2 import device_pb2
from llorch.rpc.enum_table import EnumTable
from llorch.rpc.enum_tables import DEVICE_KINDS
from pool_managerd.devices.device import Device, DeviceProcess, DeviceState, ThrottleReason

_DEVICE_STATES = EnumTable(DeviceState, device_pb2.DeviceState, unused={"RELEASED"})
_THROTTLE_REASONS = EnumTable(ThrottleReason, device_pb2.ThrottleReason)
_MOST_PROCESSES = 16  # per device, in a report


def to_device(device: Device) -> device_pb2.Device:
    return device_pb2.Device(
        device_id=device.device_id,
        kind=DEVICE_KINDS.to_proto(device.kind),
        index=device.index,
        name=device.name,
        state=_DEVICE_STATES.to_proto(device.state),
        memory_total_mib=device.memory_total_mib,
        memory_used_mib=device.memory_used_mib,
        memory_others_mib=device.used_by_others_mib,
        reserve_mib=device.reserve_mib,
        utilization_percent=device.utilisation_percent,
        temperature_c=device.temperature_c,
        power_w=device.power_w,
        compute_capability=device.compute_capability,
        driver_version=device.driver_version,
        ecc_errors=device.ecc_errors,
        throttled=bool(device.throttle_reasons),
        throttle_reasons=[_THROTTLE_REASONS.to_proto(reason) for reason in device.throttle_reasons],
        engines=device.engines,
        processes=[_process(process) for process in device.processes[:_MOST_PROCESSES]],
    )


def _process(process: DeviceProcess) -> device_pb2.DeviceProcess:
    return device_pb2.DeviceProcess(
        pid=process.pid, name=process.name, memory_mib=process.memory_mib, worker_id=process.worker_id
    )
