"""Clients that call models over HTTP: connection pools, proxies, sending, decompression."""
