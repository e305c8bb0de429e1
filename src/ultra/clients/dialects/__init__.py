"""What each provider's API says and understands: one file for each, without any input or output."""
