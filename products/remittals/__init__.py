"""Remittals: what was collected for agencies is passed on to them, line by line, and they answer line by line."""
