"""The tabs, in their order; nothing else lists them. A tab is a file here, its entry in `TABS`, and
its texts in `app/locales`."""

from ..tab import Tab
from .about import About
from .ask import Ask
from .collection import Collection
from .compare import Compare
from .describe import Describe
from .find import Find
from .inspect import Inspect
from .match import Match

TABS: tuple[type[Tab], ...] = (Find, Describe, Ask, Inspect, Match, Compare, Collection, About)

__all__ = ["TABS", "Tab"]
