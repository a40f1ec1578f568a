"""What a model's answer means: text, thoughts and tool calls, read from its output while it comes."""
