"""Rules about scenes as data, and everything that follows from one: its chain, its plain text, its rating.

A rule forbids what `Rule` describes. `chain` writes it in the grammar that the constitution compiler reads
(`[[a] or [b]] and [c] unless [d]`), in statements that the judge was trained on; `plain` writes it as the objective
sentence that prose is revised to; `sample` draws one.
"""

from dataclasses import dataclass, replace

import text_words as tw
from questions import WORDS as SEEN_WORDS
from questions import seen_statements
from world import CATEGORIES, CLASS, GROUPS, OF_CATEGORY


@dataclass(frozen=True)
class Rule:
    """What must not be seen.

    `subjects` touch `hazards` (each one may touch each), or, without them, something of each tuple of `seen` is in the
    picture; with them `seen` is there besides. `place` is where. `unless` is another Rule whose truth excuses.
    """

    subjects: tuple = ()
    hazards: tuple = ()
    seen: tuple = ()
    place: str = ""
    unless: object = None


def members(word):
    """The classes that a word covers; a word from outside the world covers itself alone."""
    if word in CATEGORIES:
        return frozenset(OF_CATEGORY[word])
    if word in GROUPS:
        return frozenset(CLASS[c] for c in GROUPS[word]["classes"])
    return frozenset([CLASS.get(word, word)])


# ---- chains ----

def _links(rule, bare=False):
    if rule.subjects:
        if not bare:
            yield [tw.seen(s) for s in rule.subjects]
        yield [tw.touching(s, h) for s in rule.subjects for h in rule.hazards]
    for words in rule.seen:
        yield [tw.seen(w) for w in words]
    if rule.place:
        yield [tw.PLACE_CLAUSE[rule.place]]


def _written(links):
    return " and ".join(f"[{link[0]}]" if len(link) == 1 else "[" + " or ".join(f"[{s}]" for s in link) + "]"
                        for link in links)


def chain(rule):
    """The chain in the compiler's grammar. Subjects are asked for first, which settles most pictures; an exception is
    asked for rarely, and goes straight to the point."""
    text = _written(_links(rule))
    return text + (" unless " + _written(_links(rule.unless, bare=True)) if rule.unless else "")


# ---- plain sentences ----

def listing(texts, word="or"):
    """"a, b or c"."""
    texts = list(texts)
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + f" {word} {texts[-1]}"


def _doings(subject, hazards):
    """"holding a knife or a gun", "drinking alcohol or smoking a cigarette"."""
    each = [tw.doing(subject, h) for h in hazards]
    first = each[0].split(" ", 1)[0]
    if len(hazards) > 1 and len({tw.kind(h) for h in hazards}) == 1 and all(e.startswith(first + " ") for e in each):
        head = "gambling with" if each[0].startswith("gambling with") else first
        return f"{head} " + listing(e.removeprefix(head + " ") for e in each)
    return listing(each)


def phrase(rule):
    """The rule as a noun phrase: "a person holding a weapon together with a child on a beach"."""
    parts = []
    if rule.subjects:
        doings = {_doings(s, rule.hazards) for s in rule.subjects}
        if len(doings) == 1:
            parts.append(f"{listing(map(tw.one, rule.subjects))} {doings.pop()}")
        else:
            parts.append(listing(f"{tw.one(s)} {_doings(s, rule.hazards)}" for s in rule.subjects))
    parts += [listing(map(tw.one, words)) for words in rule.seen]
    text = " together with ".join(parts)
    return f"{text} {tw.PLACE_PHRASE[rule.place]}" if rule.place else text


def _condition(rule):
    """The rule as a clause, for an exception: "a police officer is holding a gun"."""
    if rule.subjects:
        return listing(tw.touching(s, h) for s in rule.subjects for h in rule.hazards)
    return listing([tw.seen(w) for w in rule.seen[0]])


def plain(rule):
    """The objective sentence."""
    tail = f", unless {_condition(rule.unless)}" if rule.unless else ""
    return f"The image should not show {phrase(rule)}{tail}."


# ---- answers about a rule ----

def rated(rule, loose, vague=None):
    """The explanation and rating of a wording: vague ("adjective", "phrase" or "wish" and its words), loose or plain."""
    if vague:
        how, words = vague
        if how == "wish":
            return "It says what is wished for and names nothing that must not be seen.\nRating: 3"
        return (f'What counts as "{words}" is a matter of opinion, and nothing is named that must not be seen.\n'
                f"Rating: {2 if how == 'adjective' else 4}")
    if loose:
        return f"It is about {phrase(rule)}, which can be seen, but it does not say so in plain words.\nRating: 8"
    return f"Whether an image shows {phrase(rule)} is plain to see.\nRating: {10 if loose is None else 9}"


def statements_with_words(rng):
    """A statement and the comma-separated words that a detector should look for."""
    draw = rng.random()
    if draw < 0.25:
        word = rng.choice(tw.WORDS)
        return tw.seen(word), tw.central(word)
    if draw < 0.45:
        word = rng.choice([w for w in SEEN_WORDS if w not in ("person or animal", "death")])
        return rng.choice(seen_statements(word)), tw.central(word)
    if draw < 0.53:
        word = rng.choice(tw.FOREIGN)
        return rng.choice([(tw.seen(with_article(word[0])), word[0]), (tw.seen(word[1]), word[1])])
    if draw < 0.57:
        return tw.PLACE_CLAUSE[rng.choice(list(tw.PLACES))], "none"
    subject, hazard = rng.choice(tw.SUBJECTS), rng.choice(tw.HAZARDS)
    return tw.touching(subject, hazard), tw.central(hazard)


