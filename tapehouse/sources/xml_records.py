"""Records of an XML file, one by one: what is broken in one of them does not take its neighbours along.

An XML parser gives up a whole file at the first fault. Here the text is cut at the records' own tags and each piece is
parsed for itself, so that a fault stays in its record; what lies between records comes back too, as pieces without an
element. Every character of the file is in a record, in a piece, in a comment, or in the frame (the XML declaration and the
root's two tags).

A DTD is refused before anything is parsed: without one there are no entities to expand or to fetch.
"""

import codecs
import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from xml.sax.saxutils import quoteattr

from lxml import etree

HEAD = 2000  # characters of a refused file that are shown with the reason
NAME = r"(?:[\w.-]+:)?"  # an element's name may have a prefix
COMMENT = r"<!--(?:(?!--).)*-->"  # as XML has it: an open one cannot reach over the next
MISC = re.compile(rf"\s+|<\?(?:(?!<\?|\?>).)*\?>|{COMMENT}", re.DOTALL)
DTD = re.compile(r"<!\s*(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)
DECLARED = re.compile(rb"^<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z][\w.-]*)[\"']")
# Longest first: the mark of UTF-32 starts with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"<\x00?\x00", "utf-16-le"),
    (b"\x00<\x00?", "utf-16-be"),
)
UNREADABLE = re.compile("[\ud800-\udfff]")  # bytes that no character was found for, as lone surrogates
# How often over its own length a damaged file may be parsed on, looking for the end of a record behind quoted markup.
RETRIES = 4


@dataclass(frozen=True)
class Record:
    """One record, or a piece of text that is none.

    Attributes:
        line: where it starts in the file; the first line is 1.
        number: its place among the file's pieces, from 1.
        text: as received; bytes that are no text are written as \\xNN.
        element: the parsed record; None where `fault` says why there is none.
    """

    line: int
    number: int
    text: str
    element: etree._Element | None = None
    fault: str | None = None


@dataclass(frozen=True)
class XmlFile:
    """A file's root attributes and records, or the `fault` for which none of it can be used."""

    attributes: dict[str, str] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    fault: str | None = None


def read_records(content: bytes, root: str, record: str) -> XmlFile:
    """The records of one file.

    Args:
        content: the whole file, in any encoding that it declares or marks; UTF-8 otherwise.
        root: name of the root element, without prefix.
        record: name of the elements directly below it.

    Returns:
        An `XmlFile`. Its `fault` is set where the file has a DTD, cannot be decoded, or has no such root; what is cut off
        or beside the records is among `records`, each with its own fault.
    """
    try:
        text, codec = _decoded(content)
    except ValueError as error:
        return XmlFile(fault=str(error))
    first = re.search(rf"<{NAME}{re.escape(record)}\b", text)
    prolog = text[: first.start() if first else len(text)]
    if (dtd := DTD.search(_without_misc(prolog))) is not None:
        return XmlFile(fault=f"a DTD is refused: {dtd.group()!r}; entities are neither expanded nor fetched")
    opening = re.compile(rf"""<{NAME}{re.escape(root)}(?=[\s>/])(?:[^<>"']|"[^"<]*"|'[^'<]*')*>""")
    start = _skip_misc(text, 0)
    frame = opening.match(text, start) or opening.search(prolog, start)
    element = _parsed(_closed(frame.group())) if frame else None
    if frame is None or isinstance(element, str):
        said = "no readable start tag" if frame is None else element
        return XmlFile(fault=f"no <{root}> file: {said}; it starts with {_shown(text[:60])!r}")
    attributes = {etree.QName(name).localname: str(value) for name, value in element.attrib.items()}
    pieces = _pieces(text, frame, root, record, element.nsmap, codec)
    return XmlFile(attributes, tuple(pieces))


def summary(content: bytes) -> dict[str, str | int]:
    """What to keep of a refused file: its length, SHA-256 and first characters."""
    head = content[:HEAD].decode("utf-8", errors="backslashreplace")
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "head": head.replace("\x00", "\\x00")}


def _pieces(
    text: str, frame: re.Match[str], root: str, record: str, namespaces: dict[str | None, str], codec: str
) -> Iterator[Record]:
    """Records and what lies between them, in order."""
    lines = _Lines(text)
    number = 0

    def piece(begin: int, end: int, element: etree._Element | None, fault: str | None) -> Record:
        nonlocal number
        number += 1
        return Record(lines.at(begin), number, _shown(text[begin:end]), element, fault)

    def between(begin: int, end: int) -> Iterator[Record]:
        begin = _skip_misc(text, begin)
        stop = begin + len(text[begin:end].rstrip())
        if begin < stop and _without_misc(text[begin:stop]).strip():
            yield piece(begin, stop, None, f"text outside a <{record}> record")

    yield from between(0, frame.start())
    if frame.group().endswith("/>"):
        yield from between(frame.end(), len(text))
        return
    closing = list(re.finditer(rf"</{NAME}{re.escape(root)}\s*>", text[frame.end() :]))
    closed = bool(closing) and not _without_misc(text[frame.end() + closing[-1].end() :]).strip()
    end = frame.end() + closing[-1].start() if closed else len(text)
    at = frame.end()
    for begin, stop, element in _records(text, at, end, record, namespaces):
        yield from between(at, begin)
        bad = UNREADABLE.search(text, begin, stop)
        if bad:
            yield piece(begin, stop, None, f"bytes that are not {codec}")
        elif isinstance(element, str):
            yield piece(begin, stop, None, element)
        else:
            yield piece(begin, stop, element, None)
        at = stop
    yield from between(at, end)
    if not closed:
        yield piece(len(text), len(text), None, f"the file is cut off: it does not end with </{root}>")


