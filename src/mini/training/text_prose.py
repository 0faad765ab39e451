"""Rules as people write them: a grammar of everyday prose over the rules of `text_rules.py`.

    word(rng) -> Wording(text, rule, loose, vague)

A wording is built from the inside out: names of things, what they do, a sentence around it, an exception, reasons and
courtesies, slips of the pen. Templates are in a small notation: `(a|b)` chooses, `<pool>` chooses from a list below,
`{x}` is filled in.
"""

import functools
import re
from collections import namedtuple

import text_pools as tp
import text_rules as tr
import text_words as tw

# `loose`: None for the objective sentence itself, False for other plain wordings, True for prose. `vague`: see tr.rated.
Wording = namedtuple("Wording", "text rule loose vague")
# A noun phrase: with its article, without it, whether its verb is in the plural.
Name = namedtuple("Name", "full bare plural")
BRACKETS = str.maketrans("«»", "()")  # round ones are notation in templates


# ---- templates ----

@functools.lru_cache(maxsize=100_000)
def _parsed(template):
    """A template as a list of literal texts, slots and choices."""
    out, at = [[[]]], 0
    stack = out
    for token in re.findall(r"\(|\)|\||<\w+>|\{\w+\}|[^(){}<>|]+", template):
        if token == "(":
            stack.append([[]])
        elif token == ")":
            done = stack.pop()
            stack[-1][-1].append(("choice", done))
        elif token == "|" and len(stack) > 1:
            stack[-1].append([])
        elif token.startswith("<"):
            stack[-1][-1].append(("pool", token[1:-1]))
        elif token.startswith("{"):
            stack[-1][-1].append(("slot", token[1:-1]))
        else:
            stack[-1][-1].append(("text", token))
        at += len(token)
    return stack[0][0]


def _write(parts, rng, slots, out):
    for what, value in parts:
        if what == "text":
            out.append(value)
        elif what == "slot":
            out.append(slots[value])
        elif what == "choice":
            _write(rng.choice(value), rng, slots, out)
        else:
            _write(_parsed(rng.choice(tp.POOLS[value])), rng, slots, out)


def fill(template, rng, **slots):
    """A template written out."""
    out = []
    _write(_parsed(template), rng, slots, out)
    return re.sub(r" {2,}", " ", "".join(out)).strip().translate(BRACKETS)


def _agreeing(name):
    """Slots of words that agree with a noun phrase."""
    many = name.plural
    return {"be": "are" if many else "is", "has": "have" if many else "has", "does": "do" if many else "does",
            "was": "were" if many else "was", "s": "" if many else "s", "es": "" if many else "es",
            "ies": "y" if many else "ies", "them": "them" if many else "it", "it": "they" if many else "it"}


# ---- names ----

def _entry(rng, word):
    entries = tw.NOUNS.get(word)
    if entries is None:
        return (word, word, False) if word.startswith(("a ", "an ")) else (None, word, True)
    return entries[0] if rng.random() < 0.4 else rng.choice(entries)


def _named(rng, entry, plural=None, article=True):
    one, many, fixed = entry
    if one and one.startswith(("a ", "an ")):  # a thing from outside the world
        return Name(one, one.split(" ", 1)[1], False)
    plural = rng.random() < 0.5 if plural is None else plural
    before = rng.choice(tp.ADJECTIVES) + " " if rng.random() < 0.04 else ""
    if fixed:
        if re.match(r"(a|an|any|the|somebody|someone|anyone|anybody) ?", many):
            return Name(many, re.sub(r"^(a|an|any|the) ", "", many), False)
        return Name(before + many, before + many, many.endswith("s") or many in tp.PLURALS)
    if plural:
        return Name(before + many, before + many, True)
    full = tr.with_article(before + one)
    if rng.random() < 0.1:
        full = rng.choice(("any {}", "any kind of {}", "any {}", "the {}", "one {}", "any sort of {}", "some {}", "even a single {}")).format(before + one)
    return Name(full if article else before + one, before + one, False)


