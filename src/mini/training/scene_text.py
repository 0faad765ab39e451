"""What texts say about scenes, in a form that labels can be computed from on a GPU.

A *word* is a class, category or group of world.json ("knife", "weapon", "child") with its surface forms. A *literal* is
either `(word,)`, the word is in the picture, or `(subject word, hazard word)`, one touches the other. A text means a
disjunction of conjunctions of literals. `text_bank` lists a few ten thousand texts with their meaning; `TextBank.grade`
compares them with a batch of scenes: 2 if the text holds, 1 if all that it names is there but does not touch, 0 if
something that it names is missing.
"""

import functools
import itertools
import random
import re
import tomllib
from pathlib import Path

import torch

from world import CATEGORIES, CATEGORY, CLASSES, GROUPS, HAZARDS, NAMES, RULES, SUBJECTS

CONSTITUTION = Path(__file__).resolve().parents[2] / "constitution" / "shipped" / "scene.toml"

# Further words for a class, category or group: (singular with article, plural).
SYNONYMS = {
    "person": [("a human", "humans"), ("a human being", "human beings"), ("someone", "persons")],
    "animal": [("a beast", "beasts"), ("a pet", "pets")],
    "child": [("a kid", "kids"), ("a minor", "minors")],
    "baby": [("an infant", "infants")],
    "old man": [("an elderly man", "elderly men")],
    "old woman": [("an elderly woman", "elderly women")],
    "police officer": [("a policeman", "policemen")],
    "fire": [("a fire", "flames"), ("a flame", "fires")],
    "gun": [("a pistol", "pistols"), ("a firearm", "firearms")],
    "knife": [("a blade", "blades")],
    "blood": [("a drop of blood", "drops of blood")],
    "alcohol": [("alcohol", "alcohol"), ("an alcoholic beverage", "alcoholic beverages")],
    "beer": [("beer", "beers"), ("a beer", "glasses of beer")],
    "wine": [("wine", "wines"), ("a wine", "glasses of wine")],
    "drug": [("drugs", "drugs"), ("a medication", "medications")],
    "pill": [("a tablet", "tablets")],
    "bathtub": [("a bath", "bathtubs"), ("a tub", "tubs")],
    "death": [("a symbol of death", "symbols of death")],
    "gambling": [("gambling", "gambling"), ("a game of chance", "games of chance")],
    "dice": [("a die", "dice")],
    "bicycle": [("a bike", "bikes")],
    "sofa": [("a couch", "couches")],
}
# How a subject that touches a hazard is spoken of: after the noun, and as a clause with its plural.
RELATIONS = {
    "fire": [("on fire", "is on fire", "are on fire"), ("that is burning", "is burning", "are burning"),
             ("whose body is on fire", "is on fire", "are on fire")],
    "weapon": [("holding {h}", "is holding {h}", "are holding {h}"), ("with {h} in hand", "holds {h}", "hold {h}"),
               ("touching {h}", "is touching {h}", "are touching {h}"),
               ("armed with {h}", "is armed with {h}", "are armed with {h}")],
    "blood": [("with a bloody injury", "has a bloody injury", "have bloody injuries"),
              ("with bloody injuries", "is bleeding", "are bleeding"),
              ("covered in blood", "is covered in blood", "are covered in blood")],
    "alcohol": [("drinking {h}", "is drinking {h}", "are drinking {h}"),
                ("who drinks {h}", "drinks {h}", "drink {h}")],
    "cigarette": [("smoking a cigarette", "is smoking a cigarette", "are smoking cigarettes"),
                  ("smoking", "is smoking", "are smoking")],
    "drug": [("taking {h}", "is taking {h}", "are taking {h}"), ("using {h}", "is using {h}", "are using {h}")],
    "bed": [("lying on a bed", "is lying on a bed", "are lying on a bed"),
            ("in bed", "is in bed", "are in bed"), ("lying in a bed", "lies in a bed", "lie in a bed")],
    "bathtub": [("taking a bath", "is taking a bath", "are taking a bath"),
                ("in a bathtub", "is in a bathtub", "are in a bathtub"),
                ("bathing", "is bathing", "are bathing")],
    "death": [("touching {h}", "is touching {h}", "are touching {h}")],
    "gambling": [("gambling with {h}", "is gambling with {h}", "are gambling with {h}"),
                 ("gambling", "is gambling", "are gambling")],
}
RULE_FRAMES = [
    "The image should not show {}.", "The image should not depict {}.", "The image should not contain {}.",
    "The picture must not show {}.", "Images must not depict {}.", "Pictures of {} are not allowed.",
    "It is forbidden to show {}.", "Do not show {}.", "The image should not include any depiction of {}.",
    "Images showing {} are prohibited.", "Do not generate images depicting {}.", "{} must not be visible.",
    "{} should not be visible in the image.", "There should be no image of {}.", "Avoid {}.",
]
PICTURE_FRAMES = [
    "{}", "{}.", "a picture of {}", "an image of {}", "a photo of {}", "an image depicting {}", "a scene with {}",
    "the image shows {}", "there is {} in the image", "{} in the picture",
]
STATEMENT_FRAMES = ["{}", "{}.", "{} in this image", "it is visible that {}", "the image shows that {}"]
ANCHOR = "a scene of the emoji world"
FUNCTION_WORDS = (
    "a an the this that there is are be was in on of and or with by to at its it no not any all some one two who whose "
    "which visible shown seen image picture scene photo show shows showing depict depicts depicting depiction contain "
    "contains containing include includes including should must do does can may image's together next same body content "
    "following statement true if where when as for has have being generate generated appear appears appearing"
).split()


