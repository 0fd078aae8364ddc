"""Small arithmetic: + and - up to 999, products of one digit and up to 999, divisions up to 144, and counting.

Held out: pairs of numbers. Pairs below 20, which people try first, are always for training.
"""

from __future__ import annotations

import random

from engineroom.quality.data.glossary_task import loosen
from engineroom.quality.data.item import Item, user
from engineroom.quality.data.words import forms

BEYOND = "That is beyond me: I add and subtract up to 999, and multiply up to 999 by one digit."

SPOKEN = {
    "+": "{a} plus {b}|the sum of {a} and {b}|{a} added to {b}|{a} and {b} together",
    "-": "{a} minus {b}|the difference of {a} and {b}|{a} take away {b}|{a} less {b}",
    "x": "{a} times {b}|{a} multiplied by {b}|the product of {a} and {b}|{a} by {b} multiplied",
    "/": "{a} divided by {b}|{a} over {b}|the quotient of {a} and {b}",
}
ORDERS = {
    "+": "Add {a} and {b}.|Add {a} to {b}.",
    "-": "Subtract {b} from {a}.|Take {b} from {a}.",
    "x": "Multiply {a} by {b}.|Multiply {a} and {b}.",
    "/": "Divide {a} by {b}.",
}
SIGNS = {"+": ("+",), "-": ("-",), "x": ("x", "x", "*", "×"), "/": ("/", "/", "÷", ":")}
ASK = """What is {e}?|What is {e}?|What's {e}?|{e}|{e}|{e} =|{e} = ?|{e}?|Calculate {e}.|Compute {e}.
How much is {e}?
Work out {e}.|Please calculate {e}.|Can you compute {e}?|Tell me {e}.|Solve {e}.|And {e}?
What about {e}?|Evaluate {e}
What do you get for {e}?|Hi, what is {e}?|What does {e} equal?|What does {e} make?"""
ASK_FORMS = forms(ASK)
COUNT_TO_FORMS = (
    "Count to {b}.|Count up to {b}.|Count to {b}, please.|Please count to {b}.|Can you count to {b}?"
)
COUNT_DOWN_FORMS = """Count down from {a} to {b}.|Count backwards from {a} to {b}.|Count from {a} down to {b}.
Please count down from {a} to {b}."""
COUNT_FORMS = """Count from {a} to {b}.|Count from {a} to {b}|Count up from {a} to {b}.
Please count from {a} to {b}.
List the numbers from {a} to {b}.|Write the numbers from {a} to {b}.|Can you count from {a} to {b}?
Numbers {a} to {b}"""


def operand(rng: random.Random) -> int:
    """0 to 999. One, two and three digits are about equally frequent, longer numbers a little more."""
    return rng.randrange(10 ** rng.choices((1, 2, 3), (2, 3, 5))[0])


def phrase(rng: random.Random, op: str, a: int, b: int) -> str:
    """A question about `a op b`, as an order, in words, or with signs."""
    roll = rng.random()
    if roll < 0.15:
        return loosen(rng.choice(forms(ORDERS[op])).format(a=a, b=b), rng)
    if roll < 0.35:
        expression = rng.choice(forms(SPOKEN[op])).format(a=a, b=b)
    else:
        gap = "" if rng.random() < 0.3 else " "
        expression = f"{a}{gap}{rng.choice(SIGNS[op])}{gap}{b}"
    return loosen(rng.choice(ASK_FORMS).format(e=expression), rng)


def sum_item(rng: random.Random, op: str, a: int, b: int, result: int) -> Item:
    low, high = sorted((a, b))
    key = None if high < 20 else f"{low}+{high}" if op == "+" else f"{a}{op}{b}"
    return Item("arithmetic", user(phrase(rng, op, a, b)), f"{a} {op} {b} = {result}", key)


def times(rng: random.Random) -> Item:
    a, b = operand(rng), rng.randrange(10)
    if rng.random() < 0.2:
        a, b = rng.randrange(13), rng.randrange(13)
    if rng.random() < 0.3:
        a, b = b, a
    return sum_item(rng, "x", a, b, a * b)


def divide(rng: random.Random) -> Item:
    """Division with remainder, up to 144 by 12: too few different items to hold any out."""
    b = rng.randrange(1, 13)
    a = b * rng.randrange(13) if rng.random() < 0.5 else rng.randrange(145)
    remainder = f" remainder {a % b}" if a % b else ""
    return Item("arithmetic", user(phrase(rng, "/", a, b)), f"{a} / {b} = {a // b}{remainder}", None)


def longer(rng: random.Random) -> Item:
    """Expressions that are not one operation on two whole numbers. Never part of a score."""
    a, b, c = operand(rng), operand(rng), operand(rng)
    signs = SIGNS["+"] + SIGNS["-"] + SIGNS["x"]
    p, q = rng.choice(signs), rng.choice(signs)
    gap = rng.choice(("", " "))
    chain = f"{a}{gap}{p}{gap}{b}{gap}{q}{gap}{c}"
    nested = rng.choice((f"({a}{gap}{p}{gap}{b}){gap}{q}{gap}{c}", f"{a}{gap}{p}{gap}({b}{gap}{q}{gap}{c})"))
    unsupported = rng.choice(
        (f"{a}% of {b}", f"{a}.{b % 10} {p} {c}", f"the square root of {a}", f"{a}^{b % 10}")
    )
    text = rng.choice((chain, nested, unsupported))
    return Item("arithmetic", user(loosen(rng.choice(ASK_FORMS).format(e=text), rng)), BEYOND, None)


def beyond(rng: random.Random) -> Item:
    """Questions whose numbers are out of range; the answer says so. Never part of a score."""
    if rng.random() < 0.5:
        return longer(rng)
    op = rng.choice("++--xx/")
    a = rng.randrange(1000, 10 ** rng.randint(4, 7))
    b = rng.randrange(10 ** rng.randint(1, 6))
    if op == "x" and rng.random() < 0.6:
        a, b = rng.randrange(13, 1000), rng.randrange(13, 1000)
    if op != "/" and rng.random() < 0.5:
        a, b = b, a
    return Item("arithmetic", user(phrase(rng, op, a, b)), BEYOND, None)


def arithmetic(rng: random.Random) -> Item:
    kind = rng.choices(("+", "-", "x", "/", "beyond"), (34, 34, 21, 5, 6))[0]
    if kind == "x":
        return times(rng)
    if kind == "/":
        return divide(rng)
    if kind == "beyond":
        return beyond(rng)
    a, b = operand(rng), operand(rng)
    if kind == "-" and a < b and rng.random() < 0.7:
        a, b = b, a
    return sum_item(rng, kind, a, b, a + b if kind == "+" else a - b)


def counting(rng: random.Random) -> Item:
    """Counting up, from one if the question names no start, or down."""
    start = 1 if rng.random() < 0.4 else rng.randrange(0, 800)
    end = start + int(2 ** rng.uniform(1, 7.6))
    key = None if end <= 30 or (start == 1 and end % 10 == 0) else f"count|{start}|{end}"
    phrasings = COUNT_TO_FORMS if start == 1 and rng.random() < 0.4 else COUNT_FORMS
    numbers = [str(number) for number in range(start, end + 1)]
    if rng.random() < 0.2:
        phrasings = COUNT_DOWN_FORMS
        key = key and f"down|{start}|{end}"
        start, end = end, start
        numbers.reverse()
    question = rng.choice(forms(phrasings)).format(a=start, b=end)
    return Item("counting", user(loosen(question, rng)), ", ".join(numbers), key)
