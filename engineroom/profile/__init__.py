"""Where the time of a step goes: what it must do, what the machine can do, and traces of what it did."""
