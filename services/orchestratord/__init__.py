"""orchestratord: the brain. Admission, queue, placement, dispatch, streams. All decisions; needs no GPU."""
