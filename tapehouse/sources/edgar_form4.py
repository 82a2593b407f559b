"""Form 4: what an insider traded, as the XML of the filing says it. https://www.sec.gov/submit-filings/technical-specifications"""

from collections.abc import Iterator
from dataclasses import dataclass

TRANSACTIONS = {"nonDerivativeTransaction": False, "derivativeTransaction": True}
FIELDS = {
    "security": "securityTitle/value",
    "transaction_date": "transactionDate/value",
    "code": "transactionCoding/transactionCode",
    "shares": "transactionAmounts/transactionShares/value",
    "price": "transactionAmounts/transactionPricePerShare/value",
    "acquired_disposed": "transactionAmounts/transactionAcquiredDisposedCode/value",
    "shares_after": "postTransactionAmounts/sharesOwnedFollowingTransaction/value",
    "ownership": "ownershipNature/directOrIndirectOwnership/value",
}
TRUE = ("1", "true")


class UnreadableForm(ValueError):
    """A document that is no Form 4 in XML; the message says why."""


@dataclass(frozen=True)
class Trade:
    """One transaction of a form: its number in the document from 1, its fields as received, and who reports it."""

    line: int
    record: dict[str, str | None]
    derivative: bool
    owners: dict[str, object]


def trades(body: bytes) -> Iterator[Trade]:
    """The transactions of a Form 4, in its order; holdings without a transaction are passed over.

    Raises:
        UnreadableForm: no XML, another root, or a document type declaration (entities are neither read nor fetched).
    """
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise UnreadableForm(f"no XML form: {error}") from None
    if root.getroottree().docinfo.doctype:
        raise UnreadableForm("a document type declaration is refused: it may define entities")
    if root.tag != "ownershipDocument":
        raise UnreadableForm(f"no ownership form: its root is <{root.tag}>")
    owners = _owners(root)
    for line, element in enumerate(root.iter(*TRANSACTIONS), start=1):
        record = {name: _text(element, path) for name, path in FIELDS.items()}
        yield Trade(line, record, TRANSACTIONS[element.tag], owners)


def _owners(root) -> dict[str, object]:
    """Who reports: several may file one form together, and are then named together."""
    found = root.findall("reportingOwner")

    def any_of(name: str) -> bool:
        return any((_text(owner, f"reportingOwnerRelationship/{name}") or "").lower() in TRUE for owner in found)

    def joined(path: str) -> str:
        return "; ".join(text for owner in found if (text := _text(owner, path)))

    return {
        "owner_cik": joined("reportingOwnerId/rptOwnerCik"),
        "owner": joined("reportingOwnerId/rptOwnerName"),
        "is_director": any_of("isDirector"),
        "is_officer": any_of("isOfficer"),
        "is_ten_percent_owner": any_of("isTenPercentOwner"),
        "officer_title": joined("reportingOwnerRelationship/officerTitle") or None,
    }


def _text(element, path: str) -> str | None:
    text = element.findtext(path)
    return text.strip() if text and text.strip() else None
