"""Servicers: convert, call, convert. No state, no decisions."""
