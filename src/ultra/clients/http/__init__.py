"""Clients that call models over HTTP: connection pools, event streams, replies, kinds of errors."""
