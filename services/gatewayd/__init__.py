"""gatewayd: HTTP and SSE for every RPC of the orchestrator; no state and no decisions of its own."""
