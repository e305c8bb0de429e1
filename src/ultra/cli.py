"""The command `ultra`."""
