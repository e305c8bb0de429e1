"""Measuring strategies on questions with known answers: `ultra eval` as a library."""
