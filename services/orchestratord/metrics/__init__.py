"""What operators see of the orchestrator. Names and labels are those of docs/metrics.md; a test holds them together."""
