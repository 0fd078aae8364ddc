"""Parts of bootstrap.py: standard library only."""
