// vectors holds this client against the test vectors of the protocol, from the folder that is named:
//
//   node vectors.mjs ../../protocol/testdata/vectors
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { canonical, checkWork, hostOf, open, read, Refusal, work } from "./announcement.mjs";
import { verify } from "./bip340.mjs";
import { acknowledgement, pull, query } from "./pulls.mjs";

const folder = process.argv[2];
const bytes = (digits) => Buffer.from(digits, "hex");
const inputOf = (c) => (c.inputHex === undefined ? Buffer.from(c.input, "utf8") : bytes(c.inputHex));

// accepted tells whether something is not refused. Anything but a refusal is a fault of this program.
function accepted(what) {
  try {
    return what() !== false;
  } catch (err) {
    if (err instanceof Refusal || err instanceof SyntaxError || err instanceof TypeError && err.code === "ERR_ENCODING_INVALID_ENCODED_DATA") return false;
    throw err;
  }
}

// same tells whether everything that was read is what the case says.
function same(c, values) {
  for (const [name, value] of Object.entries(values)) if (c[name] !== value) throw new Error(`${c.name}: ${name} is ${value}`);
  return true;
}

const judges = {
  bip340: (c) => verify(bytes(c.public), bytes(c.digest), bytes(c.signature)),
  canonical: (c) => accepted(() => {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(inputOf(c));
    return canonical(JSON.parse(text)) === text;
  }),
  addresses: (c) => hostOf(c.input) !== undefined,
  announcements: (c) => accepted(() => read(inputOf(c), c.now)),
  work: (c) => accepted(() => {
    const e = open(Buffer.from(c.envelope));
    const { subject, proof } = work(e);
    if (c.valid && (subject.toString("hex") !== c.subject || proof.toString("hex") !== c.work)) throw new Error(`${c.name}: another subject, or work`);
    checkWork(e, c.bits);
  }),
  queries: (c) => accepted(() => same(c, { hash: query(c.query) })),
  pulls: (c) => accepted(() => same(c, pull(inputOf(c)))),
  acknowledgements: (c) => accepted(() => same(c, acknowledgement(Buffer.from(c.envelope)))),
};

let wrong = 0;
for (const [name, judge] of Object.entries(judges)) {
  const { cases } = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
  for (const c of cases) {
    if (judge(c) !== c.valid) {
      wrong++;
      console.log(JSON.stringify({ vectors: name, case: c.name, expected: c.valid }));
    }
  }
  console.log(JSON.stringify({ vectors: name, cases: cases.length }));
}
process.exitCode = wrong === 0 ? 0 : 1;
