"""The protocol of Anthropic's messages."""
