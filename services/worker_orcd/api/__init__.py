"""The worker's RPCs: convert the request, call the keeper of the runs, convert the answer."""
