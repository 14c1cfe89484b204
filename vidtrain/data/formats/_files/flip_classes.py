"""Classes that a horizontal flip turns into one another, recognised by their names: "swipe left" and "swipe right"."""

from __future__ import annotations

import re
from collections.abc import Sequence

# swipe_left, SwipeLeft and "swipe LEFT", but not "leftovers" and not "pulling it right out". What turns clockwise (cw)
# turns the other way round in a mirror.
_WORD = re.compile(
    r"(?:(?<![a-z])|(?<=[a-z])(?=[LRCA]))"
    r"(?i:(left|right)(?!\W+(?:after|away|back|before|next|now|off|out|over|up)\b)"
    r"|((?:counter|anti)[-_ ]?|[ca](?=cw))?(?:clockwise|cw))"
    r"(?![a-z])"
)


def _key(name: str, flipped: bool) -> str:
    """The name with its directions replaced by signs, those of the mirror image where `flipped`."""

    def sign(found: re.Match[str]) -> str:
        side = (found[1] or "").lower()
        if side:
            return "<" if (side == "left") != flipped else ">"
        return " (" if bool(found[2]) != flipped else " )"

    return " ".join(_WORD.sub(sign, name).lower().split())


def flip_pairs(class_names: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Pairs of classes that a flip exchanges, and the classes that it changes into something that is no class.

    Args:
        class_names: (K,), all different.

    Returns:
        (pairs, in the order of their first class; the classes without a partner)
    """
    directed = [name for name in class_names if _WORD.search(name)]
    by_key = {_key(name, flipped=False): name for name in directed}
    pairs: dict[str, str] = {}
    lonely = []
    for name in directed:
        other = by_key.get(_key(name, flipped=True))
        if other is None:
            lonely.append(name)
        elif other != name and other not in pairs and name not in pairs.values():
            pairs[name] = other
    return tuple(pairs.items()), lonely
