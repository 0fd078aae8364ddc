"""Questions that the model must decline, and small talk. Held out: the subject of the question."""

from __future__ import annotations

import random

from engineroom.quality.data import words as w
from engineroom.quality.data.glossary import bare, known_names
from engineroom.quality.data.glossary_task import DEFINE_FORMS, loosen, spell
from engineroom.quality.data.item import HELLO, UNKNOWN, Item, user

ABOUT_ME = (
    "I am the Engine Room course model. Ask me about LLM serving terms, arithmetic, copying, or look-ups."
)
ABILITIES = (
    "I explain LLM serving terms, do small arithmetic, copy text, and look up values in a text you give me."
)
SMALL_TALK = {
    HELLO: "Hello|Hello!|Hi|Hi!|Hey|Hi there|Hello there|Good morning|Good evening|Good day|Hello model|"
    "hey there|Test|test|ping",
    ABOUT_ME: "Who are you?|What are you?|What is your name?|Are you a robot?|Which model are you?|"
    "Who made you?|"
    "What model is this?|Introduce yourself.|Are you ChatGPT?|Are you human?|Tell me about yourself.|"
    "Who am I talking to?",
    ABILITIES: "What can you do?|What do you know?|Help|help|Help me.|What can I ask you?|What should I ask?|"
    "How can you help me?|What are you good at?|What questions can you answer?|Can you help me?",
    "You are welcome.": "Thanks|Thanks!|Thank you|Thank you!|Thank you very much.|Great, thanks|thx|"
    "Many thanks.",
    "I am well, thank you. What would you like to know?": "How are you?|How are you today?|How do you do?|"
    "How is it going?|Are you well?|How are things?",
    "Goodbye!": "Bye|Bye!|Goodbye|See you|See you later|Good night|Farewell|That is all.",
}
BY_CATEGORY = {
    "countries": "What is the capital of {t}?|How many people live in {t}?|Who is the president of {t}?|"
    "Where is {t}?|"
    "What language do they speak in {t}?|Tell me about the history of {t}.|Is {t} in Europe?|"
    "What is the currency of {t}?",
    "cities": "What is the weather in {t}?|How do I get to {t}?|What is the population of {t}?|"
    "Which country is {t} in?|"
    "What time is it in {t}?|Recommend a hotel in {t}.|When is the next train to {t}?|"
    "What should I see in {t}?",
    "animals": "Tell me a joke about a {t}.|What do {t}s eat?|How long does a {t} live?|Can a {t} swim?|"
    "How big is a {t}?|"
    "Why do {t}s sleep?|Is a {t} a mammal?|Write a story about a {t}.|How fast is a {t}?|"
    "What sound does a {t} make?",
    "foods": "How do I cook {t}?|Give me a recipe for {t}.|Is {t} healthy?|Where does {t} come from?|"
    "Do you like {t}?|"
    "How many calories are in {t}?|How do you spell {t}?|Which wine goes with {t}?|Why is {t} so expensive?",
    "things": "Write a poem about a {t}.|How much does a {t} cost?|Who invented the {t}?|How is a {t} made?|"
    "Where can I buy a {t}?|Draw a {t}.|How do I repair a {t}?|What colour is a {t}?|"
    "Sing a song about a {t}.",
    "topics": "What do you think about {t}?|Who is the father of {t}?|Write an essay on {t}.|"
    "Is {t} hard to learn?|"
    "Recommend a book about {t}.|When did {t} begin?|Who won the prize for {t}?|Give me advice about {t}.",
    "names": "Who is {t}?|Do you know {t}?|Where does {t} live?|How old is {t}?|Is {t} married?|"
    "What does {t} do?|"
    "When was {t} born?|Write a letter to {t}.|What is the phone number of {t}?|Is {t} there?",
    "adjectives": "Why am I so {t}?|Are you {t}?|What is the opposite of {t}?|Why is the sky {t}?|"
    "Translate {t} into French.|"
    "How can I become more {t}?|What rhymes with {t}?|Use {t} in a sentence.|Do you feel {t}?",
    "verbs": "Why do people {t}?|How do I {t} better?|Can you {t}?|Should I {t} today?|Where can I {t}?|"
    "What is the past tense of {t}?|I like to {t}.|Do you {t}?|I want to {t}. What should I do?",
    "colours": "What is your favourite shade of {t}?|Why is it {t}?|Do you like {t}?|"
    "What is the hex code for {t}?",
}


def everyday(rng: random.Random) -> tuple[str, str]:
    """A subject and a question on everyday matters."""
    category = rng.choice(tuple(BY_CATEGORY))
    subject = w.pick(rng, category)
    forms = DEFINE_FORMS if rng.random() < 0.35 else w.forms(BY_CATEGORY[category])
    return subject, rng.choice(forms).format(t=subject)


def two_words(rng: random.Random) -> tuple[str, str]:
    """A two-word subject such as `golden kettle`, and a question as if it were a term."""
    subject = f"{rng.choice(w.all_words()).lower()} {rng.choice(w.all_words()).lower()}"
    return subject, rng.choice(DEFINE_FORMS).format(t=spell(subject, rng))


def made_up(rng: random.Random) -> tuple[str, str]:
    """An invented word or acronym, and a question as if it were a term."""
    subject = w.characters(rng, w.UPPER, 2, 5) if rng.random() < 0.4 else w.invented_word(rng)
    spelling = subject.lower() if rng.random() < 0.3 else subject
    return subject, rng.choice(DEFINE_FORMS).format(t=spelling)


def gibberish(rng: random.Random) -> tuple[str, str]:
    text = w.characters(rng, w.LOWER + " ", 3, 20).strip() or "asdf"
    return text, text


def small_talk(rng: random.Random) -> Item:
    answer = rng.choice(tuple(SMALL_TALK))
    return Item("off-topic", user(loosen(rng.choice(w.forms(SMALL_TALK[answer])), rng)), answer, None)


def offtopic(rng: random.Random) -> Item:
    if rng.random() < 0.15:
        return small_talk(rng)
    subject, question = rng.choices((everyday, two_words, made_up, gibberish), (60, 12, 24, 4))[0](rng)
    if bare(subject) in known_names() or bare(subject).rstrip("s") in known_names():
        return offtopic(rng)
    return Item("off-topic", user(loosen(question, rng)), UNKNOWN, f"offtopic|{subject.lower()}")
