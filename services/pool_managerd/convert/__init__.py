"""The only place where this daemon's protobuf messages meet its own types; one file per resource."""
