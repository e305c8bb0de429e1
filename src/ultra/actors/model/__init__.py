"""The model actor: cache shard, single-flight, retries, limits, breaker, hedging, deployments, metrics."""
