"""The course's JupyterLab: its command line, settings, terminals and first-run tour."""
