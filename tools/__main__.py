"""`engineroom` in a checkout of the course: the library's commands and the course's."""

from __future__ import annotations

from engineroom import cli
from engineroom.cli import LIBRARY, Target

COURSE = "tools.cli"
COMMANDS = {
    "lab": Target(COURSE, "Open JupyterLab on the first lesson.", "lab"),
    "run": Target(COURSE, "Execute lessons without a browser and write a report.", "run"),
    "stop": Target(COURSE, "Stop the servers whose notebook is gone.", "stop"),
    "machine": Target(COURSE, "Show what this machine is and what will hurt.", "machine"),
    "bill": Target(COURSE, "Show minutes and dollars of each lesson.", "bill"),
    "progress": Target(COURSE, "Show what you have done; write a report to hand in.", "progress"),
    "sync": Target(COURSE, "Bring a work folder up to date.", "sync"),
    "lessons": Target(COURSE, "Build the notebooks from solutions/NN_name.py.", "build"),
    "gates": Target(COURSE, "Say what is wrong with the committed notebooks.", "gates"),
    "records": Target(COURSE, "Write the schema of the records.", "records"),
    "timing": Target("tools.timing.__main__", "Time set-up, lessons and conversions."),
    **LIBRARY,
}


def main() -> None:
    cli.main(COMMANDS)


if __name__ == "__main__":
    main()
