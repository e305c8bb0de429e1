"""The web page of the service: a question to an ensemble, and the actors at work."""