def _joined(rng, names, word=None):
    """Several noun phrases as one."""
    if len(names) == 1:
        return names[0]
    word = word or rng.choice(("or", "or", "or", "and", "and", "as well as", "nor", "and/or", "&"))
    last = ", " if word == "," else f" {word} " if rng.random() < 0.8 or len(names) == 2 else f", {word} "
    join = lambda texts: ", ".join(texts[:-1]) + last + texts[-1]  # noqa: E731
    if word in ("or", "and", "nor") and len(names) > 2 and rng.random() < 0.12:
        join = f" {word} ".join
    if rng.random() < 0.03:
        join = "/".join
    plural = names[-1].plural or word in ("and", "as well as", "&")
    return Name(join([n.full for n in names]), join([n.bare for n in names]), plural)


def things(rng, words, plural=None, word=None):
    """A noun phrase for one of several words."""
    together = tw.TOGETHER.get(tuple(words))
    if together and rng.random() < 0.55:
        return _named(rng, rng.choice(together), plural)
    plural = rng.random() < 0.5 if plural is None else plural
    return _joined(rng, [_named(rng, _entry(rng, w), plural) for w in words], word)


def _object(rng, words):
    """What is held, drunk or taken."""
    if len(words) == 1 and rng.random() < 0.25:
        return tw._ABSTRACT.get(words[0], tw.one(words[0]))
    return things(rng, words, word=rng.choice(("or", "or", "and"))).full


# ---- what subjects do ----

def _verb(rng, subject, hazard):
    """(base, third person, -ing form) for touching a hazard."""
    kind = tw.kind(hazard)
    verbs = tw.VERBS[kind]
    if kind == "weapon" and tw.kind(subject) == "animal" and rng.random() < 0.85:
        verbs = tw.ANIMAL_VERBS
    if hazard in tw.VERBS_OF and rng.random() < 0.25:
        verbs = tw.VERBS_OF[hazard]
    choice = verbs[0] if rng.random() < 0.3 else rng.choice(verbs)
    if hazard != kind and "{h}" not in choice[0]:
        choice = next(v for v in tw.VERBS[kind] if "{h}" in v[0])
    return choice


def doing(rng, subject, hazards):
    """(base, third person, -ing form) for touching any of the hazards, the objects filled in."""
    if len(hazards) > 1 and len({tw.kind(h) for h in hazards}) == 1:
        verb, thing = _verb(rng, subject, rng.choice(hazards)), _object(rng, hazards)
        if "{h}" in verb[0]:
            return tuple(v.format(h=thing) for v in verb)
    each = [tuple(v.format(h=_object(rng, [h])) for v in _verb(rng, subject, h)) for h in hazards]
    if len(each) == 1 and rng.random() < 0.05:  # said twice in other words
        again = _verb(rng, subject, hazards[0])
        if "{h}" in again[0]:
            again = tuple(v.replace("{h}", rng.choice(("it", "them", "one"))) for v in again)
        each.append(again)
    if len(each) == 1:
        return each[0]
    word = rng.choice(("or", "or", "and", "nor"))
    return tuple(", ".join(forms[:-1]) + f" {word} " + forms[-1] for forms in zip(*each))


def _after(rng, subject, hazard, agree):
    """What stands behind a noun: "with a knife in hand"."""
    kind = tw.kind(hazard)
    choices = tw.AFTER[kind]
    if kind == "weapon" and tw.kind(subject) == "animal" and rng.random() < 0.85:
        choices = tw.ANIMAL_AFTER
    if hazard != kind:
        choices = [c for c in choices if "{h}" in c]
    if not choices or rng.random() < 0.45:
        return _verb(rng, subject, hazard)[2].format(h=_object(rng, [hazard]))
    return rng.choice(choices).format(h=_object(rng, [hazard]), **agree)


