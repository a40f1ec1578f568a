"""What a worker and the orchestrator have to agree on about runs whose output nobody reads."""

KEPT_FOR_S = 60.0
"""A worker keeps such a run for so long, then cancels it; the orchestrator waits no longer for one to be found again.
Longer than a cut line takes to be mended, and than an orchestrator that is started again.
"""