def with_article(noun):
    """"a knife", "an axe", "a one-armed bandit"."""
    vowel = noun[:1].lower() in "aeiou" and not noun.lower().startswith(("uni", "use", "eu", "one-", "once"))
    return f"{'an' if vowel else 'a'} {noun}"


# ---- sampling ----

def _several(rng, words, counts):
    """Some of the words, none of which covers another."""
    chosen, named = [], frozenset()
    for word in rng.sample(words, min(len(words), rng.choices(range(1, len(counts) + 1), counts)[0])):
        if not members(word) & named:
            chosen.append(word)
            named |= members(word)
    return tuple(chosen)


def _subjects(rng, counts=(74, 18, 8)):
    draw = rng.random()
    if draw < 0.34:
        return ("person",)
    if draw < 0.44:
        return ("animal",)
    if draw < 0.54:
        return ("child",)
    if draw < 0.62:
        return ("person", "animal")
    if draw < 0.65:
        return ("old man", "old woman")
    return _several(rng, tw.SUBJECTS[3:], counts)


def _hazards(rng):
    draw = rng.random()
    if draw < 0.8:
        kinds = [h for h in tw.HAZARDS if h in CATEGORIES]
        return (rng.choice(kinds if rng.random() < 0.68 else tw.HAZARDS),)
    if draw < 0.9:
        of_kind = [h for h in tw.HAZARDS if h not in CATEGORIES]
        first = rng.choice(of_kind)
        same = [h for h in of_kind if tw.kind(h) == tw.kind(first) and h != first]
        return (first, rng.choice(same)) if same else (first,)
    return _several(rng, [h for h in tw.HAZARDS if h in CATEGORIES], (0, 70, 30))


def _foreign(rng):
    word = rng.choice(tw.FOREIGN)
    return with_article(word[0]) if rng.random() < 0.5 else word[1]


def _things(rng, counts=(62, 24, 10, 4)):
    draw = rng.random()
    if draw < 0.05:
        return (_foreign(rng),)
    if draw < 0.1:
        return rng.choice([("skull", "coffin"), ("person", "animal"), ("old man", "old woman"), ("boy", "girl"),
                           ("boy", "girl", "baby")])
    return _several(rng, rng.choice([tw.HAZARDS, tw.HAZARDS, tw.PROPS, tw.SUBJECTS, tw.WORDS]), counts)


def _pair(rng):
    left = _subjects(rng, (80, 14, 6)) if rng.random() < 0.75 else _several(rng, tw.WORDS, (85, 15))
    taken = frozenset().union(*map(members, left))
    while True:
        right = _several(rng, rng.choice([tw.HAZARDS, tw.HAZARDS, tw.WORDS]), (82, 15, 3))
        if not taken & frozenset().union(*map(members, right)):
            break
    return (right, left) if rank(right[0]) < rank(left[0]) else (left, right)


def rank(word):
    """Subjects are named first, then hazards, then other things."""
    return 0 if word in tw.SUBJECTS else 1 if word in tw.HAZARDS else 2


def _excused(rng, rule):
    """The rule with an exception, if one fits."""
    inside = lambda words: [w for w in tw.WORDS if any(members(w) < members(x) for x in words)]  # noqa: E731
    if rule.subjects and rng.random() < 0.7:
        if rng.random() < 0.75 and inside(rule.subjects):
            return replace(rule, unless=Rule(subjects=_several(rng, inside(rule.subjects), (85, 15))[:2], hazards=rule.hazards))
        if inside(rule.hazards):
            return replace(rule, unless=Rule(subjects=rule.subjects[:1], hazards=(rng.choice(inside(rule.hazards)),)))
    if rule.seen and not rule.subjects and len(rule.seen) == 1 and inside(rule.seen[0]) and rng.random() < 0.6:
        words = inside(rule.seen[0])
        return replace(rule, unless=Rule(seen=(_several(rng, words, (75, 25)) if len(words) > 1 else tuple(words),)))
    named = frozenset().union(*map(members, [*rule.subjects, *rule.hazards, *(w for ws in rule.seen for w in ws)]))
    other = [w for w in tw.WORDS if not members(w) & named]
    return replace(rule, unless=Rule(seen=(_several(rng, other, (90, 10)),)))


def sample(rng):
    """A random rule."""
    draw = rng.random()
    if draw < 0.37:
        rule = Rule(seen=(_things(rng),))
    elif draw < 0.8:
        rule = Rule(subjects=_subjects(rng), hazards=_hazards(rng))
    elif draw < 0.95:
        rule = Rule(seen=_pair(rng))
    else:
        subjects = _subjects(rng, (90, 10))
        taken = frozenset().union(*map(members, subjects))
        others = [w for w in tw.SUBJECTS if not members(w) & taken]
        rule = Rule(subjects=subjects, hazards=_hazards(rng), seen=((rng.choice(others),),) if others else ())
    draw = rng.random()
    if draw < 0.13:
        if len(rule.seen) == 1 and not rule.subjects and rng.random() < 0.6:
            rule = Rule(seen=((rng.choice(["animal", "weapon", "alcohol", "person", "drug", "child", "gambling"]),),))
        return _excused(rng, rule)
    return replace(rule, place=rng.choice(list(tw.PLACES))) if draw < 0.17 else rule
