"""Time set-up, lessons and conversions, and keep the result as records."""

from __future__ import annotations

from engineroom.kit.command import application, run
from tools.timing.conversion import conversion
from tools.timing.lessons import lessons

app = application(__doc__, no_args_is_help=True)
app.command("lessons")(lessons)
app.command("conversion")(conversion)

if __name__ == "__main__":
    run(app)
