//! All lints. A code is never given to another lint, and a lint that is dropped leaves its code unused.

use super::{Level, Lint};

/// All lints, by code.
pub const LINTS: &[Lint] = &[
    Lint {
        code: "C000",
        name: "invalid",
        level: Level::Error,
        what: "The file is not a constitution.",
        why: "Nothing can be judged by it. Only the first mistake is reported; others may follow.",
        example: "severity = \"hihg\"",
        mend: "Follow the message: it names what was expected, what came, and what to do.",
    },
    Lint {
        code: "C001",
        name: "duplicate-statement",
        level: Level::Warning,
        what: "A statement stands twice in one link.",
        why: "A link holds if any of its statements does, so the second changes nothing; another statement was probably \
              meant. Case, spacing and punctuation do not tell statements apart.",
        example: "any = [{ statement = \"a dog is visible\" }, { statement = \"A dog is visible\" }]",
        mend: "Remove the second, or write what was meant.",
    },
    Lint {
        code: "C002",
        name: "implied-link",
        level: Level::Warning,
        what: "A link holds wherever another link of the rule does.",
        why: "Its statements include all of the other link's, so it never decides anything. A longer list of alternatives \
              makes a link weaker, not stronger.",
        example: "link 1: [a knife is visible], link 2: [a knife is visible] or [a gun is visible]",
        mend: "Remove the link, or move its alternatives to the other one.",
    },
    Lint {
        code: "C003",
        name: "never-violated",
        level: Level::Warning,
        what: "No combination of facts violates the rule.",
        why: "The chain asks for a fact and its negation, or the exception holds wherever the chain does. Such a rule calls \
              every picture safe without a word. All combinations of up to 16 facts are tried; `no X` and `X` are one \
              fact, denied and affirmed.",
        example: "precondition: [a dog is visible], unless: [a dog is visible] or [a cat is visible]",
        mend: "Correct the chain, or narrow the exception.",
    },
    Lint {
        code: "C004",
        name: "always-holds",
        level: Level::Warning,
        what: "A link has a statement and its negation.",
        why: "One of both holds for any picture, so the link decides nothing.",
        example: "any = [{ statement = \"a dog is visible\" }, { statement = \"no dog is visible\" }]",
        mend: "Remove the link, or the statement that was not meant.",
    },
    Lint {
        code: "C005",
        name: "contradictory-unless",
        level: Level::Warning,
        what: "The exception can never hold where the chain does.",
        why: "It is asked only after the chain held, and denies what the chain affirms, or contradicts itself: it lets no \
              picture pass.",
        example: "precondition: [a dog is visible], unless: [no dog is visible]",
        mend: "Remove the exception, or write the case that shall pass.",
    },
    Lint {
        code: "C006",
        name: "only-negations",
        level: Level::Warning,
        what: "Every statement of the chain is a negation.",
        why: "Vision-language models say Yes to what they see and are poor at saying Yes to what is missing; and a chain that \
              asks for nothing visible fits most pictures. Found by the words not, no, without, never, none, nobody, \
              nothing, neither, nor, cannot and -n't; words such as `uncovered` count as positive.",
        example: "any = [{ statement = \"the person wears no helmet\" }]",
        mend: "Put a link before it that asks for the subject (a person on a motorcycle is visible), and say what is \
               visible where that can be said (the hair of the rider is uncovered).",
    },
    Lint {
        code: "C007",
        name: "duplicate-rule",
        level: Level::Warning,
        what: "Two rules have the same chain and the same exception.",
        why: "They are violated by the same pictures; only the relevance scan, which reads the text, can tell them apart.",
        example: "two rules with the one link [a knife is visible]",
        mend: "Remove one, or write the difference into its chain.",
    },
    Lint {
        code: "C101",
        name: "several-facts",
        level: Level::Warning,
        what: "A statement states two facts, joined by and, or, but, while.",
        why: "The method is precise because each question is about one fact (CLUE s 3.3): a model that sees the first tends \
              to say Yes to both. Found where a verb stands before the word, and a verb or a second thing that the subject \
              does behind it; lists of things (`an arm or a leg is visible`) are one fact.",
        example: "statement = \"a person is visible and the person is holding a knife\"",
        mend: "Joined by `and`: make two links. Joined by `or`: make two statements of one link.",
    },
    Lint {
        code: "C102",
        name: "not-a-statement",
        level: Level::Warning,
        what: "A statement is a question, has a full stop, or is several sentences.",
        why: "It is put into the middle of a question to the model; a full stop or a second question there changes what the \
              first answered word means.",
        example: "statement = \"Is a dog visible?\"",
        mend: "Write one plain statement without a mark at its end: `a dog is visible`.",
    },
    Lint {
        code: "C103",
        name: "braces",
        level: Level::Warning,
        what: "A text has literal braces.",
        why: "`{{` and `}}` stand for braces themselves, and the models read them as they stand. In a rule in plain language \
              they are mostly a parameter that was written with two braces for one.",
        example: "statement = \"more than {{people}} people are visible\"",
        mend: "Write {people} for the parameter, or leave the braces out.",
    },
    Lint {
        code: "C104",
        name: "foreign-central-word",
        level: Level::Note,
        what: "A central word does not occur in its statement, in no form of the word.",
        why: "Usually the detector should find what the statement names. A note only: a detector often knows another word \
              better (`wound` for injuries, `breast` for nipples).",
        example: "{ statement = \"a dog is visible\", central = [\"tree\"] }",
        mend: "Name the object of the statement, or leave it if the detector knows this word better.",
    },
    Lint {
        code: "C105",
        name: "central-phrase",
        level: Level::Warning,
        what: "A central word is a phrase: it has a verb, a relation, or more than four words.",
        why: "A detector looks for objects. It finds `teeth`, and for `person showing teeth` it finds the whole person, so \
              that removing it removes more than the fact in question (CLUE, Fig 10).",
        example: "central = [\"person holding knife\"]",
        mend: "Name the parts alone, one word each: [\"hand\", \"knife\"].",
    },
    Lint {
        code: "C106",
        name: "no-central-word",
        level: Level::Note,
        what: "A statement has no central words.",
        why: "Without them nothing is looked for: no crop of small objects, no comparison with the object removed. What the \
              score leaves open goes to reasoning, the dearest step. Right for what is nowhere in particular, such as the \
              style of a picture.",
        example: "any = [{ statement = \"a person is holding a knife\" }]",
        mend: "Name the object on which the statement turns: central = [\"knife\"].",
    },
    Lint {
        code: "C107",
        name: "subjective",
        level: Level::Warning,
        what: "A rule's objectiveness is under 9.",
        why: "The paper revises such rules: objectifying one rule from 6 to 9 raised its accuracy from 74 to 98 % (CLUE s 4).",
        example: "text = \"The image should not be indecent.\" with objectiveness = 4",
        mend: "Write what can be seen instead of how it is judged; `cluegate constitution compile` proposes a wording.",
    },
    Lint {
        code: "C108",
        name: "no-counterpart",
        level: Level::Warning,
        what: "More than two thirds of the words of a rule's text have no counterpart in its statements.",
        why: "The text decides whether the rule is looked at, the statements whether it is violated. Where they speak of \
              different things, pictures that violate the chain are left out by the relevance scan.",
        example: "text = \"The image should not show gambling.\" with the one statement \"a bottle is visible\"",
        mend: "Let text and statements speak of the same things, in the same words.",
    },
    Lint {
        code: "C201",
        name: "extreme-prior",
        level: Level::Warning,
        what: "The judge's score of a statement without a picture, M(None, c), leaves no room on one side.",
        why: "A statement holds by its score above M(None,c) + a2 and fails by it below M(None,c) + a1. Where less than 0.01 \
              of the scale is left above or below, the score cannot decide on that side and every such picture goes to \
              reasoning. With the default thresholds that is M(None,c) over 0.95 or under 0.0143. 0.01 is two to three \
              steps of a bf16 number near 1, within which engines differ.",
        example: "M(None, \"the picture has colours\") = 0.99",
        mend: "Word the statement so that it can be false: a fact that some pictures show and others do not.",
    },
    Lint {
        code: "C202",
        name: "too-long",
        level: Level::Warning,
        what: "A rule's text has more tokens than the relevance encoder reads (77 for CLIP).",
        why: "The rest is cut off unread, so that the relevance scan knows only the beginning of the rule.",
        example: "a text of 120 words",
        mend: "Say it in one sentence; exceptions and details belong into the chain.",
    },
    Lint {
        code: "C203",
        name: "never-relevant",
        level: Level::Warning,
        what: "No examined picture passes the rule's relevance scan.",
        why: "A rule that is never relevant is never asked and finds nothing. Examined are the pictures of --pictures, or the \
              rendered scenes with the embedded suite. It says little if none of them has to do with the rule.",
        example: "a threshold of 0.4 for CLIP, whose cosines of matching pairs lie about 0.3",
        mend: "Lower [thresholds] relevance, put the rule's text more plainly, or bring pictures that it is about.",
    },
    Lint {
        code: "C204",
        name: "outside-domain",
        level: Level::Warning,
        what: "A rule has words that the models were not made for.",
        why: "Models that know a small world only (the embedded suite) refuse to judge by it.",
        example: "the statement \"a dragon is visible\" with the embedded suite",
        mend: "Use models that know the world of the rule, or the words that these know.",
    },
];
