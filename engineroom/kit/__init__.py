"""Processes, the machine, records and files: the base that every other package uses."""
