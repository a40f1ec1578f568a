"""The options of requests: one table per message of the contract, by the names of its fields.

Pure. The checks of orchestrator and worker, the settings file, the command line and docs/options.md read these tables;
the comments of the contract are held against them.
"""
