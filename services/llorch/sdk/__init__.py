"""The Python SDK: `llorch.AsyncClient`, and `llorch.Client` for programs without an event loop."""
