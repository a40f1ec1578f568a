"""Parses a model's output while it streams into text, thoughts and tool calls."""
