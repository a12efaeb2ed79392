"""Whether an audit log is as it was written. Pure: keys, then all anchors, then all entries go in; what is wrong comes out.

Each fault names the entry or the anchor at which it shows. What is looked at, in this order:

1. Anchors are numbered without a gap, each has its own hash, the hash of the one before, and a signature of a known key.
2. Entries of a chain are numbered without a gap, from 1 or from where a signed anchor says that older ones were dropped.
3. An entry has the hash that its fields give (else it was changed), the hash of the one before (else one was put in or taken out),
   and a signature of a known key (else it was made by somebody without the key).
4. Its address and summary have the hash that the entry names, or a signed entry says that they were erased.
5. The newest entry that an anchor binds is there, with that hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.audit.chain import DROPPED, ERASED, NOTHING, Anchor, Entry, digest_of, hash_of, signed
from regions.wire import ids

FAULTS_MAX = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """`what`: ``changed``, ``missing``, ``inserted``, ``not_signed``, ``unknown_key``, ``erased``, ``misplaced``.
    `entry`: its id, where there is one."""

    what: str
    where: str
    detail: str
    entry: str | None = None


@dataclass(slots=True)
class _Chain:
    n: int = 0
    hash: bytes | None = NOTHING
    """None: the beginning is not here, and whatever comes first is taken for it."""


@dataclass(slots=True)
class Verifier:
    """`keys`: by kid. `project_id`: whose log it is said to be. `whole`: from its beginning to its end; else a part, of which the
    first entries of each chain are taken as they are, and what lies behind it is not missed."""

    keys: Mapping[str, Ed25519PublicKey]
    project_id: UUID
    whole: bool = True
    faults: list[Fault] = field(default_factory=list)
    entries: int = 0
    anchors: int = 0
    unanchored: int = 0
    erased: int = 0
    projects: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Of the platform's log: the newest anchor of each project that it binds."""
    dropped_at: str | None = None
    """When entries were last dropped for their age, as a signed anchor says."""
    newest_anchor: tuple[int, str] | None = None
    anchored_at: str | None = None
    _bound: dict[str, dict[int, str]] = field(default_factory=dict)
    _begun: dict[str, tuple[int, str]] = field(default_factory=dict)
    _at: dict[str, _Chain] = field(default_factory=dict)
    _bare: dict[tuple[str, int], str] = field(default_factory=dict)
    _allowed: set[tuple[str, int]] = field(default_factory=set)
    _anchor_n: int = 0
    _anchor_hash: bytes | None = NOTHING
    _first: tuple[int, str] | None = None
    """Of the first anchor that is here, where it is not number 1: its number, and the hash that it says came before."""
    _gone: tuple[int, str] = (0, "")
    """The newest anchor that was dropped, as a signed one says."""

    # ------------------------------------------------------------------------------------------------ anchors

    def take_anchors(self, anchors: Iterable[Anchor]) -> None:
        """In the order of their numbers."""
        for anchor in anchors:
            self._anchor(anchor)

    def _anchor(self, anchor: Anchor) -> None:
        said, where = anchor.said, f"anchor {anchor.n}"
        made = hashlib.sha256(anchor.body.encode()).digest()
        self.anchors += 1
        if anchor.n > self._anchor_n + 1:
            if self._anchor_n > 0:
                self._missing_anchors(anchor.n)
            else:
                self._first, self._anchor_hash = (anchor.n, str(said.get("prev"))), None
        elif anchor.n <= self._anchor_n:
            self._fault("inserted", where, "an anchor of this number stands here already")
        expected, self._anchor_n = self._anchor_hash, anchor.n
        self._anchor_hash = anchor.hash
        if said.get("n") != anchor.n or said.get("project") != str(self.project_id):
            self._fault("misplaced", where, "it was made for another place")
            return
        if made != anchor.hash:
            self._fault("changed", where, "its text does not have its hash")
            return
        key = self.keys.get(anchor.kid)
        if key is None:
            self._fault("unknown_key", where, f"nobody vouches for the key {anchor.kid}")
            return
        if not signed(key, anchor.hash, anchor.signature, anchor=True):
            self._fault("not_signed", where, "the signature is not that of its key")
            return
        if expected is not None and said.get("prev") != expected.hex():
            self._fault("inserted", where, "it does not follow the anchor before it")
        self.newest_anchor, self.anchored_at = (anchor.n, anchor.hash.hex()), said["at"]
        for writer, (n, hash_) in said["heads"].items():
            self._bound.setdefault(writer, {})[n] = hash_
            if said["kind"] == DROPPED:
                self._begun[writer] = (n, hash_)
        self.projects |= {p: (n, h) for p, (n, h) in said.get("projects", {}).items()}
        if said["kind"] == DROPPED:
            self.dropped_at = said["at"]
            if said.get("before"):
                self._gone = (said["before"][0], said["before"][1])

    def _missing_anchors(self, until: int) -> None:
        self._fault(
            "missing", f"anchor {self._anchor_n + 1}", f"anchors {self._anchor_n + 1} to {until - 1} are gone"
        )
        self._anchor_hash = None

    @property
    def dropped(self) -> int:
        """So many entries from before were dropped for their age, as signed anchors say: those of each chain up to a number."""
        return sum(n for n, _ in self._begun.values())

    # ------------------------------------------------------------------------------------------------ entries

    def take_entries(self, entries: Iterable[Entry]) -> None:
        """Chain by chain, each in the order of its numbers; all anchors were taken before."""
        for entry in entries:
            self._entry(entry)

    def _entry(self, entry: Entry) -> None:
        self.entries += 1
        writer = str(entry.writer)
        chain = self._at.get(writer)
        if chain is None:
            chain = self._at[writer] = self._beginning(writer, entry)
        where = f"entry {entry.n} of {writer}"
        if entry.n > chain.n + 1:
            first, last = chain.n + 1, entry.n - 1
            gone = f"entry {first}" if first == last else f"entries {first} to {last}"
            self._fault(
                "missing",
                f"entry {first} of {writer}",
                f"{gone} of this writer are gone; {_id(entry)} comes after",
            )
            chain.hash = None
        elif entry.n <= chain.n:
            self._fault("inserted", where, "an entry of this number stands here already", entry)
            return
        expected = chain.hash
        chain.n, chain.hash = entry.n, entry.hash
        bound = self._bound.get(writer, {}).get(entry.n)
        if self._is_false(entry, where, expected, bound):
            return
        if entry.action == ERASED and entry.details is not None:
            named = json.loads(entry.details)["summary"].get("entries", [])
            self._allowed |= {(str(w), int(n)) for w, n in named}

    def _is_false(self, entry: Entry, where: str, expected: bytes | None, bound: str | None) -> bool:
        if entry.project_id != self.project_id:
            self._fault("misplaced", where, "it belongs to another project", entry)
            return True
        if hash_of(entry) != entry.hash:
            self._fault("changed", where, "a field of it is not what it was", entry)
            return True
        key = self.keys.get(entry.kid)
        if key is None:
            self._fault("unknown_key", where, f"nobody vouches for the key {entry.kid}", entry)
            return True
        if not signed(key, entry.hash, entry.signature):
            self._fault("not_signed", where, "it was made or made anew by somebody without the key", entry)
            return True
        if expected is not None and entry.prev != expected:
            self._fault("inserted", where, "it does not follow the entry before it", entry)
        if bound is not None and bound != entry.hash.hex():
            self._fault("changed", where, "an anchor binds another entry in this place", entry)
        if entry.details is None or entry.salt is None:
            self.erased += 1
            self._bare[str(entry.writer), entry.n] = _id(entry)
        elif digest_of(entry.details, entry.salt) != entry.digest:
            self._fault("changed", where, "its address or its summary is not what it was", entry)
            return True
        return False

    def _beginning(self, writer: str, entry: Entry) -> _Chain:
        n, hash_ = self._begun.get(writer, (0, NOTHING.hex()))
        if not self.whole and entry.n > n:
            return _Chain(entry.n - 1, None)
        return _Chain(n, bytes.fromhex(hash_))

    # ---------------------------------------------------------------------------------------------------- end

    def finish(self, witness: tuple[int, str] | None = None, *, witnessed: bool = True) -> list[Fault]:
        """`witness`: number and hash of an anchor that was seen before; `witnessed`: whether it is still there."""
        if self._first is not None and (self._first[0] - 1, self._first[1]) != self._gone:
            gone = f"anchors 1 to {self._first[0] - 1} are gone, and no anchor says that they were dropped"
            self._fault("missing", "anchor 1", gone)
        if self.whole:
            for writer, bound in self._bound.items():
                self._check_end(writer, bound)
        for writer, chain in self._at.items():
            newest = max(self._bound.get(writer, {0: ""}))
            self.unanchored += max(0, chain.n - newest)
        if self.whole:
            for (writer, n), entry in self._bare.items():
                if (writer, n) not in self._allowed:
                    gone = "its address and summary are gone, and no entry says that they were erased"
                    self._fault("erased", f"entry {n} of {writer}", gone, id_=entry)
        if witness is not None and not witnessed and self._gone[0] < witness[0]:
            self._fault(
                "missing",
                f"anchor {witness[0]}",
                "this anchor was seen here before, and is gone: the log was set back",
            )
        return self.faults

    def _check_end(self, writer: str, bound: Mapping[int, str]) -> None:
        newest, begun = max(bound), self._begun.get(writer, (0, ""))[0]
        at = self._at.get(writer)
        have = at.n if at is not None else begun
        if newest > have:
            gone = f"entry {newest}" if newest == have + 1 else f"entries {have + 1} to {newest}"
            self._fault(
                "missing",
                f"entry {have + 1} of {writer}",
                f"{gone} of this writer are gone: an anchor binds them",
            )

    def _fault(
        self, what: str, where: str, detail: str, entry: Entry | None = None, *, id_: str | None = None
    ) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(what, where, detail, _id(entry) if entry is not None else id_))


def _id(entry: Entry) -> str:
    return ids.encode(ids.AUDIT, entry.id)
