// Announcements, checked as docs/market.md says under "Checking", with what docs/protocol.md says in its sections 3 to 5, 15 and 18.
import { isIPv4, isIPv6 } from "node:net";
import { taggedHash, verify } from "./bip340.mjs";

const day = 86_400_000;
const ahead = 300_000; // ms that a document may be dated ahead
const week = 7 * day;

// Refusal is why an announcement is not taken: a reason of docs/market.md and a sentence.
export class Refusal extends Error {
  constructor(reason, detail) {
    super(`${reason}: ${detail}`);
    this.reason = reason;
  }
}

const refuse = (reason, detail) => { throw new Refusal(reason, detail); };

// canonical writes a value as section 3 wants it; undefined if the profile has no room for it.
export function canonical(value, depth = 1) {
  switch (typeof value) {
    case "string": // JavaScript escapes as RFC 8785 does, but for lone surrogates, which are no Unicode
      return /\p{Surrogate}/u.test(value) ? undefined : JSON.stringify(value);
    case "boolean":
      return String(value);
    case "number":
      return Number.isSafeInteger(value) && !Object.is(value, -0) ? String(value) : undefined;
  }
  if (value === null || typeof value !== "object" || depth > 16) return undefined;
  const parts = [];
  if (Array.isArray(value)) {
    for (const v of value) {
      const text = canonical(v, depth + 1);
      if (text === undefined) return undefined;
      parts.push(text);
    }
    return `[${parts.join(",")}]`;
  }
  for (const name of Object.keys(value).sort()) { // by UTF-16 code units, as JavaScript compares
    const head = canonical(name), text = canonical(value[name], depth + 1);
    if (head === undefined || text === undefined) return undefined;
    parts.push(`${head}:${text}`);
  }
  return `{${parts.join(",")}}`;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const hex = (digits) => new RegExp(`^[0-9a-f]{${digits}}$`);
const has = (object, ...names) => Object.keys(object).length === names.length && names.every((name) => Object.hasOwn(object, name));
const isObject = (v) => v !== null && typeof v === "object" && !Array.isArray(v);
const isInteger = (v, most = Number.MAX_SAFE_INTEGER) => Number.isSafeInteger(v) && v >= 0 && v <= most;

// open reads an envelope. A name that comes twice is not in the canonical form of what was parsed, so it is found, too.
export function open(data) {
  let text, value;
  try {
    text = utf8.decode(data);
    value = JSON.parse(text);
  } catch {
    refuse("malformed", "it is no JSON");
  }
  if (canonical(value) !== text) refuse("malformed", "its form is not the canonical one");
  const { msg, sig } = isObject(value) ? value : {};
  if (!isObject(msg) || !has(value, "msg", "sig") || !has(msg, "from", "request", "timestamp", "to") || !isObject(msg.request) ||
    typeof sig !== "string" || !hex(128).test(sig) || typeof msg.from !== "string" || !hex(64).test(msg.from) ||
    typeof msg.to !== "string" || !hex(64).test(msg.to) || !isInteger(msg.timestamp) || typeof msg.request.type !== "string") {
    refuse("malformed", "it is no envelope");
  }
  return { ...msg, sig, bytes: Buffer.from(data), signed: canonical(msg) };
}

// hash names an envelope.
export const hash = (data) => taggedHash("relaymarket/v1/leaf", data).toString("hex");

// zeroBits is how many zero bits a hash begins with.
function zeroBits(bytes) {
  let count = 0;
  for (const byte of bytes) {
    if (byte !== 0) return count + Math.clz32(byte) - 24;
    count += 8;
  }
  return count;
}

// work is the subject of the proof, and how many bits the nonce proves.
export function work(envelope) {
  const { pow, ...rest } = envelope.request;
  const { from, timestamp, to } = envelope;
  const subject = taggedHash("relaymarket/v1/announcement", canonical({ from, request: rest, timestamp, to }));
  const proof = pow ? taggedHash("relaymarket/v1/announcement", subject, Buffer.from(String(pow.nonce), "hex")) : undefined;
  return { subject, proof, proved: proof ? zeroBits(proof) : 0 };
}

// checkWork checks that at least so many bits are claimed, and true.
export function checkWork(envelope, asked) {
  const { pow } = envelope.request;
  if (pow === undefined) refuse("no_work", "it has no proof of work");
  if (!isObject(pow) || !has(pow, "bits", "nonce") || !isInteger(pow.bits, 256) || typeof pow.nonce !== "string" || !hex(16).test(pow.nonce)) {
    refuse("no_work", "its pow is none");
  }
  if (pow.bits < asked) refuse("little", `it claims ${pow.bits} bits, ${asked} are asked for`);
  if (work(envelope).proved < pow.bits) refuse("no_work", `its nonce does not prove ${pow.bits} bits`);
}

const networks = ["mainnet", "testnet4", "signet", "regtest"];
const limits = ["recordBytes", "admittedBytes", "batchBytes", "batchRecords", "pageBytes", "pageRecords", "lifetimeMs", "maxPulls",
  "headerSeconds", "bodySeconds"];
const prices = ["storageMsatPerGBDay", "bandwidthMsatPerGB", "openingPriceSat", "creditLimitSat", "minPrepaySat", "bondPercent"];
const allSatoshi = 21e14;

// hostOf is the host of an address, or undefined if it is no address of section 15.
export function hostOf(address) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return undefined;
  }
  // The URL standard writes host and port as section 15 wants them, so that only the slash of the empty path is new; and an IPv4 address
  // within an IPv6 one, which RFC 5952 has in dotted decimal.
  const dotted = url.href.replace(/\[::ffff:([0-9a-f]+):([0-9a-f]+)\]/, (_, high, low) => {
    const [h, l] = [parseInt(high, 16), parseInt(low, 16)];
    return `[::ffff:${h >> 8}.${h & 255}.${l >> 8}.${l & 255}]`;
  });
  if (typeof address !== "string" || address.length > 255 || dotted !== address + "/" || url.username !== "" || url.password !== "") return undefined;
  const host = url.hostname.replace(/^\[|\]$/g, "");
  if (isIPv4(host) || isIPv6(host)) return allowed(url, host);
  const labels = host.split(".");
  const fine = host.length <= 253 && labels.every((l) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(l)) && !/^(\d+|0x[0-9a-f]*)$/.test(labels.at(-1));
  return fine ? allowed(url, host) : undefined;
}

