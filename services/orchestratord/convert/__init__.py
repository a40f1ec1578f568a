"""The only place where the orchestrator's protobuf messages meet its dataclasses; one file per resource."""
