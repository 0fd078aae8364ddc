"""The commands that the course adds to `engineroom`: name -> (module, line of help, name in the module's application).

`engineroom.cli` finds this table by the entry point `engineroom.commands` and imports a module when it is called.
"""

from __future__ import annotations

CLI = "tools.cli"
COMMANDS = {
    "lab": (CLI, "Open JupyterLab on the first lesson.", "lab"),
    "run": (CLI, "Execute lessons without a browser and write a report.", "run"),
    "stop": (CLI, "Stop the servers whose notebook is gone.", "stop"),
    "machine": (CLI, "Show what this machine is and what will hurt.", "machine"),
    "bill": (CLI, "Show minutes and dollars of each lesson.", "bill"),
    "progress": (CLI, "Show what you have done; write a report to hand in.", "progress"),
    "sync": (CLI, "Bring a work folder up to date.", "sync"),
    "lessons": (CLI, "Build the notebooks from solutions/NN_name.py.", "build"),
    "gates": (CLI, "Say what is wrong with the committed notebooks.", "gates"),
    "records": (CLI, "Write the schema of the records.", "records"),
    "timing": ("tools.timing.__main__", "Time set-up, lessons and conversions."),
}
