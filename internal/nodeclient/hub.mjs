// The book of a hub over NATS, read as docs/market.md says under "Subjects": all of it in pages, then what changes.
import { connect, createInbox } from "@nats-io/transport-node";

export { connect };

const patience = 20_000; // ms, for a page

// subscribe begins to hear of changes; take gets (bytes, subject). It has to come before the book is read, so that nothing falls between.
export async function subscribe(nc, network, take) {
  const sub = nc.subscribe(`relaymarket.v1.${network}.announce.*`, {
    callback: (err, m) => { if (!err) take(m.data, m.subject); },
  });
  await nc.flush();
  return sub;
}

// page gets announcements from a place on: {messages: [{data, subject}], next, more}.
async function page(nc, network, from) {
  const inbox = createInbox();
  const got = { messages: [], next: from, more: false };
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => end(new Error("the page does not arrive")), patience);
    const sub = nc.subscribe(inbox, { callback: (err, m) => (err ? end(err) : part(m)) });
    const end = (err) => { clearTimeout(timer); sub.unsubscribe(); err ? reject(err) : resolve(); };
    const part = (m) => {
      switch (m.headers?.code ?? 0) {
        case 0: {
          const place = Number(m.headers?.get("Nats-Sequence"));
          if (!Number.isSafeInteger(place) || place < got.next) return end(new Error("the page's places do not ascend"));
          got.messages.push({ data: m.data, subject: m.headers.get("Nats-Subject") });
          got.next = place + 1;
          return;
        }
        case 204:
          got.more = Number(m.headers.get("Nats-Num-Pending")) > 0;
          return end();
        case 404:
          return end();
        default:
          return end(new Error(`the hub answers ${m.headers.code} ${m.headers.description}`));
      }
    };
    nc.publish(`$JS.API.DIRECT.GET.relaymarket-v1-${network}`, JSON.stringify({ seq: from, batch: 1000, max_bytes: 1 << 20 }), { reply: inbox });
  });
  return got;
}

// book hands on every announcement of a hub's book, unchecked, and returns how many there were.
export async function book(nc, network, take) {
  let count = 0;
  for (let from = 1, more = true; more;) {
    const got = await page(nc, network, from);
    for (const m of got.messages) take(m.data, m.subject);
    count += got.messages.length;
    more = got.more && got.next > from;
    from = got.next;
  }
  return count;
}

// refused tries what a stranger may not do, and resolves to the server's words; null if he may.
export function refused(server, what) {
  return new Promise((resolve, reject) => {
    connect({ servers: server, reconnect: false }).then(async (nc) => {
      let said = null;
      const watch = (async () => { for await (const s of nc.status()) if (s.error) said = String(s.error.message ?? s.error); })();
      try {
        await what(nc, (err) => { if (err) said = err.message; });
        await nc.flush();
        await new Promise((r) => setTimeout(r, 0));
      } catch (err) {
        said ??= err.message;
      }
      await nc.close();
      await watch;
      resolve(said);
    }, reject);
  });
}
