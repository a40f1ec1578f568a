"""The exit codes of `llorch`. docs/cli.md has the same list."""

DONE = 0
FAILED = 1
"""Refused, or tried and failed."""
USAGE = 2
"""The command line or the settings are to be corrected."""
UNREACHABLE = 3
"""No orchestrator answers."""
INTERRUPTED = 130
