"""Copy a text exactly. Held out: the text."""

from __future__ import annotations

import random

from engineroom.quality.data import words as w
from engineroom.quality.data.glossary import load_terms
from engineroom.quality.data.item import Item, user

COPY_FORMS = w.forms(
    """Repeat: {s}|Repeat: {s}|repeat: {s}|Repeat this: {s}|Repeat this text: {s}|Repeat after me: {s}
Copy: {s}|copy: {s}
Copy this: {s}|Copy this text: {s}|Copy this text exactly: {s}|Copy exactly: {s}
Copy the following text: {s}|Echo: {s}
Say: {s}|Say this: {s}|Write: {s}|Write this again: {s}|Write the following text again: {s}|Please repeat: {s}
Please copy this: {s}|Repeat the following: {s}|Repeat "{s}"|Copy "{s}"|Say "{s}"|Repeat "{s}".
Please repeat "{s}".
Repeat the text "{s}".|Copy the string {s}|Repeat {s}|Copy {s}|Echo {s}|Say {s}|Can you repeat this: {s}
Repeat this exactly: {s}|Print: {s}|Output exactly this: {s}|Type this: {s}
Repeat word for word: {s}"""
)

ENDINGS = ("s", "ed", "ing", "ly", "er", "est", "ness", "ful", "y", "al", "ion", "'s", ",", ".", "?", "!")


def noun(rng: random.Random) -> str:
    return rng.choice((w.pick(rng, "animals"), w.pick(rng, "things"), w.pick(rng, "foods")))


def sentence(rng: random.Random) -> str:
    """A grammatical but meaningless sentence."""
    adjective = w.pick(rng, "adjectives")
    subject = rng.choice((f"the {adjective} {noun(rng)}", w.pick(rng, "names"), f"my {noun(rng)}"))
    text = f"{subject} will {w.pick(rng, 'verbs')} {rng.choice(('the', 'a', 'one'))} {noun(rng)}"
    if rng.random() < 0.5:
        text += f" in {w.pick(rng, 'cities')}"
    return text[0].upper() + text[1:] + rng.choice(".!?.")


def phrase(rng: random.Random) -> str:
    """One to fourteen words in a row, without grammar."""
    words = [phrase_word(rng) for _ in range(rng.randint(1, 14))]
    text = " ".join(words)
    return rng.choice((text, text, text.upper(), text.capitalize(), ", ".join(words)))


def scramble(rng: random.Random) -> str:
    """Random characters: letters, digits, punctuation, sometimes of other scripts."""
    alphabet = rng.choice(
        (w.LOWER, w.UPPER, w.LOWER + w.UPPER, w.LOWER + "0123456789", "0123456789", "01", w.FOREIGN + w.LOWER)
    )
    if rng.random() < 0.3:
        alphabet += w.PUNCTUATION
    return w.characters(rng, alphabet, 2, 24)


def technical(rng: random.Random) -> str:
    """Text that engineers paste: paths, flags, assignments, numbers, codes."""
    a, b, c = (rng.choice(w.all_words()).lower() for _ in range(3))
    n = w.number(rng)
    texts = (f"/{a}/{b}/{c}.json", f"--{a}-{b}={n}", f"{a}_{b} = {n}", f"{a}.{b}({c}, {n})", w.code(rng))
    return rng.choice((*texts, f'{{"{a}": {n}}}', f"{a}@{b}.org", f"{n}, {w.number(rng)}, {w.number(rng)}"))


def mixture(rng: random.Random) -> str:
    """Two to six words, codes and numbers in a row."""
    return " ".join(
        rng.choice((w.invented_word, phrase_word, technical, w.number))(rng) for _ in range(rng.randint(2, 6))
    )


def phrase_word(rng: random.Random) -> str:
    """A word of the list, sometimes with an ending, so that most parts of words occur."""
    return rng.choice(w.all_words()) + (rng.choice(ENDINGS) if rng.random() < 0.25 else "")


def fragment(rng: random.Random) -> str:
    """Consecutive words of the glossary, some replaced, so that the model must copy them and cannot recall them."""
    source = rng.choice(load_terms()).answer.split()
    if rng.random() < 0.3:
        source += rng.choice(load_terms()).answer.split()
    first = rng.randrange(len(source) - 2)
    words = source[first : first + rng.randint(3, 20)]
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        words[rng.randrange(len(words))] = phrase_word(rng)
    return " ".join(words)


def passage(rng: random.Random) -> str:
    """Two to twelve sentences, one a line."""
    return "\n".join(sentence(rng) for _ in range(rng.randint(2, 12)))


def whole_definition(rng: random.Random) -> str:
    term = rng.choice(load_terms())
    return rng.choice((term.short, term.detail))


def copying(rng: random.Random) -> Item:
    """A text of any of the kinds above, with the request to copy it."""
    kinds = (sentence, phrase, scramble, technical, mixture, fragment, passage, whole_definition)
    text = rng.choices(kinds, (18, 18, 22, 10, 10, 12, 5, 5))[0](rng).strip()
    form = rng.choice([form for form in COPY_FORMS if '"' not in form] if '"' in text else COPY_FORMS)
    if rng.random() < 0.06:
        form = form.replace(": {s}", ":\n{s}")
    if rng.random() < 0.2:
        form = form[0].lower() + form[1:]
    return Item("copying", user(form.format(s=text)), text, f"copy|{text}")
