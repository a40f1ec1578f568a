"""The worker's door: converts, calls the keeper of the runs, converts back."""
