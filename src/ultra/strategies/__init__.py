"""Ways to ask models and to merge what they say."""
