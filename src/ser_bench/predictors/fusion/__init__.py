"""`model=fusion`: the answers of other finished runs, combined."""
