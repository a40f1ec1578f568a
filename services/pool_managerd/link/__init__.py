"""The link to the orchestrator: this node calls, registers and reports; it is never asked to decide."""