def acting(rng, subjects, hazards):
    """A noun phrase for subjects that touch hazards."""
    one = hazards[0]
    if len(hazards) == 1 and rng.random() < 0.13 and (one in tw.ADJECTIVES):
        words = [e for s in subjects for e in [_entry(rng, s)]]
        if all(e[1] not in tp.PRONOUNS for e in words):
            adjective = rng.choice(tw.ADJECTIVES[one])
            plural = rng.random() < 0.6
            names = []
            for single, many, fixed in words:
                names.append(_named(rng, (f"{adjective} {single}" if single else None, f"{adjective} {many}", fixed), plural))
            return _joined(rng, names)
    if subjects == ("person",) and len(hazards) > 1 and rng.random() < 0.22 and all(h in tw.DOINGS for h in hazards):
        doings = [rng.choice(tw.DOINGS[h]) for h in hazards]
        text = fill("{x}(| by people| of people| by anyone| by humans|)", rng, x=_listed(rng, doings))
        return Name(text, text, True)
    if len(subjects) > 1 and rng.random() < 0.1:  # said of each
        return _joined(rng, [acting(rng, (s,), hazards) for s in subjects], rng.choice(("or", "and", ",")))
    if subjects == ("person",) and len(hazards) == 1:
        if one in tw.DOERS and rng.random() < 0.08:
            return _named(rng, rng.choice(tw.DOERS[one]))
        if one in tw.DOINGS and rng.random() < 0.22:
            text = rng.choice(tw.DOINGS[one])
            return Name(text, text, False)
    if one == "fire" and len(hazards) == 1 and rng.random() < 0.06:
        who = things(rng, subjects)
        text = fill("(flames|fire|a fire) (engulfing|consuming|burning|around|on the body of|on) {x}", rng, x=who.full)
        return Name(text, text, text.startswith("flames"))
    who = things(rng, subjects)
    agree = _agreeing(who)
    if len(hazards) > 1 and len({tw.kind(h) for h in hazards}) == 1:
        tail = doing(rng, subjects[0], hazards)[2]
    else:
        tails = [_after(rng, subjects[0], h, agree) for h in hazards]
        tail = tails[0] if len(tails) == 1 else ", ".join(tails[:-1]) + rng.choice((" or ", " or ", " and ", " nor ")) + tails[-1]
    return Name(f"{who.full} {tail}", f"{who.bare} {tail}", who.plural)


def _listed(rng, texts):
    """Some things in a row: "a or b", "neither a nor b nor c"."""
    how = rng.choice((", ", " and ", " or ", " or ", " nor "))
    start = "neither " if how == " nor " else ""
    if len(texts) > 2 and how in (" and ", " or ") and rng.random() < 0.7:
        return ", ".join(texts[:-1]) + how + texts[-1]
    return start + how.join(texts)


def clause(rng, subjects, hazards):
    """"a person is holding a knife", "kids smoke"."""
    if hazards == ("fire",) and rng.random() < 0.05:
        return fill("(flames engulf|fire consumes|flames surround|fire burns) {x}", rng, x=things(rng, subjects).full)
    who = things(rng, subjects, word="or")
    base, third, going = doing(rng, subjects[0], hazards)
    verb = fill("({going}|{simple})", rng, going=f"{'are' if who.plural else 'is'} {going}",
                simple=base if who.plural else third)
    verb = verb.replace("are being", "are").replace("is being", "is")
    if who.plural and verb.startswith("be "):
        verb = "are" + verb[2:]
    return f"{who.full} {verb}"


def _passive(rng, subjects, hazards):
    """"Guns must not be held by children"."""
    things_, who = things(rng, hazards, word="or"), things(rng, subjects, word="or")
    kind = tw.kind(hazards[0])
    frames = tp.HANDS_FRAMES if kind in ("weapon", "death") and rng.random() < 0.35 else tp.PASSIVE_FRAMES
    return fill(rng.choice(frames), rng, h=things_.full, hb=things_.bare, hbe="are" if things_.plural else "is",
                done=rng.choice(tw.DONE[kind]), x=who.full)


