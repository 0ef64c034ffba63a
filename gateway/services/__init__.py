"""What the gateway does, one file per doing. Each takes the runtime first, never a framework."""
