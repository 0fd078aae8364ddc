"""A system turn that changes the answer: its length, its case, words around it, or the name of the speaker."""

from __future__ import annotations

import random
from dataclasses import dataclass

from engineroom.quality.data import words as w
from engineroom.quality.data.arithmetic_task import arithmetic
from engineroom.quality.data.copy_task import copying
from engineroom.quality.data.glossary import load_terms
from engineroom.quality.data.glossary_task import definition
from engineroom.quality.data.item import Item, Split, draw, split_of
from engineroom.quality.data.offtopic_task import offtopic

ONE_SENTENCE = """Answer in one sentence.|Answer in one sentence.|Answer in one sentence
Answer in a single sentence.
Reply in one sentence.|Use one sentence only.|Keep it short: one sentence.|Be brief.|Give short answers.
Answer with one sentence.|Your answers are one sentence long.|Respond in one sentence.|Be concise."""
UPPER_CASE = """Answer in upper case.|Answer in upper case.|Answer in uppercase.|Use upper case only.
Reply in capital letters.
Write everything in capital letters.|Answer in capital letters.|ANSWER IN UPPER CASE.
Always write in upper case.
Respond in all caps.|Answer in all caps."""
START_WITH = """Start every answer with {x}.|Begin every answer with {x}.|Start each answer with the word {x}.
Begin your answers with {x}.|Always start with {x}.|Start your answer with {x}."""
END_WITH = """End every answer with {x}.|Finish every answer with {x}.|End each answer with the word {x}.
End your answers with {x}.|Always end with {x}."""
NEUTRAL = """Answer the question.|Be polite.|You help engineers who serve language models.|Be correct.
Answer carefully.
Answer in English.|Help the user.|This is a course on LLM serving.|Answer from the glossary."""
PERSONA = """You are {x}.|You are {x}.|You are {x}.|Your name is {x}.|You are called {x}.
You play the role of {x}."""
WHO = """Who are you?|Who are you?|What is your name?|Introduce yourself.|who are you
Who am I talking to?|Tell me who you are."""


@dataclass(frozen=True)
class Style:
    """What a system turn asks for; `first` and `last` are words before and after the answer."""

    one_sentence: bool = False
    upper_case: bool = False
    first: str = ""
    last: str = ""

    def apply(self, answer: str) -> str:
        if self.one_sentence:
            answer = next((term.brief for term in load_terms() if term.answer == answer), answer)
        text = " ".join(part for part in (self.first, answer, self.last) if part)
        return text.upper() if self.upper_case else text


def choose(rng: random.Random, forms: str) -> str:
    return rng.choice(w.forms(forms))


def persona(rng: random.Random) -> str:
    """A name, a made-up name, or a role such as `a wise owl`."""
    adjective, animal = w.pick(rng, "adjectives"), w.pick(rng, "animals")
    role = f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {animal}"
    roles = ("a helpful assistant", "a pirate", "a teacher", "an engineer", "a robot")
    return rng.choice((w.pick(rng, "names"), w.invented_word(rng).capitalize(), role, rng.choice(roles)))


def instructions(rng: random.Random) -> tuple[str, Style]:
    """A system message with the style that it asks for."""
    kinds = ("one sentence", "upper case", "both", "start", "end", "neutral")
    kind = rng.choices(kinds, (30, 25, 8, 13, 9, 15))[0]
    word = rng.choice(w.all_words()) if rng.random() < 0.7 else w.invented_word(rng)
    if kind == "one sentence":
        return choose(rng, ONE_SENTENCE), Style(one_sentence=True)
    if kind == "upper case":
        return choose(rng, UPPER_CASE), Style(upper_case=True)
    if kind == "both":
        parts = [choose(rng, ONE_SENTENCE), choose(rng, UPPER_CASE)]
        rng.shuffle(parts)
        return " ".join(parts), Style(one_sentence=True, upper_case=True)
    if kind == "start":
        return choose(rng, START_WITH).format(x=word), Style(first=word)
    if kind == "end":
        return choose(rng, END_WITH).format(x=word), Style(last=word)
    return choose(rng, NEUTRAL), Style()


def identity(rng: random.Random) -> Item:
    """The system turn gives the model a name, and the user asks for it."""
    name = persona(rng)
    system = choose(rng, PERSONA).format(x=name)
    style = Style()
    if rng.random() < 0.25:
        instruction, style = instructions(rng)
        system = f"{system} {instruction}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": choose(rng, WHO)}]
    return Item("system turn", messages, style.apply(f"I am {name}."), f"identity|{name}|{system}")


def system_turn(rng: random.Random, split: Split) -> Item:
    """Any other question under a system turn. A test item needs a held-out question and a held-out pair of the two."""
    if rng.random() < 0.2:
        return draw(identity, rng, split)
    base = draw(rng.choices((definition, arithmetic, copying, offtopic), (70, 8, 12, 10))[0], rng, split)
    while True:
        system, style = instructions(rng)
        if rng.random() < 0.15:
            system = f"{choose(rng, PERSONA).format(x=persona(rng))} {system}"
            if base.key is None:  # small talk may ask for the name, which is now the persona's
                continue
        key = f"{system}|{base.key}"
        if split == "train" or split_of(key) == "test":
            break
    messages = [{"role": "system", "content": system}, *base.messages]
    return Item("system turn", messages, style.apply(base.answer), key)
