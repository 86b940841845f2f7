"""XMP packets (ISO 16684-1) that hold one text, written and read as plain text.

No XML parser reads them: a packet may come from anywhere, and a parser can be made to do far more than to find a text.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, unescape

#: the name space of our one property
NAMESPACE = "urn:headless-wan2gp:provenance"
#: larger texts are neither written nor read: what a file says of itself must not fill the memory
MAX_TEXT_BYTES = 16 * 1024 * 1024
_OPENING, _CLOSING = "<hw:record>", "</hw:record>"
#: what XML 1.0 cannot hold or would change (2.2, 2.11), and what UTF-8 cannot
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u2028\u2029]")
_PACKET = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:hw="{namespace}">
<xmp:CreatorTool>{tool}</xmp:CreatorTool>
<hw:record>{text}</hw:record>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""
_PACKET_OF_EXTENDED = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/">
<xmp:CreatorTool>{tool}</xmp:CreatorTool>
<xmpNote:HasExtendedXMP>GUID</xmpNote:HasExtendedXMP>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def packet(text: str, tool: str) -> bytes:
    """A packet that holds `text` and names the `tool` that made the file. Raises ValueError for a text that does not
    fit (see `fits`)."""
    if not fits(text):
        raise ValueError("the text holds characters that XML or UTF-8 cannot")
    return _PACKET.format(namespace=NAMESPACE, tool=escape(tool), text=escape(text)).encode()


def extended(tool: str) -> bytes:
    """The packet of a JPEG whose text stands in extension segments; GUID stands for the digest of those."""
    return _PACKET_OF_EXTENDED.format(tool=escape(tool)).encode()


def fits(text: str) -> bool:
    """Whether XML and UTF-8 keep the text as it is."""
    return not _UNFIT.search(text)


def escaped_json(text: str) -> str:
    """The same JSON, with what does not fit written as escapes of JSON; it stands only inside its strings."""
    return _UNFIT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def text_of(data: bytes) -> str | None:
    """The text of a packet that `packet` made; None when it is another's."""
    _, opening, rest = data.decode("utf-8", errors="replace").partition(_OPENING)
    text, closing, _ = rest.partition(_CLOSING)
    return unescape(text) if opening and closing else None
