"""What HTTP responses of providers say: failures, limits, events. Without any input or output."""
