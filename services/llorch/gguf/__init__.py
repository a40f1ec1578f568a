"""GGUF model files: what their headers say, and how much memory the models in them take.

A model file may come from anywhere, so nothing here trusts it: counts, lengths and offsets are checked against fixed
bounds and against the file's size before anything is read, and tensor data is never touched.
"""