class Words:
    """Every class, category and group as a word: its classes, its surface forms, its index."""

    def __init__(self):
        members, forms = {}, {}
        for name, entry in CATEGORIES.items():
            if name != "prop":
                members[name] = [i for i, c in enumerate(CATEGORY) if c == name]
                forms[name] = [(entry["one"], entry["many"])]
        for name, entry in GROUPS.items():
            members[name] = [NAMES.index(c) for c in entry["classes"]]
            forms[name] = [(entry["one"], entry["many"])]
        for index, entry in enumerate(CLASSES):
            name = entry["name"]
            members.setdefault(name, [index])
            one = f"{entry['article']} {name}".strip()
            pair = (one, f"glasses of {name}" if entry["article"] == "a glass of" else entry["plural"])
            if pair not in forms.setdefault(name, []):
                forms[name].append(pair)
        for name, more in SYNONYMS.items():
            forms[name] += [pair for pair in more if pair not in forms[name]]
        self.members, self.forms = members, forms
        self.names = list(members)
        self.index = {name: i for i, name in enumerate(self.names)}
        role = {name: {CATEGORIES[CATEGORY[c]]["role"] for c in classes} for name, classes in members.items()}
        self.subjects = [n for n in self.names if role[n] == {"subject"}]
        self.hazards = [n for n in self.names if role[n] == {"hazard"}]
        self.category = {n: CATEGORY[members[n][0]] for n in self.names}
        self.pairs = [(s, h) for s in self.subjects for h in self.hazards]
        # Literal numbers: words first, then touching pairs; two constants close the list.
        self.literal = {(n,): i for i, n in enumerate(self.names)}
        self.literal.update({pair: len(self.names) + i for i, pair in enumerate(self.pairs)})
        self.true, self.false = len(self.literal), len(self.literal) + 1

    def bare(self, name):
        """Surface forms without article, for the detector: singular and plural."""
        out = [name]
        for one, many in self.forms[name]:
            short = re.sub(r"^(a|an|the) ", "", one)
            out += [w for w in (short, one, many) if " or " not in w]
        return list(dict.fromkeys(out))

    @functools.lru_cache(maxsize=8)  # per device: every step asks for it
    def matrix(self, device):
        """Membership [classes, words] as 0 and 1."""
        out = torch.zeros(len(CLASSES), len(self.names))
        for i, name in enumerate(self.names):
            out[self.members[name], i] = 1
        return out.to(device)

    @functools.lru_cache(maxsize=8)
    def own(self, device):
        """The word of each class [classes], and the literal of each pair of classes that touch [classes, classes], -1
        where there is none."""
        pairs = torch.full((len(NAMES), len(NAMES)), -1)
        for s, h in self.pairs:
            if s in NAMES and h in NAMES:
                pairs[NAMES.index(s), NAMES.index(h)] = self.literal[(s, h)]
        return torch.tensor([self.index[n] for n in NAMES]).to(device), pairs.to(device)


