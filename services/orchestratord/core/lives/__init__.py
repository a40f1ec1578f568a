"""Handlers of events, one file per kind of thing. They change the state and emit effects."""