def _forbidden_doing(rng, subjects, hazards):
    """Sentences whose verb is forbidden: "nobody may smoke", "children must not hold knives"."""
    if len({tw.kind(h) for h in hazards}) == 1 and tw.kind(hazards[0]) in tw.DONE and rng.random() < 0.14:
        return _passive(rng, subjects, hazards)
    base, third, going = doing(rng, subjects[0], hazards)
    neither = ""
    if len(hazards) == 2 and rng.random() < 0.35:
        first, second = doing(rng, subjects[0], hazards[:1]), doing(rng, subjects[0], hazards[1:])
        neither = f"neither {first[0]} nor {second[0]}"
    draw = rng.random()
    if subjects == ("person",) and draw < 0.5 or draw < 0.22:
        if subjects == ("person",) and rng.random() < 0.75:
            nobody = rng.choice(tp.NOBODY)
        else:
            who = things(rng, subjects, word="or")
            nobody = f"no {who.bare}"
        return fill(rng.choice(tp.NOBODY_FRAMES), rng, nobody=nobody, base=base, third=third, going=going)
    who = things(rng, subjects)
    return fill(rng.choice(tp.MUST_NOT_FRAMES if not neither else tp.NEITHER_FRAMES), rng, x=who.full, base=base, going=going,
                neither=neither, b=who.bare, **_agreeing(who))


# ---- sentences ----

def _about(rng, name):
    """A sentence that forbids what a noun phrase names."""
    frame = rng.choice(tp.SHORT_FRAMES if rng.random() < 0.3 else tp.FRAMES)
    return fill(frame, rng, x=name.full, b=name.bare, **_agreeing(name))


def _about_clause(rng, text):
    return fill(rng.choice(tp.CLAUSE_FRAMES), rng, c=text)


def _seen(rng, words):
    if len(words) > 1 and rng.random() < 0.22:
        plural = rng.random() < 0.6
        names = [_named(rng, _entry(rng, w), plural) for w in words]
        no = ", ".join("no " + n.bare for n in names[:-1]) + rng.choice((" and no ", " and no ", " or ", ", no ")) + names[-1].bare
        between = ", " if rng.random() < 0.5 else " nor "
        neither = "neither " + between.join(n.full for n in names[:-1]) + " nor " + names[-1].full
        return fill(rng.choice(tp.NO_FRAMES), rng, no=no, neither=neither)
    name = things(rng, words)
    if len(words) == 1 and rng.random() < 0.03:  # said again in other words
        again = _named(rng, _entry(rng, words[0]), article=True).full
        return f"{_about(rng, name)}, {rng.choice(('not even', 'and not even', 'nor', 'be it', 'also no', 'including', 'especially not'))} {again}"
    if rng.random() < 0.1:
        return _about_clause(rng, fill("{x} ({be} visible|can be seen|{be} in the <img>|appear{s}|{be} shown|{be} to be seen|{be} there)", rng,
                                       x=name.full, **_agreeing(name)))
    return _about(rng, name)


def _pair(rng, left, right):
    """Both in one picture."""
    if rng.random() < 0.35 and tr.rank(left[0]) != tr.rank(right[0]):
        left, right = right, left
    join = lambda words: things(rng, words, word=rng.choice(("or", "or", "and")) if len(words) > 1 else None)  # noqa: E731
    a, b = join(left), join(right)
    if rng.random() < 0.3:
        text = fill(rng.choice(tp.PAIR_NAMES), rng, a=a.full, b=b.full)
        return _about(rng, Name(text, re.sub(r"^(a|an|any|the) ", "", text), a.plural))
    agree = {f"{k}_a": v for k, v in _agreeing(a).items()} | {f"{k}_b": v for k, v in _agreeing(b).items()}
    return fill(rng.choice(tp.PAIR_FRAMES), rng, a=a.full, b=b.full, bare_a=a.bare, bare_b=b.bare, **agree)