WORDS = Words()


def facts(classes, touched_by, device, words=WORDS):
    """Truth of every literal for a batch, [scenes, literals + 2] bool.

    `classes` [scenes, objects] holds class numbers, -1 where there is no visible object; `touched_by` the number of the
    object that each object, a hazard, touches, or -1.
    """
    member = torch.cat([words.matrix(device), torch.zeros(1, len(words.names), device=device)])
    classes, touched_by = classes.to(device).long(), touched_by.to(device).long()
    has = member[classes]
    subject = torch.where(touched_by >= 0, classes.gather(1, touched_by.clamp(min=0)), -1)
    columns = lambda names: torch.tensor([words.index[n] for n in names], device=device)  # noqa: E731
    left = member[subject][..., columns(words.subjects)]
    right = has[..., columns(words.hazards)]
    touch = torch.einsum("bos,boh->bsh", left, right).flatten(1) > 0
    present = has.amax(1) > 0
    ones = torch.ones(len(classes), 1, dtype=torch.bool, device=device)
    return torch.cat([present, touch, ones, ~ones], 1)


def _named(word, pick):
    one, many = pick(WORDS.forms[word])
    return one, many


def _relation_texts(subject, hazard, pick):
    """(noun phrase, clause) pairs of one touching pair, each way of saying it once, with surface forms by `pick`."""
    kind = WORDS.category[hazard]
    generic = hazard == kind
    for after, one_clause, many_clause in RELATIONS[kind]:
        if "{h}" not in after and not generic:
            continue
        one, many = _named(subject, pick)
        thing = pick(pick(WORDS.forms[hazard]))
        yield f"{one} {after}".format(h=thing), f"{one} {one_clause}".format(h=thing)
        if after not in ("that is burning", "whose body is on fire", "who drinks {h}"):
            yield f"{many} {after}".format(h=thing), f"{many} {many_clause}".format(h=thing)
    if kind == "fire":
        yield f"{one} whose body is on fire", f"the body of {one} is on fire"
    if kind == "blood":
        yield f"{one} with a bloody injury", f"the body of {one} has a bloody injury"


def _presence_clauses(one, many):
    yield from (f"{one} is visible", f"{many} are visible", f"there is {one}", f"there are {many}",
                f"{one} can be seen", f"{many} can be seen", f"{one} is visible via this image",
                f"the image shows {one}", f"{one} is in the picture", f"{many} are in the picture")


def statement_meanings():
    """Meaning of the plain statements that chains are written in: statement -> literal."""
    out = {}
    for name in WORDS.names:
        for one, many in WORDS.forms[name]:
            for text in (*_presence_clauses(one, many), f"{many} is visible"):
                out.setdefault(text, (name,))
    for subject, hazard in WORDS.pairs:
        entry = CATEGORIES[WORDS.category[hazard]]
        things = [w for pair in WORDS.forms[hazard] for w in pair]
        things += [entry["abstract"]] if hazard == WORDS.category[hazard] and "abstract" in entry else []
        for frame, who in itertools.product(entry["relation"], WORDS.forms[subject]):
            if "{h}" not in frame and hazard != WORDS.category[hazard]:
                continue
            for thing in things:
                out.setdefault(frame.format(s=who[0], h=thing), (subject, hazard))
    return out


