"""The dcsup command."""
