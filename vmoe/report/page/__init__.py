"""What all pages share: the document, its look and colours, and what makes any text safe to show."""

from .document import THEMES, Part, document, embedded, escape, facts_list
from .palette import EIGHT, LEVELS, css_of
from .visible import as_a_label, as_it_reads

__all__ = [
    "EIGHT",
    "LEVELS",
    "THEMES",
    "Part",
    "as_a_label",
    "as_it_reads",
    "css_of",
    "document",
    "embedded",
    "escape",
    "facts_list",
]