def shipped_rules():
    """The rules of the shipped scene constitution: (id, text, meaning)."""
    meanings = statement_meanings()
    out = []
    for rule in tomllib.loads(CONSTITUTION.read_text(encoding="utf-8"))["rule"]:
        links = []
        for link in rule["precondition"]:
            unknown = [s["statement"] for s in link["any"] if s["statement"] not in meanings]
            if unknown:
                raise SystemExit(f"scene.toml, rule {rule['id']}: no meaning known for {unknown}")
            links.append([meanings[s["statement"]] for s in link["any"]])
        meaning = [tuple(dict.fromkeys(c)) for c in itertools.product(*links)]
        # "a person is visible and an animal is on fire" says no more than its second half does alone.
        touching = [tuple(x for x in c if len(x) == 2) for c in meaning]
        if any(touching):
            meaning = list(dict.fromkeys(t for t in touching if t))
        out.append((rule["id"], rule["text"], meaning))
    assert {r[0] for r in out} == set(RULES), "the rules of scene.toml and of world.py differ"
    return out


def _meanings(rng):
    """An endless stream of (kind, noun phrases, clauses, meaning)."""
    pick = rng.choice
    kinds = [k for k in WORDS.hazards if k == WORDS.category[k]]
    while True:
        r = rng.random()
        if r < 0.24:
            word = pick(WORDS.names)
            one, many = _named(word, pick)
            yield "presence", [one, many], list(_presence_clauses(one, many)), [((word,),)]
        elif r < 0.34:
            left, right = rng.sample(WORDS.names, 2)
            a, b = pick(_named(left, pick)), pick(_named(right, pick))
            if rng.random() < 0.5:
                phrases = [f"{a} and {b}", f"{a} together with {b}", f"{a} next to {b}", f"{a} with {b} nearby"]
                yield "presence", phrases, [], [((left,), (right,))]
            else:
                yield "presence", [f"{a} or {b}"], [], [((left,),), ((right,),)]
        elif r < 0.40:
            child = pick(["child", "boy", "girl", "baby"])
            hazard = pick(kinds)
            a, b = pick(_named(child, pick)), pick(_named(hazard, pick))
            yield "presence", [f"{a} together with {b}", f"{a} and {b}", f"{a} near {b}"], [], [((child,), (hazard,))]
        elif r < 0.78:
            broad = rng.random() < 0.75
            subject = pick(SUBJECTS) if rng.random() < 0.8 else pick(WORDS.subjects)
            hazard = pick(kinds) if broad else pick(WORDS.hazards)
            texts = list(_relation_texts(subject, hazard, pick))
            if texts:
                phrase, clause = pick(texts)
                yield "relation", [phrase], [clause], [((subject, hazard),)]
        else:
            hazard = pick(kinds)
            (p1, c1), (p2, c2) = (pick(list(_relation_texts(s, hazard, pick))) for s in SUBJECTS)
            tail = p1.split(" ", 2)[-1]
            meaning = [((SUBJECTS[0], hazard),), ((SUBJECTS[1], hazard),)]
            if p1.startswith("a person "):
                p1, p2 = f"a person or an animal {tail}", f"an animal or a person {tail}"
                yield "relation", [p1, p2], [f"{c1} or {c2}"], meaning
            else:
                yield "relation", [f"{p1} or {p2}"], [f"{c1} or {c2}"], meaning


def _capital(text):
    return text[:1].upper() + text[1:]


def bank_texts(count, seed):
    """`count` different texts as (kind, text, meaning), reproducible by `seed`."""
    rng = random.Random(seed)
    seen = {}
    for kind, phrases, clauses, meaning in _meanings(rng):
        r = rng.random()
        if r < 0.5 or not (clauses or r < 0.8):
            text = _capital(rng.choice(RULE_FRAMES[:1] * 8 + RULE_FRAMES).format(rng.choice(phrases)))
        elif clauses and r < 0.8:
            text = rng.choice(STATEMENT_FRAMES[:1] * 4 + STATEMENT_FRAMES).format(rng.choice(clauses))
        else:
            text = rng.choice(PICTURE_FRAMES).format(rng.choice(phrases))
        seen.setdefault(text, (kind, text, meaning))
        if len(seen) >= count:
            return list(seen.values())


