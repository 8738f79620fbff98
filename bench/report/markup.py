"""Pieces of HTML that sections are made of; whatever is given is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup


def table(caption: str, columns: Sequence[str], lines: Iterable[Sequence[Any]], numeric: Iterable[str] = ()) -> Markup:
    """A table in a region that scrolls. The first value of a line is its heading; the columns named in `numeric` are
    set to the right. The caption begins with the table's name and a full stop."""
    right = [name in set(numeric) for name in columns]
    head = Markup("").join(
        Markup('<th{} scope="col">{}</th>').format(_n(n), c) for c, n in zip(columns, right, strict=True)
    )
    body = Markup("\n").join(_line(line, right) for line in lines)
    return Markup(
        '<div class="scroll" role="region" aria-label="{}" tabindex="0"><table class="figures"><caption><div>{}</div>'
        "</caption><thead><tr>{}</tr></thead><tbody>\n{}\n</tbody></table></div>"
    ).format(caption.partition(".")[0], caption, head, body)


def paragraphs(sentences: Iterable[str], soft: bool = False) -> Markup:
    """One a sentence."""
    kind = Markup(' class="soft"') if soft else ""
    return Markup("\n").join(Markup("<p{}>{}</p>").format(kind, sentence) for sentence in sentences)


def folded(summary: str, body: Markup) -> Markup:
    """`body` behind a line that opens it."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, body)


def _line(values: Sequence[Any], right: Sequence[bool]) -> Markup:
    first, *rest = zip(values, right, strict=True)
    heading = Markup('<th{} scope="row">{}</th>').format(_n(first[1]), first[0])
    cells = Markup("").join(Markup("<td{}>{}</td>").format(_n(numeric), value) for value, numeric in rest)
    return Markup("<tr>{}{}</tr>").format(heading, cells)


def _n(numeric: bool) -> Markup:
    return Markup(' class="n"') if numeric else Markup("")
