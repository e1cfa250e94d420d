// The walk from another language, with a stock NATS client and msgpack (or JSON) and nothing of ours:
//
//     node walk.mjs CLIENT_JSON HOST CONTAINER msgpack|json
//
// makes a network and an endpoint, attaches it to CONTAINER, follows the events, and removes everything again.
// Each step is a line on stdout; status 0 when every step was as it should be.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { decode, encode } from "@msgpack/msgpack";
import { connect, headers, nkeyAuthenticator } from "@nats-io/transport-node";

const [clientFile, host, container, format] = process.argv.slice(2);
const TENANT = "default";
const NETWORK = `node-${format}`;
const NAME = `node1-${format}`;
const ANSWER_WITHIN_MS = 10_000;
const CONTENT_TYPE = `application/${format}`;

const write = (value) => (format === "json" ? new TextEncoder().encode(JSON.stringify(value)) : encode(value));
const read = (message) =>
  message.headers?.get("Content-Type") === "application/json" ? message.json() : decode(message.data);

function say(step, facts) {
  console.log(`${step} ${JSON.stringify(facts)}`);
}

function expect(isTrue, what, found) {
  if (!isTrue) throw new Error(`expected ${what}, found ${JSON.stringify(found)}`);
}

const { url, nkey_seed_file } = JSON.parse(readFileSync(clientFile, "utf8"));
const seed = new TextEncoder().encode(readFileSync(nkey_seed_file, "utf8").trim());
const connection = await connect({ servers: url, authenticator: nkeyAuthenticator(seed), name: "walk.mjs" });

async function ask(construct, verb, fields) {
  const head = headers();
  head.set("Content-Type", CONTENT_TYPE);
  head.set("Np-Command-Id", randomUUID());
  const subject = `np.v1.cmd.${TENANT}.${construct}.${verb}`;
  const answer = await connection.request(subject, write(fields), { timeout: ANSWER_WITHIN_MS, headers: head });
  expect(answer.headers?.get("Content-Type") === CONTENT_TYPE, `an answer in ${CONTENT_TYPE}`, answer.headers);
  const reply = read(answer);
  say(`${construct}.${verb}`, { type: reply.type, seq: reply.seq, code: reply.code, detail: reply.detail });
  return reply;
}

// Events as they come; whoever waits for one gets the first that fits, of those that came before too.
const events = [];
const waiting = [];
const subscription = connection.subscribe(`np.v1.evt.${TENANT}.>`);
const following = (async () => {
  for await (const message of subscription) {
    const event = { ...decode(message.data), subject: message.subject };
    events.push(event);
    for (const each of waiting.splice(0)) each();
  }
})();
await connection.flush();

async function event(type, fits) {
  const until = AbortSignal.timeout(ANSWER_WITHIN_MS);
  for (;;) {
    const found = events.find((each) => each.type === type && fits(each));
    if (found) {
      say("event", { type, subject: found.subject });
      return found;
    }
    await new Promise((resolve, reject) => {
      waiting.push(resolve);
      until.addEventListener("abort", () => reject(new Error(`no event ${type} came`)), { once: true });
    });
  }
}

const network = await ask("network", "create", { network: NETWORK });
expect(network.type === "accepted" && network.object.status.tag > 0, "a network with a tag", network);
const again = await ask("network", "create", { network: NETWORK });
expect(again.type === "accepted" && again.is_changed === false, "the same once more to change nothing", again);
await event("network-created", (each) => each.network === NETWORK);

const endpoint = await ask("endpoint", "create", { network: NETWORK, name: NAME });
expect(endpoint.object?.status.addresses.length === 1, "an endpoint with an address", endpoint);
const id = endpoint.object.id;

const attached = await ask("endpoint", "attach", { name: NAME, network: NETWORK, container, host });
expect(attached.type === "accepted", "attach to be accepted", attached);
const bound = await event("port-bound", (each) => each.endpoint === id && each.epoch >= attached.seq);
expect(bound.host === host && bound.interface.startsWith("eth"), "a port on the host", bound);

const unknown = await ask("endpoint", "get", { name: `${NAME}-absent` });
expect(unknown.type === "refused" && unknown.code !== "", "an unknown endpoint to be refused", unknown);
const misspelt = await ask("endpoint", "get", { name: NAME, netwrok: NETWORK });
expect(misspelt.type === "refused", "an unknown field to be refused", misspelt);

const deleted = await ask("endpoint", "delete", { name: NAME, network: NETWORK });
expect(deleted.type === "accepted", "delete to be accepted", deleted);
await event("port-unbound", (each) => each.endpoint === id);
await event("endpoint-deleted", (each) => each.endpoint === id);
const removed = await ask("network", "delete", { network: NETWORK });
expect(removed.type === "accepted", "the network to be deleted", removed);

subscription.unsubscribe();
await following;
await connection.close();
say("done", { format, events: events.length });
