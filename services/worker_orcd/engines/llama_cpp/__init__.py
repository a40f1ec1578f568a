"""llama.cpp in this process, through the low-level API of llama-cpp-python."""
