"""The actor runtime, which knows nothing of language models; `ultra.actors` has its public names."""
