"""`engineroom` in a checkout of the course: the library's commands and the course's."""

from __future__ import annotations

from engineroom import cli
from engineroom.cli import LIBRARY, CommandTarget

COURSE = "tools.cli"
COMMANDS = {
    "lab": CommandTarget(COURSE, "Open JupyterLab on the first lesson.", "lab"),
    "run": CommandTarget(COURSE, "Execute lessons without a browser and write a report.", "run"),
    "stop": CommandTarget(COURSE, "Stop the servers whose notebook has ended.", "stop"),
    "machine": CommandTarget(COURSE, "Show what this machine is and what will cause trouble.", "machine"),
    "bill": CommandTarget(COURSE, "Show minutes and dollars of each lesson.", "bill"),
    "progress": CommandTarget(
        "tools.progress", "Show what you have done; write and verify reports to hand in."
    ),
    "sync": CommandTarget(COURSE, "Bring a work folder up to date.", "sync"),
    "lessons": CommandTarget(COURSE, "Build the notebooks from solutions/NN_name.py.", "lessons"),
    "gates": CommandTarget(COURSE, "Say what is wrong with notebooks and with commands on pages.", "gates"),
    "records": CommandTarget(COURSE, "Write the schema of the records.", "records"),
    "timing": CommandTarget("tools.timing.__main__", "Time set-up, lessons and conversions."),
    **LIBRARY,
}


def main() -> None:
    """Run the command line of this process."""
    cli.main(COMMANDS)


if __name__ == "__main__":
    main()
