"""Model files on this host: what a reference names, where it lies, and whether it is one."""
