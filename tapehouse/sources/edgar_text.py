"""The text of a filing, parted at its item headings: Item 1A of a 10-K, Item 2 of Part I of a 10-Q, Item 2.02 of an 8-K."""

import re
from collections.abc import Iterator

BLOCKS = ("address", "blockquote", "br", "center", "dd", "div", "dl", "dt", "form", "h1", "h2", "h3", "h4", "h5", "h6", "hr")
BLOCKS += ("li", "ol", "p", "pre", "table", "tr", "ul")
UNSHOWN = ("head", "ix:header", "script", "style")
HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
# A heading stands on a line of its own; a sentence that begins with "Item 7 of this report" does not.
LONGEST_HEADING = 160
PART = re.compile(r"^part\s+(iv|i{1,3}|[1-4])\b", re.IGNORECASE)
ITEM = re.compile(
    r"^(?:part\s+(?P<part>iv|i{1,3}|[1-4])\b[\s,.:\u2013\u2014-]*)?item\s*(?P<item>\d{1,2}(?:\.\d{2}|[a-c])?)\b\s*"
    r"(?P<rest>$|[.:\u2013\u2014-].*|[A-Z(].*)$",
    re.IGNORECASE,
)
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4"}
WHOLE, REST = "document", "other"


def sections(body: bytes, form: str) -> list[tuple[str, str]]:
    """(name, text) of each section, in the order of the document; no text is left out.

    Names are `item_1a`, `item_2.02`, and where a form counts items by part (10-Q) `part_2_item_1a`. Where a heading comes
    twice (a table of contents, a running header), the longest text below it is the item's, and the rest goes to `other`
    with what stands before the first item. A document without item headings is one section, `document`.
    """
    lines = text_of(body).split("\n")
    pieces: list[tuple[str, list[str]]] = [(REST, [])]
    part = ""
    for line in lines:
        if len(line) <= LONGEST_HEADING:
            if found := PART.match(line):
                part = ROMAN.get(found[1].lower(), found[1])
            if (found := ITEM.match(line)) and (found["rest"][:1].upper() == found["rest"][:1]):
                name = f"item_{found['item'].lower()}"
                pieces.append((f"part_{part}_{name}" if part and form.startswith("10-Q") else name, []))
        pieces[-1][1].append(line)
    texts = [(name, "\n".join(piece).strip("\n")) for name, piece in pieces]
    texts = [(name, text) for name, text in texts if text]
    longest: dict[str, int] = {}
    for at, (name, text) in enumerate(texts):
        if name != REST and (name not in longest or len(text) > len(texts[longest[name]][1])):
            longest[name] = at
    if not longest:
        return [(WHOLE, "\n".join(text for _, text in texts))] if texts else []
    rest = "\n".join(text for at, (_, text) in enumerate(texts) if at not in longest.values())
    found = [texts[at] for at in sorted(longest.values())]
    return [*([(REST, rest)] if rest else []), *found]


def text_of(body: bytes) -> str:
    """The readable text of a document, one block a line: HTML without what it hides, plain text as it is."""
    text = decoded(body)
    if re.search(r"<(html|body|div|p|table|font)\b", text[:20_000], re.IGNORECASE):
        text = "".join(_shown(text))
    lines = (re.sub(r"[\s\u200b]+", " ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _shown(text: str) -> Iterator[str]:
    """The pieces of text that a page shows, with a line end about each block and a space after each cell."""
    from lxml import etree, html

    # A declared encoding refers to bytes, and this is text already.
    parser = html.HTMLParser(no_network=True, remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = html.document_fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text), parser=parser)
    except etree.ParserError:  # nothing but white space
        return
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        hidden = element.tag in UNSHOWN or HIDDEN.search(element.get("style") or "")
        around = "\n" if element.tag in BLOCKS else ""
        if event == "start" and hidden:
            walk.skip_subtree()
        elif event == "start":
            yield around + (element.text or "")
        else:
            yield (" " if element.tag in ("td", "th") else around) + (element.tail or "")


def decoded(body: bytes) -> str:
    """Text in UTF-8, as filings have been since 2008, or else in Windows-1252, as before."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = body.decode("cp1252", errors="replace")
    return CONTROLS.sub(" ", text)
