"""OpenAI's API, as its official client speaks it: https://platform.openai.com/docs/api-reference.

A request becomes a task, the task's events become an answer; nothing is decided here. What is supported, and
what is refused: docs/openai.md.
"""
