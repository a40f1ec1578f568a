"""A whole system on one machine: orchestrator, pool manager and gateway as child processes of this one.

What `llorch up`, the demonstration and the end-to-end tests run. Needs the extra `server`; knows the daemons by
their commands only.
"""
