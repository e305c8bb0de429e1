"""Prompts by which models read other models' answers: composed, fenced, and cut to fit the context window."""
