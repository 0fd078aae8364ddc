"""`python -m labs.preflight`: the machine card, its problems, and the bill."""

from engineroom.kit.machine import machine
from labs.kit import show
from labs.kit.bill import bill
from labs.preflight import problems

here = machine()
print(here)
for problem in problems(here):
    print("!", problem)
print()
show.table(bill(), "Minutes to work through each lesson, and dollars on a rented H100")
