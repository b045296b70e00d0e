"""References: each work once, by the family name of its first author, with its number, and all of them as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_INITIALS = r"\w\.(?:[ -]?\w\.)*"
_FAMILY = r"[^\W\d_a-z][\w'\u2019-]+(?: [^\W\d_a-z][\w'\u2019-]+)?"
_PERSONS = (rf"{_INITIALS} {_FAMILY}", rf"{_FAMILY}, {_INITIALS}(?!\w)", r"[^\W\d_a-z][\w'\u2019-]+")
"""How references write a person: J. L. Ba; Holm, S.; Zeiler. One reference keeps to one of them."""
_LISTS = tuple(re.compile(rf"({one}(?:, {one})*(?:,? and {one})?)(?: et al\.)?(?=[,.]? )") for one in _PERSONS)
_YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d)(?!\d)")
_SMALL = frozenset("a an and for from in of on the to with".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A work that a report refers to: the reference as a card gives it, its address, and what can be told apart in it.

    `authors` are as the reference writes them, `title` is all that follows them where no title can be told apart.
    """

    text: str
    url: str
    authors: tuple[str, ...]
    title: str
    year: str

    @property
    def family(self) -> str:
        """Return the family name of the first author, or the first word."""
        if not self.authors:
            return next(iter(self.text.split()), "").strip(".,")
        return _family(self.authors[0])


def _family(author: str) -> str:
    last, comma, _ = author.partition(",")
    return last if comma else re.sub(rf"^{_INITIALS} ", "", author)


def work_of(text: str, url: str = "") -> Work:
    """Return the work that a reference names, in any of the usual forms.

    `S. Ioffe and C. Szegedy, Title, ICML 2015`, `Holm, S. (1979). Title. Journal 6, 65-70.` and `Hutter, Hoos. Title.
    ICML 2014.` are told apart; of anything else the title is the whole text.
    """
    authors, rest = _authors(text)
    year = next(iter(_YEAR.findall(text)[-1:]), "")
    dated = re.match(r"\((\d{4})\)\.? *", rest)
    if dated:
        year, rest = dated[1], rest[dated.end() :]
    return Work(text=text, url=url, authors=authors, title=_title(rest), year=year)


def _authors(text: str) -> tuple[tuple[str, ...], str]:
    """Return the authors with whom a reference begins, as it writes them, and the rest of it."""
    for one, persons in zip(_PERSONS, _LISTS, strict=True):
        found = persons.match(text)
        if not found:
            continue
        people, end = found[1], found.end()
        # Of names without initials, words after a comma may be the title's, but for those before `and` or a full stop.
        if one == _PERSONS[-1] and " and " not in people and not text.startswith(".", end):
            people = people.partition(",")[0]
            end = max(len(people), end if found[0].endswith("et al.") else 0)
        more = ("others",) if found[0].endswith("et al.") else ()
        return (*re.findall(one, people), *more), text[end:].lstrip(",. ")
    return (), text


def _title(rest: str) -> str:
    """Return what of the rest of a reference is the title: up to the first full stop, else up to the last commas."""
    sentence = re.match(r"(.+?[\w)])\. ", f"{rest} ")
    if sentence and len(sentence[1]) < len(rest.rstrip(". ")):
        return sentence[1]
    title = re.sub(r",? (?:section|in) [^,]*$", "", rest.rstrip(". "))
    return re.sub(r",[^,]*?\d{4}$", "", title) or rest


def listed(references: Iterable[tuple[str, str]]) -> tuple[Work, ...]:
    """Return the works of references (text, address), each once, by family name and year of publication.

    Two references name one work when their addresses are equal, or family name and year are and most words of the
    shorter title are in the longer one; the first stands for both, with whatever address either has.
    """
    kept: list[Work] = []
    for text, url in references:
        work = work_of(text, url)
        same = next((place for place, other in enumerate(kept) if _same(work, other)), None)
        if same is None:
            kept.append(work)
        elif url and not kept[same].url:
            kept[same] = work_of(kept[same].text, url)
    return tuple(sorted(kept, key=lambda work: (work.family.casefold(), work.year, work.title.casefold())))


def _same(one: Work, other: Work) -> bool:
    if one.url and one.url == other.url:
        return True
    if (one.family, one.year) != (other.family, other.year):
        return False
    words, others = _words(one.title), _words(other.title)
    return 2 * len(words & others) > min(len(words), len(others))


def _words(title: str) -> set[str]:
    return set(re.findall(r"\w+", title.casefold())) - _SMALL


def numbers_of(works: Sequence[Work], references: Iterable[tuple[str, str]]) -> Mapping[str, int]:
    """Return the number of the work that each reference (text, address) names, counted from 1, by the text."""
    known = [(text, work_of(text, url)) for text, url in references]
    return {text: place for text, work in known for place, other in enumerate(works, 1) if _same(work, other)}


def bibtex(works: Sequence[Work]) -> str:
    """Return the works as BibTeX; each entry's note is the reference as the report prints it, digit by digit."""
    keys: set[str] = set()
    return "\n".join(_entry(work, _key(work, keys)) for work in works)


def _key(work: Work, keys: set[str]) -> str:
    plain = re.sub(r"[^a-z0-9]", "", f"{work.family.casefold()}{work.year}") or "work"
    key = next(name for name in (plain + "abcdefghijklmnopqrstuvwxyz"[n] if n >= 0 else plain for n in range(-1, 26))
               if name not in keys)  # fmt: skip
    keys.add(key)
    return key


def _entry(work: Work, key: str) -> str:
    fields = {
        "author": " and ".join(work.authors),
        "title": f"{{{_tex(work.title)}}}",
        "year": work.year,
        "url": re.sub(r"[{}\\\s]", "", work.url),
        "note": _tex(work.text),
    }
    fields["author"] = _tex(fields["author"])
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@misc{{{key},\n{lines}}}\n"


def _tex(text: str) -> str:
    """Return text in which TeX finds nothing to act on."""
    return "".join(_TEX.get(letter, letter) for letter in " ".join(text.split()))


_TEX = {
    "\\": r"\textbackslash ", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\^{}", "~": r"\~{}",
}  # fmt: skip
