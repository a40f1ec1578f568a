"""The only place where this daemon's protobuf messages meet its own words; one file per resource."""
