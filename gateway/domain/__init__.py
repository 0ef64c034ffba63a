"""The rules of the gateway as pure functions over frozen values: no I/O, no clock, no
framework."""
