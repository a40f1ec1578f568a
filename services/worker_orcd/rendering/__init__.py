"""Chat templates come with model files from anywhere, and are programs: they run in a process of their own.

That process has no secrets, little memory and little time. Whatever a template does there, the worker keeps running.
"""
