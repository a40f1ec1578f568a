"""The worker factory: one process per loaded model, started and ended as told, and truthfully reported."""
