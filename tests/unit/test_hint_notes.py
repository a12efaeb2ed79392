"""A wake that says all there is to know wakes whom it is news to, and nobody twice."""

from __future__ import annotations

from app.hints import Hints

TOPIC = "feed:p"


async def woken(hints: Hints, line: str) -> bool:
    subscription = hints.subscribe(TOPIC)
    hints._heard(line)
    woken = await subscription.wait(0.0)
    subscription.close()
    return woken


async def test_a_note_wakes_where_it_is_news_and_a_plain_wake_always() -> None:
    hints, heard = Hints({}), list[str]()

    def news(note: str) -> bool:
        heard.append(note)
        return heard.count(note) == 1

    hints.listen("feed", news)
    assert await woken(hints, f"{TOPIC} abc=")
    assert not await woken(hints, f"{TOPIC} abc="), "over another Valkey, or its own"
    assert await woken(hints, TOPIC)
    assert await woken(hints, TOPIC)
    assert heard == ["abc=", "abc="]


async def test_nobody_reads_notes_for_topics_that_nobody_here_waits_for() -> None:
    hints, heard = Hints({}), list[str]()
    hints.listen("feed", lambda note: not heard.append(note))  # type: ignore[func-returns-value]
    hints._heard("feed:other abc=")
    assert heard == []


async def test_a_note_that_nobody_listens_to_wakes_as_without_one() -> None:
    assert await woken(Hints({}), f"{TOPIC} abc=")


async def test_however_many_notes_wait_a_topic_has_room() -> None:
    hints = Hints({"us-east": "redis://127.0.0.1:9"})
    for i in range(5_000):
        hints.wake(TOPIC, f"{i}=")
    hints.wake("keys")
    waiting = hints._waiting["us-east"]
    assert "keys" in waiting
    assert TOPIC in waiting, "what has no room for its note wakes without"
    assert len(waiting) < 1_000
