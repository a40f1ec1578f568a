"""What was learnt: statistics with bounds, which import nothing of the brain."""
