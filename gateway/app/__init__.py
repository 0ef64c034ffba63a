"""Putting it together: the wiring, the sandbox beside it, the data folder, the process."""
