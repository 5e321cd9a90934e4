"""Questions that the sticker world cannot answer: foreign, nonsensical, or about something else."""

import json
import random

from x2vlm.stickers.concepts import DATA, NAMES

LISTS = json.loads((DATA / "nonsense.json").read_text(encoding="utf-8"))
"""`trained` and `kept_back`, each with `foreign`, `elsewhere` and `about`, whose {x} is a thing;
`words` make a salad."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _gibberish(rng: random.Random) -> str:
    return " ".join(
        "".join(rng.choices(LETTERS, k=rng.randint(2, 8))) for _ in range(rng.randint(1, 5))
    )


def _salad(rng: random.Random) -> str:
    words = [
        *rng.choices(LISTS["words"], k=rng.randint(2, 5)),
        *rng.choices(NAMES, k=rng.randint(0, 3)),
    ]
    # Names alone would be a fair question whether they are there.
    rng.shuffle(words)
    return " ".join([rng.choice(("of", "than", "is", "the")), *words, rng.choice(("the", "than"))])


def nonsense(thing: str, rng: random.Random, kept_back: bool = False) -> str:
    """One such question; `thing` is something in the image that it may be about."""
    kind = rng.choice(("foreign", "elsewhere", "about", "about", "gibberish", "salad"))
    if kind == "gibberish":
        return _gibberish(rng)
    if kind == "salad":
        return _salad(rng)
    return rng.choice(LISTS["kept_back" if kept_back else "trained"][kind]).format(x=thing)