const loopback = (host) => host === "localhost" || host.startsWith("127.") && isIPv4(host) || host === "::1" || /^::ffff:7f/.test(host);

function allowed(url, host) {
  if (url.port === "0") return undefined;
  if (url.protocol === "https:") return host;
  return url.protocol === "http:" && (loopback(host) || host.endsWith(".onion")) ? host : undefined;
}

// isPrivate tells whether nobody else can reach a host.
export function isPrivate(host) {
  if (loopback(host) || host.endsWith(".localhost")) return true;
  if (isIPv4(host)) {
    const [a, b] = host.split(".").map(Number);
    return a === 0 || a === 10 || a >= 224 && a < 240 || a === 255 || a === 169 && b === 254 || a === 172 && b >= 16 && b < 32 || a === 192 && b === 168;
  }
  return isIPv6(host) && /^(::$|f[cd]|fe[89ab]|ff)/.test(host);
}

const isText = (v, most) => typeof v === "string" && [...v].length <= most;
const absentOr = (v, is) => v === undefined || is(v);

// areTerms tells whether one alternative of `terms` is one. Members and types that are not known are no fault.
function areTerms(t) {
  return isObject(t) && typeof t.type === "string" && t.type !== "" && typeof t.payment === "boolean" && absentOr(t.contact, (v) => isText(v, 200)) &&
    absentOr(t.topic, (v) => v === "*" || typeof v === "string" && /^[A-Za-z0-9_-]{1,32}$/.test(v)) &&
    [t.plaintext, t.ads].every((v) => absentOr(v, (flag) => typeof flag === "boolean")) &&
    [t.storedBytes, t.movedBytes, t.days].every((v) => absentOr(v, (n) => isInteger(n)));
}

