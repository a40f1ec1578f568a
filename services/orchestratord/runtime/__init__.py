"""The shell around the brain: it carries events in and effects out, and decides nothing."""
