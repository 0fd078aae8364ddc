"""Questions about glossary terms. Held out: combinations of a term's name and a phrasing."""

from __future__ import annotations

import random

from engineroom.quality.data.glossary import Term, load_terms
from engineroom.quality.data.item import Item, user
from engineroom.quality.data.words import forms

DEFINE = """What is {t}?|What is {t}?|What is {t}?|What's {t}?|Whats {t}?|What does {t} mean?
What is meant by {t}?
What is the meaning of {t}?|Define {t}.|Define {t}|Define the term {t}.|Explain {t}.|Explain {t}
Explain {t} to me.
Explain the term {t}.|Tell me about {t}.|Tell me what {t} is.|Tell me more about {t}.|Describe {t}.|{t}?|{t}
Give me a definition of {t}.|Give a definition of {t}.|Definition of {t}|Definition of {t}?|Meaning of {t}?
Can you explain {t}?|Can you define {t}?|Could you explain {t}?|Could you tell me what {t} is?
Can you tell me what {t} is?
Please explain {t}.|Please define {t}.|What are {t}?|What is a {t}?|What is an {t}?|What is the {t}?
So what is {t}?
Hi, what is {t}?|Hello, what is {t}?|Hello! What is {t}?|Do you know what {t} is?|Remind me what {t} is.
I want to learn about {t}.|What exactly is {t}?|Quick question: what is {t}?|Teach me {t}.
Help me understand {t}.
I do not understand {t}.|I don't understand {t}.|How would you define {t}?|In LLM serving, what is {t}?
What is {t} in LLM serving?|What does {t} mean in LLM serving?|What do you know about {t}?|How does {t} work?
Why is {t} important?|Why does {t} matter?|And what is {t}?|What about {t}?|And {t}?|What is {t}, please?
What is {t} in simple words?|What is this {t} thing?|What does the term {t} mean?|Who knows what {t} is?
Briefly, what is {t}?|I have never heard of {t}.|What is {t} for?|Look up {t} in the glossary.
Glossary: {t}|What is {t} and why does it matter?"""
DEFINE_FORMS = forms(DEFINE)

COMPARE_FORMS = forms(
    """What is the difference between {a} and {b}?|Difference between {a} and {b}?|{a} vs {b}|{a} vs. {b}?
{a} versus {b}|Compare {a} and {b}.|Compare {a} with {b}.|How does {a} differ from {b}?
How is {a} different from {b}?
Explain {a} and {b}.|What are {a} and {b}?|Define {a} and {b}."""
)
STAND_FOR_FORMS = forms(
    """What does {t} stand for?|What is {t} short for?|{t} stands for what?|What is {t} an abbreviation of?
What do the letters {t} stand for?|Spell out {t}.|Expand the acronym {t}."""
)


def spell(name: str, rng: random.Random) -> str:
    """The name as people type it: in another case or spelling, in the plural, or with a typing error."""
    roll = rng.random()
    if roll < 0.50:
        return name
    if roll < 0.78:
        return name.lower()
    if roll < 0.82:
        return name.upper()
    if roll < 0.86:
        return name[0].upper() + name[1:]
    if roll < 0.94:
        return variant(name, rng)
    return mistype(name, rng)


def variant(name: str, rng: random.Random) -> str:
    """Another spelling: British, plural, or with hyphens, blanks and underscores exchanged or left out."""
    kind = rng.randrange(3)
    if kind == 0:
        return name.replace("ization", "isation").replace("ize", "ise").replace("'", "")
    if kind == 1 and name[-1].isalpha() and name[-1] not in "sS":
        return name + "s"
    separator = rng.choice((" ", "-", ""))
    spelling = name.translate(str.maketrans({" ": separator, "-": separator, "_": separator}))
    return spelling.lower() if rng.random() < 0.5 else spelling


def mistype(name: str, rng: random.Random) -> str:
    """Drop, double or swap one letter inside a long name; short names are returned as they are."""
    if len(name) < 7:
        return name
    i = rng.randrange(1, len(name) - 2)
    dropped = name[:i] + name[i + 1 :]
    doubled = name[:i] + name[i] + name[i:]
    swapped = name[:i] + name[i + 1] + name[i] + name[i + 2 :]
    return rng.choice((dropped, doubled, swapped))


def loosen(question: str, rng: random.Random) -> str:
    """Vary what people vary without thinking: capitals, the last punctuation mark, a please, a thank you."""
    roll = rng.random()
    if roll < 0.2:
        question = question[0].lower() + question[1:]
    elif roll < 0.22:
        question = question.upper()
    if rng.random() < 0.15 and question[-1] in ".?":
        question = question[:-1]
    if rng.random() < 0.04:
        question += rng.choice((" please", " Thanks!", " thanks", "?", "!", " Thank you."))
    return question


def term_and_name(rng: random.Random) -> tuple[Term, str]:
    """A term with one of its names, most often the main one."""
    term = rng.choice(load_terms())
    return term, term.name if rng.random() < 0.55 else rng.choice(term.names)


def definition(rng: random.Random) -> Item:
    term, name = term_and_name(rng)
    form = rng.choice(DEFINE_FORMS)
    question = loosen(form.format(t=spell(name, rng)), rng)
    return Item("glossary", user(question), term.answer, f"define|{form}|{name}")


def comparison(rng: random.Random) -> Item:
    first, first_name = term_and_name(rng)
    second, second_name = term_and_name(rng)
    if first == second:
        return comparison(rng)
    form = rng.choice(COMPARE_FORMS)
    question = loosen(form.format(a=spell(first_name, rng), b=spell(second_name, rng)), rng)
    answer = f"{first.brief} {second.brief}"
    return Item("glossary", user(question), answer, f"compare|{first.name}|{second.name}")


def expansion(rng: random.Random) -> Item:
    term = rng.choice([term for term in load_terms() if term.is_acronym])
    form = rng.choice(STAND_FOR_FORMS)
    name = term.name if rng.random() < 0.7 else term.name.lower()
    answer = f"{term.name} stands for {term.aliases[0]}."
    return Item("glossary", user(loosen(form.format(t=name), rng)), answer, f"expand|{form}|{term.name}")


def glossary(rng: random.Random) -> Item:
    return rng.choices((definition, comparison, expansion), (80, 14, 6))[0](rng)
