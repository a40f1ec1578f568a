"""Times of runs that more than one daemon has to agree on, in seconds."""

SILENT_FOR_S = 3.0
"""A worker whose frames do not come for so long has lost its connection, or does nothing: the orchestrator connects
again, and asks its pool manager whether anything is heard of it at all.
"""

KEPT_FOR_S = 60.0
"""A worker keeps a run whose output no orchestrator reads for so long, then cancels it; the orchestrator waits no
longer for one to be found again. Longer than a cut line takes to be mended, and than an orchestrator that is started
again.
"""