def _near(rng, rule):
    """Somebody does something while something else is there."""
    other = things(rng, rule.seen[0])
    beside = fill(rng.choice(tp.BESIDE), rng, x=other.full, **_agreeing(other))
    draw = rng.random()
    if draw < 0.4:
        name = acting(rng, rule.subjects, rule.hazards)
        return _about(rng, Name(f"{name.full} {beside}", f"{name.bare} {beside}", name.plural))
    if draw < 0.75:
        text = _forbidden_doing(rng, rule.subjects, rule.hazards)
        return f"{text} {beside}" if rng.random() < 0.75 else f"{beside[:1].upper() + beside[1:]} {text[:1].lower() + text[1:]}"
    return _about_clause(rng, f"{clause(rng, rule.subjects, rule.hazards)} {beside}")


def sentence(rng, rule):
    """A sentence that forbids the rule, its exception left out."""
    placed = " " + rng.choice(tw.PLACES[rule.place]) if rule.place else ""
    if rule.subjects and rule.seen:
        text = _near(rng, rule)
    elif rule.subjects:
        draw = rng.random()
        if draw < 0.52:
            name = acting(rng, rule.subjects, rule.hazards)
            return _about(rng, Name(name.full + placed, name.bare + placed, name.plural))
        if draw < 0.82:
            text = _forbidden_doing(rng, rule.subjects, rule.hazards)
        else:
            return _about_clause(rng, clause(rng, rule.subjects, rule.hazards) + placed)
    elif len(rule.seen) == 2:
        text = _pair(rng, *rule.seen)
    elif placed and rng.random() < 0.6:
        name = things(rng, rule.seen[0])
        return _about(rng, Name(name.full + placed, name.bare + placed, name.plural))
    else:
        text = _seen(rng, rule.seen[0])
    if placed and rng.random() < 0.25:
        return f"{placed.strip()[:1].upper() + placed.strip()[1:]}, {text[:1].lower() + text[1:]}"
    return text + placed


# ---- exceptions and permissions ----

def _excuse(rng, rule):
    """A sentence with its exception."""
    excuse, core = rule.unless, tr.replace(rule, unless=None)
    if excuse.subjects:
        same_things = excuse.hazards == rule.hazards
        if same_things and rng.random() < 0.3:
            if rng.random() < 0.3 and tw.kind(rule.hazards[0]) in tw.DONE:
                h, (base, _, going) = things(rng, rule.hazards), doing(rng, excuse.subjects[0], rule.hazards)
                return fill(rng.choice(tp.OTHERS_FRAMES), rng, h=h.full, hb=h.bare, base=base, going=going,
                            done=rng.choice(tw.DONE[tw.kind(rule.hazards[0])]), x=things(rng, excuse.subjects).full)
            base, _, going = doing(rng, excuse.subjects[0], rule.hazards)
            return fill(rng.choice(tp.ONLY_FRAMES), rng, x=things(rng, excuse.subjects).full, base=base, going=going)
        if same_things and rng.random() < 0.6:
            x = things(rng, excuse.subjects)
        elif not same_things and rng.random() < 0.5:
            x = things(rng, excuse.hazards)
        else:
            base, _, going = doing(rng, excuse.subjects[0], excuse.hazards)
            if rng.random() < 0.35:
                return f"{_bare_end(sentence(rng, core))}, unless {clause(rng, excuse.subjects, excuse.hazards)}"
            x = acting(rng, excuse.subjects, excuse.hazards)
        return fill(rng.choice(tp.EXCEPT_FRAMES), rng, s=_bare_end(sentence(rng, core)), x=x.full, X=_capital(x.full), **_be(x))
    x = things(rng, excuse.seen[0])
    words = [w for ws in rule.seen for w in ws]
    inside = not rule.subjects and all(any(tr.members(e) < tr.members(w) for w in words) for e in excuse.seen[0])
    if inside and len(rule.seen) == 1 and rng.random() < 0.12:
        kind = things(rng, rule.seen[0], plural=True)
        return fill(rng.choice(tp.ONLY_THINGS), rng, x=x.full, k=kind.full, **_be(x))
    if inside:
        it = rng.random() < 0.15
        frame = rng.choice(tp.IT_IS_FRAMES if it else tp.EXCEPT_FRAMES)
    elif len(rule.seen) == 1 and not rule.subjects and rng.random() < 0.12:
        kind = things(rng, rule.seen[0])
        return fill(rng.choice(tp.ONLY_WHEN), rng, x=x.full, k=kind.full, **_be(x))
    else:
        frame = rng.choice(tp.UNLESS_FRAMES)
    return fill(frame, rng, s=_bare_end(sentence(rng, core)), x=x.full, X=_capital(x.full), **_be(x))


