// market prints the book of a hub, each announcement checked, one JSON document a line; what is refused is told with its reason.
//
//   node market.mjs --network regtest --bits 8 nats://127.0.0.1:4222            the book
//   node market.mjs --network regtest --bits 8 --changes 1 nats://…             and then one change, as it comes
//   node market.mjs --network regtest --bits 8 http://127.0.0.1:7447            the same over HTTP, GET /market
//   node market.mjs --network regtest --rights nats://…                         what the hub's server lets a stranger do
import { parseArgs } from "node:util";
import { canonical, check, Refusal } from "./announcement.mjs";
import { book, connect, refused, subscribe } from "./hub.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { network: { type: "string", default: "mainnet" }, bits: { type: "string" }, changes: { type: "string", default: "0" }, rights: { type: "boolean" } },
});
const { network } = values;
const usual = { mainnet: 24, testnet4: 20, signet: 20, regtest: 8 };
const bits = Number(values.bits ?? usual[network]);
const say = (line) => console.log(JSON.stringify(line));
const known = new Map();

// take judges one announcement and remembers the winner.
function take(data, subject) {
  try {
    const offer = check(data, { network, bits, now: Date.now() }, (relay) => known.get(relay), subject);
    known.set(offer.relay, offer);
    const a = offer.announcement;
    say({ taken: true, relay: offer.relay, seq: offer.seq, address: a.addresses[0], storageMsatPerGBDay: a.storageMsatPerGBDay ?? null,
      bits: a.pow.bits, validUntil: new Date(a.validUntil).toISOString(), hash: offer.hash });
    return true;
  } catch (err) {
    if (!(err instanceof Refusal)) throw err;
    say({ taken: false, reason: err.reason, detail: err.message, subject: subject ?? null });
    return false;
  }
}

async function overHTTP(hub) {
  let count = 0;
  for (let after = "", more = true; more;) {
    const reply = await fetch(`${hub}/market${after && "?after=" + after}`);
    if (!reply.ok) throw new Error(`the hub answers ${reply.status}: ${await reply.text()}`);
    const got = await reply.json();
    for (const envelope of got.announcements) take(Buffer.from(canonical(envelope)));
    count += got.announcements.length;
    [after, more] = [got.cursor, got.more];
  }
  return count;
}

async function overNATS(server, changes) {
  const nc = await connect({ servers: server, name: "relaymarket node client" });
  let left = changes, reading = true;
  const early = [];
  let done;
  const heard = new Promise((resolve) => { done = resolve; });
  const hear = (data, subject) => {
    if (reading) return early.push([data, subject]);
    if (take(data, subject) && --left <= 0) done();
  };
  await subscribe(nc, network, hear);
  const count = await book(nc, network, take);
  reading = false;
  say({ book: count, relays: known.size });
  for (const [data, subject] of early) hear(data, subject);
  if (left > 0) await heard;
  await nc.close();
}

async function rights(server) {
  const announce = `relaymarket.v1.${network}.announce.${"0".repeat(64)}`;
  const publish = [announce, "$JS.API.INFO", `$JS.API.STREAM.INFO.relaymarket-v1-${network}`, `$JS.API.STREAM.PURGE.relaymarket-v1-${network}`,
    `$JS.API.CONSUMER.CREATE.relaymarket-v1-${network}`, "$SYS.REQ.SERVER.PING"];
  for (const subject of publish) {
    say({ publish: subject, refused: await refused(server, (nc) => nc.publish(subject, "{}")) });
  }
  for (const subject of [">", "$JS.>", "$SYS.>"]) {
    say({ subscribe: subject, refused: await refused(server, (nc, callback) => { nc.subscribe(subject, { callback }); }) });
  }
}

const [hub] = positionals;
if (values.rights) await rights(hub);
else if (/^https?:/.test(hub)) say({ book: await overHTTP(hub), relays: known.size });
else await overNATS(hub, Number(values.changes));
