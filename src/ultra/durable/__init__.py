"""Runs that outlive their process: executed from a journal, and taken up again after a crash."""