def _be(name):
    return {key: value for key, value in _agreeing(name).items() if key in ("be", "s2", "has", "does", "it")}


def _contrast(rng, rule):
    """Something else is allowed; the rule stands."""
    named = frozenset().union(*(tr.members(w) for w in rule.subjects or [w for ws in rule.seen for w in ws]))
    if rule.subjects:
        wider = [s for s in tw.SUBJECTS if not tr.members(s) <= named and not tr.members(s) < named]
        subjects, hazards = (rng.choice(wider or tw.SUBJECTS),), rule.hazards
        if not wider or rng.random() < 0.2:
            subjects, hazards = rule.subjects, (rng.choice([h for h in tw.HAZARDS if h not in rule.hazards and tw.kind(h) != tw.kind(rule.hazards[0])]),)
        base, _, going = doing(rng, subjects[0], hazards)
        x = things(rng, subjects)
        allowed = fill(rng.choice(tp.MAY_FRAMES), rng, x=x.full, base=base, going=going, **_be(x))
    else:
        pool = tw.HAZARDS if rule.seen[0][0] in tw.HAZARDS else tw.PROPS if rule.seen[0][0] in tw.PROPS else tw.SUBJECTS
        x = things(rng, [rng.choice([w for w in pool if not tr.members(w) & named] or tw.PROPS[:1])])
        allowed = fill(rng.choice(tp.ALLOWED_FRAMES), rng, x=x.full, **_be(x))
        if len(rule.seen) == 1 and rng.random() < 0.6:
            name = things(rng, rule.seen[0])
            text = fill("{x} ({be} not|{be}n't|{be} (<bad>|<bad>)|({be} not) (ok|fine|allowed|okay|alright|acceptable|permitted))", rng, x=name.full, **_agreeing(name))
            return fill("{p}(, but |; |, |. |, yet |, however |, while |, whereas | but ){s}", rng, p=allowed, s=text)
    text = _bare_end(sentence(rng, rule))
    return fill("{p}(, but |; |, |. |, yet |, however |, only |: | but ){s}", rng, p=allowed, s=text[:1].lower() + text[1:])


def _bare_end(text):
    return text.rstrip(".!; ")


def _capital(text):
    return text[:1].upper() + text[1:]


# ---- around the sentence ----

def _dressed(rng, text):
    """With greetings, reasons and so on."""
    if rng.random() < 0.2:
        start = fill(rng.choice(tp.STARTS), rng)
        keep = text.split(" ", 1)[0] in ("I", "I'd", "NO", "We", "we")
        text = f"{start} {text if keep and text[0] == 'I' or start.endswith(('.', '!', '?')) else text[:1].lower() + text[1:]}"
    if rng.random() < 0.1:
        text = _with_tail(text, fill(rng.choice(tp.TAILS), rng))
    if rng.random() < 0.24:
        text = _with_tail(text, fill(rng.choice(tp.REASON_JOINTS), rng, who=fill("<audience>", rng)))
    return text


def _with_tail(text, tail):
    return _bare_end(text) + ("" if tail[:1] in ",.;:" else " ") + tail


