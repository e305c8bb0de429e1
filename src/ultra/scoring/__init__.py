"""The quality of answers: their agreement, their final answers, and the grades of a judge."""
