"""The actor of one registered model: cache shard, single-flight, limits, retries, breaker, metrics."""
