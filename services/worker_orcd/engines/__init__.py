"""Engines: each loads one model and turns runs into tokens, behind one protocol."""
