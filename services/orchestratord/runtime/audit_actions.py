"""What changes are called in the audit log, and which of their fields it has. These names never change."""

from orchestratord.core import events
from orchestratord.store.shape import Shape

ACTIONS = (
    Shape(events.ModelRegistered, ("spec", "origin", "provenance", "at_ms"), tag="model.registered"),
    Shape(events.ModelStateSet, ("model", "state"), tag="model.state_set"),
    Shape(events.ModelDeleted, ("model",), tag="model.deleted"),
    Shape(events.ModelLoadAsked, ("model", "load_id", "places", "anew"), tag="model.load_asked"),
    Shape(events.ModelUnloadAsked, ("model", "even_if_busy"), tag="model.unload_asked"),
    Shape(events.ModelVerified, ("source", "digest"), tag="model.verified"),
    Shape(events.WorkerStopAsked, ("worker_id", "even_if_busy"), tag="worker.stop_asked"),
    Shape(events.AssignmentSet, ("draft", "at_ms"), tag="assignment.set"),
    Shape(events.AssignmentDeleted, ("assignment_id",), tag="assignment.deleted"),
    Shape(events.DeviceReleaseAsked, ("node_id", "device_ids", "duration_s", "until_ms"), tag="device.release_asked"),
    Shape(events.DeviceResumeAsked, ("node_id", "device_ids"), tag="device.resume_asked"),
    Shape(events.PoolDrainAsked, ("pool_id", "deadline_s", "policy", "after"), tag="pool.drain_asked"),
    Shape(events.NodeForgotten, ("node_id",), tag="node.forgotten"),
    Shape(events.AppCreated, ("app",), tag="app.created"),
    Shape(events.AppUpdated, ("app",), tag="app.updated"),
    Shape(events.AppDeleted, ("name",), tag="app.deleted"),
    Shape(events.SessionDeleted, ("app", "session_id"), tag="session.deleted"),
)
"""By what the command is for. An event that is not here is work, or a report, or comes from the settings file."""

BY_EVENT = {shape.type: shape for shape in ACTIONS}