def _slip(rng, word):
    """A word with a slip of the pen."""
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1:]
    if kind == 1:
        return word[:at] + word[at + 1] + word[at] + word[at + 2:]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice("abcdefghiklmnoprstuwy") + word[at + 1:]


def _hand(rng, text):
    """Capitals, full stops, slips of the pen."""
    text = text[:1].upper() + text[1:]
    draw = rng.random()
    if draw < 0.2:
        text = text.lower() if rng.random() < 0.5 else text[:1].lower() + text[1:]
    elif draw < 0.24:
        text = text.upper()
    if rng.random() < 0.07:
        words = text.split(" ")
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(words))
            words[at] = _slip(rng, words[at])
        text = " ".join(words)
    if rng.random() < 0.03:
        text = text.replace("'", "") if "'" in text else text.replace(", ", " ")
    if text[-1:] not in ".?!":
        text += rng.choices((".", "", "!", "!!", " !"), (60, 30, 8, 1, 1))[0]
    return text


# ---- vague prose ----

def _vague(rng):
    """Prose that leaves open what is meant, and the rule that stands for it."""
    name = rng.choice(list(tw.VAGUE))
    adjectives, phrases, meaning = tw.VAGUE[name]
    head, *rest = meaning
    if head is None:
        rule = tr.Rule(seen=(rest[0],))
    elif rest[0] is None:
        rule = tr.Rule(seen=(head, rest[1]))
    else:
        rule = tr.Rule(subjects=head, hazards=rest[0])
    draw = rng.random()
    if draw < 0.25 and name in tw.VAGUE_RULES:
        text, said = fill(rng.choice(tp.WISH_FRAMES), rng, w=rng.choice(tw.VAGUE_RULES[name])), ("wish", "")
    elif adjectives and draw < 0.65:
        adjective = rng.choice(adjectives)
        if name in tp.STUFF_OF and rng.random() < 0.3:
            if name == "gore":  # wounds tell what is meant, whatever they are called
                adjective = rng.choice(adjectives + tw.VAGUE["scary"][0])
            what = f"{adjective} {rng.choice(tp.STUFF_OF[name])}"
            return _about(rng, Name(what, what, True)), rule, ("adjective", adjective)
        text, said = fill(rng.choice(tp.VAGUE_FRAMES), rng, a=adjective), ("adjective", adjective)
    else:
        what = rng.choice(phrases)
        text, said = _about(rng, Name(what, what, what.endswith("s") and not what.endswith("ss") or "people" in what)), ("phrase", what)
    return text, rule, said


# ---- wordings ----

def _plain(rng, rule):
    """A wording that is plain already, though not the objective sentence itself."""
    text = tr.phrase(rule)
    if rule.subjects or len(rule.seen) > 1 or rule.place or rng.random() < 0.4:
        frame = rng.choice(tp.PLAIN_FRAMES)
        return _capital(fill(frame, rng, x=text))
    plural = tw.NOUNS.get(rule.seen[0][0], [(None, rule.seen[0][0], True)])[0][1]
    if len(rule.seen[0]) > 1 or rule.seen[0][0] in ("gambling", "person"):
        return _capital(fill(rng.choice(tp.PLAIN_FRAMES), rng, x=text))
    return _capital(fill(rng.choice(tp.PLAIN_FRAMES_MANY), rng, x=plural))


def word(rng):
    """A random wording."""
    draw = rng.random()
    if draw < 0.15:
        text, rule, said = _vague(rng)
        return Wording(_hand(rng, _dressed(rng, text)), rule, True, said)
    rule = tr.sample(rng)
    if draw < 0.25:
        return Wording(tr.plain(rule), rule, None, None)
    if draw < 0.30 and not rule.unless:
        return Wording(_plain(rng, rule), rule, False, None)
    if rule.unless:
        text = _excuse(rng, rule)
    elif not rule.place and rng.random() < 0.07:
        text = _contrast(rng, rule)
    else:
        text = sentence(rng, rule)
    return Wording(_hand(rng, _dressed(rng, text)), rule, True, None)
