/**
 * A service: for each user on stdin, a JSON line {"visitor_id": …, "attributes": {…}}, it decides all flags.
 * Out: the decisions on stdout; the publisher takes them to Kafka.
 */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

import {
  createForwardingEventProcessor,
  createInstance,
  createStaticProjectConfigManager,
} from '@optimizely/optimizely-sdk';

import { DecisionPublisher } from './decision-publisher.js';

const { env } = process;
const here = (path) => new URL(path, import.meta.url);

const optimizely = createInstance({
  projectConfigManager: createStaticProjectConfigManager({
    datafile: readFileSync(env.DATAFILE ?? here('../datafile.json'), 'utf8'),
  }),
  // The datafile is a made-up project's: its impressions go nowhere. Leave this out for a real one.
  eventProcessor: createForwardingEventProcessor({ dispatchEvent: async () => ({ statusCode: 204 }) }),
});
const publisher = new DecisionPublisher({
  brokers: (env.FLAGPOST_KAFKA__BOOTSTRAP_SERVERS ?? 'localhost:9092').split(','),
  topic: env.FLAGPOST_KAFKA__TOPIC ?? 'flagpost.events',
  schema: readFileSync(here('../../schemas/avro/DecisionEvent.avsc'), 'utf8'),
  service: 'example-node',
  attributes: ['plan', 'seats', 'score', 'beta'],
  now: () => Number(env.OCCURRED_AT ?? Date.now()),
});
publisher.attach(optimizely);
await optimizely.onReady();

for await (const line of createInterface({ input: process.stdin })) {
  const { visitor_id, attributes } = JSON.parse(line);
  const user = optimizely.createUserContext(visitor_id, attributes);
  for (const { flagKey, enabled, variationKey } of Object.values(user.decideAll())) {
    console.log(visitor_id, flagKey, enabled ? variationKey : 'off');
  }
}

const failed = await publisher.close(Number(env.FLUSH_SECONDS ?? 10) * 1000);
console.error(`${publisher.delivered} decisions published, ${failed} failed`);
process.exit(failed ? 1 : 0); // a client that still looks for Kafka would keep the process
