"""The only place where the worker's protobuf messages meet its dataclasses; one file per resource."""