// checkShape checks the members that section 15 names; others are ignored.
function checkShape(r) {
  const invalid = (detail) => refuse("invalid", detail);
  if (!isObject(r.limits) || !limits.every((name) => isInteger(r.limits[name]))) invalid("limits");
  if (!Array.isArray(r.addresses) || r.addresses.length > 16) invalid("addresses");
  if (r.addresses.some((a) => hostOf(a) === undefined)) invalid("an address is none");
  if (!Array.isArray(r.terms) || r.terms.length > 16) invalid("terms");
  if (!r.terms.every(areTerms)) invalid("terms");
  if (r.notice !== undefined && !isText(r.notice, 200)) invalid("notice");
  if (!isInteger(r.seq) || !isInteger(r.validUntil)) invalid("seq or validUntil");
  if (r.network !== undefined && !networks.includes(r.network)) invalid("network");
  const named = prices.filter((name) => r[name] !== undefined);
  if (named.length !== 0 && (named.length !== prices.length || r.network === undefined)) invalid("prices stand together, with a network");
  if (named.length !== 0) {
    if (!isInteger(r.storageMsatPerGBDay) || !isInteger(r.bandwidthMsatPerGB) || !isInteger(r.bondPercent, 100)) invalid("a price");
    for (const name of ["openingPriceSat", "creditLimitSat", "minPrepaySat"]) if (!isInteger(r[name], allSatoshi)) invalid(name);
  }
  if (r.hubs !== undefined && (!Array.isArray(r.hubs) || r.hubs.length > 8 || !r.hubs.every(isHub))) invalid("hubs");
}

// checkMarket checks what a market asks beyond that.
function checkMarket({ request: r, timestamp }, { network, now }) {
  const hosts = r.addresses.map(hostOf);
  if (r.network !== network) refuse("network", `it is for ${r.network}`);
  if (r.validUntil < now) refuse("expired", `it was valid until ${new Date(r.validUntil).toISOString()}`);
  if (r.validUntil > timestamp + week) refuse("future", "it is valid for more than seven days");
  if (hosts.length === 0) refuse("address", "it names none");
  if (network !== "regtest" && hosts.some(isPrivate)) refuse("address", "one is reached from its own machine or network only");
}

function isHub(hub) {
  const server = /^(nats|tls):\/\/(.*):([1-9][0-9]{0,4})$/.exec(hub);
  return server ? Number(server[3]) <= 65535 && hostOf(`https://${server[2]}`) !== undefined : hostOf(hub) !== undefined;
}

// outline checks what needs no hash: size, form, type, audience, date.
function outline(data, now) {
  if (data.length > 4096) refuse("size", `it has ${data.length} bytes`);
  const e = open(data);
  if (e.request.type !== "serverBroadcast") refuse("type", e.request.type);
  if (e.from !== e.to) refuse("audience", "it is not addressed to its own signer");
  if (e.timestamp > now + ahead) refuse("future", "it is dated ahead");
  return e;
}

function checkSignature(e) {
  if (!verify(Buffer.from(e.from, "hex"), taggedHash("relaymarket/v1/envelope", e.signed), Buffer.from(e.sig, "hex"))) {
    refuse("signature", "it is not signed by the relay");
  }
}

// read is an announcement that a relay serves itself, at /.well-known/relaymarket: nobody asks it for work.
export function read(data, now) {
  const e = outline(data, now);
  checkShape(e.request);
  if (e.request.validUntil < now) refuse("expired", "it is not valid any more");
  checkSignature(e);
  return e;
}

// check is an announcement that may be believed in a market, or throws a Refusal. rules are {network, bits, now}; known is what is remembered
// of a relay: (key) => {seq, hash} or undefined; subject, if there is one, is where it was found.
export function check(data, rules, known = () => undefined, subject = undefined) {
  const e = outline(data, rules.now);
  if (e.timestamp + week < rules.now) refuse("expired", "it is more than seven days old");
  if (subject !== undefined && subject !== `relaymarket.v1.${rules.network}.announce.${e.from}`) refuse("subject", "it is another relay's");
  const before = known(e.from), name = hash(e.bytes);
  if (before?.hash === name) refuse("duplicate", "it is known");
  checkWork(e, rules.bits);
  checkShape(e.request);
  checkMarket(e, rules);
  if (before && (before.seq > e.request.seq || before.seq === e.request.seq && before.hash < name)) refuse("old", `seq ${before.seq} is known`);
  checkSignature(e);
  return { relay: e.from, hash: name, seq: e.request.seq, announcement: e.request, timestamp: e.timestamp };
}