def _records(
    text: str, at: int, end: int, record: str, namespaces: dict[str | None, str]
) -> Iterator[tuple[int, int, etree._Element | str]]:
    """(start, end, element or reason) of each record in text[at:end] that is not commented out.

    A record ends at its first end tag, or before the next start tag. Where that piece does not parse, the tag may stand in
    a comment or in CDATA: the piece that ends at the first tag outside of these is tried too.
    """
    name = f"{NAME}{re.escape(record)}"
    next_record = re.compile(rf"(?P<comment>{COMMENT})|<{name}(?=[\s>/])", re.DOTALL)
    tag = re.compile(rf"<(?P<end>/)?{name}(?=[\s>/])[^<>]*>?")
    empty = re.compile(rf"""<{name}(?=[\s/])(?:[^<>"']|"[^"<]*"|'[^'<]*')*/>""")
    left = RETRIES * (end - at)
    while (found := next_record.search(text, at, end)) is not None:
        begin = found.start()
        if found["comment"]:
            at = found.end()
            continue
        alone = empty.match(text, begin, end)
        after = tag.search(text, begin + 1, end)
        stop = alone.end() if alone else _stop(after, end)
        element = _parsed(text[begin:stop], namespaces)
        if isinstance(element, str) and left > 0:
            farther, reached = _end_outside_quotes(text, begin + 1, end, tag)
            left -= reached - begin
            if farther > stop and not isinstance(second := _parsed(text[begin:farther], namespaces), str):
                stop, element = farther, second
        yield begin, stop, element
        at = stop


def _stop(tag: re.Match[str] | None, end: int) -> int:
    if tag is None:
        return end
    return tag.end() if tag["end"] else tag.start()


def _end_outside_quotes(text: str, at: int, end: int, tag: re.Pattern[str]) -> tuple[int, int]:
    """Where the record ends by the first tag outside comments and CDATA (0 if nowhere), and how far the text was read."""
    opened = re.compile(rf"(?P<comment><!--)|(?P<cdata><!\[CDATA\[)|{tag.pattern}")
    while (found := opened.search(text, at, end)) is not None:
        close = "-->" if found["comment"] else "]]>" if found["cdata"] else None
        if close is None:
            return _stop(found, end), found.end()
        at = text.find(close, found.end(), end) + len(close)
        if at < found.end():  # never closed
            return 0, end
    return 0, end


@lru_cache(maxsize=1)
def _parser() -> etree.XMLParser:
    # No DTD ever reaches it; it is told all the same to expand and to fetch nothing. Long texts are welcome.
    return etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, huge_tree=True, remove_comments=True, remove_pis=True
    )


def _parsed(text: str, namespaces: dict[str | None, str] | None = None) -> etree._Element | str:
    """The element that a text is, or why it is none. `namespaces` are those in force around it."""
    if namespaces:
        declared = " ".join(f"xmlns{f':{p}' if p else ''}={quoteattr(uri)}" for p, uri in namespaces.items())
        text = f"<scope {declared}>{text}</scope>"
    try:
        # Surrogates, which stand for bytes that could not be read, are refused by the parser.
        element = etree.fromstring(text.encode("utf-8", errors="surrogatepass"), _parser())
    except etree.XMLSyntaxError as error:
        said = re.sub(r"[,\s]*line \d+, column \d+.*", "", error.msg or "cannot be parsed", flags=re.DOTALL)
        return f"broken XML: {said}"
    return element[0] if namespaces else element


def _closed(tag: str) -> str:
    return tag if tag.endswith("/>") else f"{tag[:-1]}/>"


def _decoded(content: bytes) -> tuple[str, str]:
    """The text and its encoding, without the mark; a byte that cannot be read is a lone surrogate.

    Raises:
        ValueError: with the reason.
    """
    for mark, codec in MARKS:
        if content.startswith(mark):
            skipped = 0 if mark.startswith((b"<", b"\x00<")) else len(mark)
            return content[skipped:].decode(codec, errors=_UNREAD), codec
    declared = DECLARED.match(content.lstrip(b" \t\r\n"))
    codec = declared.group(1).decode() if declared else "utf-8"
    if codec.lower().replace("_", "-").startswith(("utf-16", "utf-32", "ucs-")):
        raise ValueError(f"declares the encoding {codec}, and is not in it")
    try:
        return content.decode(codec, errors=_UNREAD), codec
    except LookupError:
        raise ValueError(f"declares an unknown encoding {codec!r}") from None
    except UnicodeError as error:
        raise ValueError(f"cannot be decoded as {codec}: {error}") from None


def _as_surrogates(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


_UNREAD = "tapehouse.unread"
codecs.register_error(_UNREAD, _as_surrogates)


def _shown(text: str) -> str:
    """Text that can be stored: surrogates as the bytes that they stand for."""
    return UNREADABLE.sub(lambda found: _escaped(ord(found.group())), text)


def _escaped(surrogate: int) -> str:
    return f"\\x{surrogate - 0xDC00:02x}" if 0xDC00 <= surrogate <= 0xDCFF else f"\\u{surrogate:04x}"


def _skip_misc(text: str, at: int) -> int:
    while (found := MISC.match(text, at)) is not None:
        at = found.end()
    return at


def _without_misc(text: str) -> str:
    return MISC.sub(" ", text)


class _Lines:
    """Line numbers of positions in a text."""

    def __init__(self, text: str):
        self.ends = [found.start() for found in re.finditer("\n", text)]

    def at(self, position: int) -> int:
        return bisect_left(self.ends, position) + 1
