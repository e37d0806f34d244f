// Pulls and what acknowledges a page, as docs/protocol.md says in its section 7.
import { taggedHash, verify } from "./bip340.mjs";
import { canonical, open, Refusal } from "./announcement.mjs";

const refuse = (detail) => { throw new Refusal("malformed", detail); };
const isHex = (v, digits) => typeof v === "string" && v.length === digits && /^[0-9a-f]*$/.test(v);
const isName = (v) => typeof v === "string" && /^[A-Za-z0-9_-]{1,64}$/.test(v);
const isObject = (v) => v !== null && typeof v === "object" && !Array.isArray(v);

// has tells whether an object has these members, perhaps the optional ones, and no others.
const has = (object, names, optional = []) => names.every((n) => Object.hasOwn(object, n)) &&
  Object.keys(object).every((n) => names.includes(n) || optional.includes(n));

const isPage = (v) => isObject(v) && has(v, ["pageId", "root"]) && isName(v.pageId) && isHex(v.root, 64);
const isPull = (r) => has(r, ["query", "type"], ["got"]) && isHex(r.query, 64) && (!Object.hasOwn(r, "got") || isPage(r.got));

// isTrue tells whether an envelope is signed by whom it says.
const isTrue = (e) => verify(Buffer.from(e.from, "hex"), taggedHash("relaymarket/v1/envelope", e.signed), Buffer.from(e.sig, "hex"));

function isQuery(q) {
  return isObject(q) && has(q, ["limit", "pageId", "salt", "senders"], ["after"]) && Number.isSafeInteger(q.limit) && q.limit >= 1 && q.limit <= 1000 &&
    isName(q.pageId) && isHex(q.salt, 32) && Array.isArray(q.senders) && q.senders.length >= 1 && q.senders.length <= 1000 &&
    q.senders.every((k) => isHex(k, 64)) && new Set(q.senders).size === q.senders.length &&
    (!Object.hasOwn(q, "after") || typeof q.after === "string" && /^[!-~]{1,64}$/.test(q.after));
}

// query reads the second line of a pull, and gives its hash.
export function query(line) {
  const q = JSON.parse(line);
  if (canonical(q) !== line || !isQuery(q)) refuse("it is no query");
  return taggedHash("relaymarket/v1/query", line).toString("hex");
}

// pull reads the body of one.
export function pull(body) {
  const lines = body.toString("utf8").split("\n");
  if (lines.length !== 3 || lines[2] !== "") refuse("it is not two lines");
  const e = open(Buffer.from(lines[0]));
  if (e.request.type !== "pull" || !isPull(e.request)) refuse("it is no pull");
  if (query(lines[1]) !== e.request.query) refuse("another query was signed");
  if (!isTrue(e)) refuse("the signature is false");
  return { from: e.from, query: lines[1], hash: e.request.query, ...e.request.got };
}

// acknowledgement reads what shows that a reader has a page.
export function acknowledgement(data) {
  const e = open(data);
  const { type, ...alone } = e.request;
  const page = type === "pull" && isPull(e.request) ? e.request.got : type === "got" ? alone : undefined;
  if (!isPage(page)) refuse("it acknowledges nothing");
  if (!isTrue(e)) refuse("the signature is false");
  return { reader: e.from, relay: e.to, ...page };
}