class TextBank:
    """Texts with token ids and meanings on a device, ready for labels of whole batches."""

    def __init__(self, texts, ids, device, words=WORDS):
        self.texts, self.words = texts, words
        self.ids = torch.tensor(ids, device=device)
        alternatives = max(len(m) for _, _, m in texts)
        size = max(len(c) for _, _, m in texts for c in m)
        holds = torch.full((len(texts), alternatives, size), words.true)
        there = torch.full((len(texts), alternatives, size * 2), words.true)
        for t, (_, _, meaning) in enumerate(texts):
            holds[t, len(meaning):] = words.false
            there[t, len(meaning):] = words.false
            for a, literals in enumerate(meaning):
                holds[t, a, : len(literals)] = torch.tensor([words.literal[x] for x in literals])
                parts = [words.literal[(w,)] for x in literals for w in x]
                there[t, a, : len(parts)] = torch.tensor(parts)
        self.holds, self.there = holds.to(device), there.to(device)
        named = torch.zeros(len(texts), words.false + 1)
        named.scatter_(1, holds.flatten(1), 1.0).scatter_(1, there.flatten(1), 1.0)
        self.named = named[:, : words.true].to(device)  # which literals and words a text names, 0 or 1

    def __len__(self):
        return len(self.texts)

    def grade(self, truth, chosen=None):
        """Grades [scenes, chosen texts]: 2 holds, 1 all named things are there, 0 something is missing."""
        holds, there = (self.holds, self.there) if chosen is None else (self.holds[chosen], self.there[chosen])
        whole = truth[:, holds].all(-1).any(-1)
        parts = truth[:, there].all(-1).any(-1)
        return whole.long() + (parts | whole).long()


def caption_grades(classes, touched_by, truth):
    """Grades [scenes, captions] of each scene's full caption against every scene of the batch, and which literals each
    caption names [captions, literals]."""
    device = truth.device
    own_word, pair_of = WORDS.own(device)
    count = len(WORDS.names)
    classes, touched_by = classes.to(device).long(), touched_by.to(device).long()
    named = torch.zeros(len(classes), truth.shape[1], device=device)
    visible = classes >= 0
    rows = torch.arange(len(classes), device=device)[:, None].expand_as(classes)
    named[rows[visible], own_word[classes[visible]]] = 1
    touching = visible & (touched_by >= 0)
    subject = classes.gather(1, touched_by.clamp(min=0))
    named[rows[touching], pair_of[subject[touching], classes[touching]]] = 1
    lacking = (1 - truth.float()) @ named.T
    missing = (1 - truth[:, :count].float()) @ named[:, :count].T
    return (missing == 0).long() + (lacking == 0).long(), named[:, : WORDS.true]


def vocabulary(extra=()):
    """All lower-case words that texts about this world use, sorted."""
    texts = [t for pairs in WORDS.forms.values() for pair in pairs for t in pair] + list(WORDS.names)
    texts += [t for tails in RELATIONS.values() for tail in tails for t in tail]
    texts += [r for e in CATEGORIES.values() for r in e.get("relation", [])] + [e.get("abstract", "") for e in CATEGORIES.values()]
    texts += RULE_FRAMES + PICTURE_FRAMES + STATEMENT_FRAMES + [ANCHOR] + list(extra)
    texts += [text for _, text, _ in shipped_rules()]
    constitution = tomllib.loads(CONSTITUTION.read_text(encoding="utf-8"))
    for rule in constitution["rule"]:
        for link in rule["precondition"] + rule.get("unless", []):
            texts += [s["statement"] for s in link["any"]] + [w for s in link["any"] for w in s["central"]]
    found = set(FUNCTION_WORDS)
    for text in texts:
        found |= set(re.findall(r"[a-z]+", re.sub(r"\{\w*\}", " ", text.lower())))
    return sorted(found)
