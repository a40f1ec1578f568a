"""What must survive the process, behind one interface."""
