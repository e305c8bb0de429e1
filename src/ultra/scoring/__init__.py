"""How good answers are: by how much they agree, or by the grades of a judge."""
