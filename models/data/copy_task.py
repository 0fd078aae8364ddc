"""Copy a text exactly. Held out: the text."""

from __future__ import annotations

import random

from models.data import words as w
from models.data.item import Item, user
from models.glossary import load_terms

COPY_FORMS = tuple(
    """Repeat: {s}|Repeat: {s}|repeat: {s}|Repeat this: {s}|Repeat this text: {s}|Repeat after me: {s}|Copy: {s}|copy: {s}
Copy this: {s}|Copy this text: {s}|Copy this text exactly: {s}|Copy exactly: {s}|Copy the following text: {s}|Echo: {s}
Say: {s}|Say this: {s}|Write: {s}|Write this again: {s}|Write the following text again: {s}|Please repeat: {s}
Please copy this: {s}|Repeat the following: {s}|Repeat "{s}"|Copy "{s}"|Say "{s}"|Repeat "{s}".|Please repeat "{s}".
Repeat the text "{s}".|Copy the string {s}|Repeat {s}|Copy {s}|Echo {s}|Say {s}|Can you repeat this: {s}
Repeat this exactly: {s}|Print: {s}|Output exactly this: {s}|Type this: {s}|Repeat word for word: {s}""".replace(
        "\n", "|"
    ).split("|")
)


def sentence(rng: random.Random) -> str:
    """A grammatical but meaningless sentence."""
    noun = lambda: rng.choice((w.pick(rng, "animals"), w.pick(rng, "things"), w.pick(rng, "foods")))  # noqa: E731
    subject = rng.choice((f"the {w.pick(rng, 'adjectives')} {noun()}", w.pick(rng, "names"), f"my {noun()}"))
    text = f"{subject} will {w.pick(rng, 'verbs')} {rng.choice(('the', 'a', 'one'))} {noun()}"
    if rng.random() < 0.5:
        text += f" in {w.pick(rng, 'cities')}"
    return text[0].upper() + text[1:] + rng.choice(".!?.")


def phrase(rng: random.Random) -> str:
    chosen = [rng.choice(w.all_words()) for _ in range(rng.randint(1, 14))]
    text = " ".join(chosen)
    return rng.choice((text, text, text.upper(), text.capitalize(), ", ".join(chosen)))


def scramble(rng: random.Random) -> str:
    """Characters without pattern: letters, digits, marks, sometimes other scripts."""
    alphabet = rng.choice(
        (w.LOWER, w.UPPER, w.LOWER + w.UPPER, w.LOWER + "0123456789", "0123456789", "01", w.FOREIGN + w.LOWER)
    )
    if rng.random() < 0.3:
        alphabet += w.PUNCTUATION
    return w.characters(rng, alphabet, 2, 24)


def technical(rng: random.Random) -> str:
    """Things engineers paste: paths, flags, assignments, numbers, codes."""
    a, b, c = (rng.choice(w.all_words()).lower() for _ in range(3))
    n = w.number(rng)
    options = (f"/{a}/{b}/{c}.json", f"--{a}-{b}={n}", f"{a}_{b} = {n}", f"{a}.{b}({c}, {n})", w.code(rng))
    return rng.choice((*options, f'{{"{a}": {n}}}', f"{a}@{b}.org", f"{n}, {w.number(rng)}, {w.number(rng)}"))


def mixture(rng: random.Random) -> str:
    return " ".join(
        rng.choice((w.invented_word, phrase_word, technical, w.number))(rng) for _ in range(rng.randint(2, 6))
    )


def phrase_word(rng: random.Random) -> str:
    return rng.choice(w.all_words())


def copying(rng: random.Random) -> Item:
    kinds = (sentence, phrase, scramble, technical, mixture)
    text = rng.choices(kinds, (25, 25, 25, 12, 13))[0](rng).strip()
    if rng.random() < 0.08:
        text = rng.choice(load_terms()).short
    if rng.random() < 0.06:
        text = "\n".join(sentence(rng) for _ in range(rng.randint(2, 4)))
    form = rng.choice([f for f in COPY_FORMS if '"' not in f] if '"' in text else COPY_FORMS)
    if rng.random() < 0.06:
        form = form.replace(": {s}", ":\n{s}")
    return Item("copying", user(form.format(s=text)), text, f"copy|{text}")
