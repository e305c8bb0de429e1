"""Webhooks: somebody is told of the ends of runs in the background, by Standard Webhooks."""
