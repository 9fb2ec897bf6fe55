"""A page as tests read it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "input", "img"}


class HtmlPage(HTMLParser):
    """elements: (tag, attributes), and contents: the text right inside each, in order."""

    def __init__(self, content: str):
        super().__init__()
        self.elements, self.contents, self.open = [], [], []
        self.feed(content)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.contents.append("")
        if tag not in VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.contents.append("")

    def handle_endtag(self, tag):
        opened, _ = self.open.pop()
        assert tag == opened

    def handle_data(self, text):
        if self.open:
            self.contents[self.open[-1][1]] += text

    def named(self, tag, **attributes):
        """(attributes, text) of the elements of this tag that have these attributes."""
        pairs = zip(self.elements, self.contents, strict=True)
        return [(found, text) for (t, found), text in pairs if t == tag and attributes.items() <= found.items()]
