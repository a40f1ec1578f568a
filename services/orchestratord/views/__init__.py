"""What callers are shown: plain values, computed from the state when a caller asks. What they show is not copied."""
