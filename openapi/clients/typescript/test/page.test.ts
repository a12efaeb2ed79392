/** What the page says about where it runs, and where it looks for a ticket. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { microphoneTrouble, ticketIn, trouble } from "../page/trouble.js";
import { noticeText } from "../page/view.js";
import { readTicket } from "../src/ticket.js";
import { ticket } from "./fakes.js";

const grants = (url: string) => [{ epoch: 1, region: "r", url }];

test("a microphone needs a secure context, and an https page needs wss", () => {
  assert.match(trouble({ secure: false, https: false }, []) ?? "", /localhost/);
  assert.equal(trouble({ secure: true, https: false }, grants("ws://127.0.0.1:1")), null);
  assert.match(trouble({ secure: true, https: true }, grants("ws://edge.example:1")) ?? "", /wss:/);
  for (const url of ["wss://edge.example", "ws://127.0.0.1:1", "ws://localhost:1", "ws://[::1]:1"]) {
    assert.equal(trouble({ secure: true, https: true }, grants(url)), null, url);
  }
  assert.match(microphoneTrouble(new DOMException("", "NotAllowedError")) ?? "", /allow it/);
  assert.equal(microphoneTrouble(new Error("x")), null);
});

test("the ticket comes from the fragment", () => {
  assert.equal(ticketIn("#ticket=a.b-_.c"), "a.b-_.c");
  assert.equal(ticketIn(""), null);
});

test("notices in words", () => {
  assert.equal(noticeText("transcript.final", { role: "caller", text: "hello" }), "You: hello");
  assert.match(noticeText("call.reconnecting", { reason: "agent_lost" }) ?? "", /away/);
  assert.equal(noticeText("unheard.of", null), null);
});

test("what is no ticket is refused, whatever it is", () => {
  assert.equal(readTicket(ticket({ 2: "ws://b:1", 1: "wss://a" })).grants[0]?.epoch, 1);
  const bad = (claims: unknown) => `a.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c`;
  const grant = { e: 1, region: "r", url: "ws://a:1" };
  for (const text of [
    "", "a", "a.b.c", "a.!.c", bad(null), bad([]), bad({ sub: "c", g: [] }), bad({ sub: 1, g: [grant] }), bad({ sub: "c", g: "x" }),
    bad({ sub: "c", g: [{ ...grant, url: "ftp://a" }] }), bad({ sub: "c", g: [{ ...grant, url: "ws://a/path" }] }),
    bad({ sub: "c", g: [{ ...grant, url: "ws://user@a" }] }), bad({ sub: "c", g: [{ ...grant, e: "1" }] }), "x".repeat(17_000),
  ]) assert.throws(() => readTicket(text), { code: "not_a_ticket" }, text.slice(0, 80));
});
