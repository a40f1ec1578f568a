"""Decisions, as a synchronous state machine: events in, effects out, the time handed in.

Nothing here knows asyncio, gRPC, protobuf, files or clocks, so the same code runs in the daemon, in simulations under
virtual time, and on a copy for a caller that asks what would happen.
"""
