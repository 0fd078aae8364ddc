"""Processes, the machine, records and files: what every other package stands on."""
