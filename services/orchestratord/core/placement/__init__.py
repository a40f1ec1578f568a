"""Which model goes on which devices: candidates, filters, costs, one order, and the reasons."""
