"""llama-orch: what all daemons share, the Python SDK, and the command line."""
