/**
 * Publishes an Optimizely client's flag decisions to Kafka, in the form that Flagpost reads.
 * In: the SDK's DECISION notifications. Out: records keyed by visitor; counts, and trouble to `onError`.
 *
 * Nothing here throws into decide() or waits in it. Without Kafka, events wait in memory, MAX_QUEUED at most.
 */
import { randomUUID } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';

import { NOTIFICATION_TYPES } from '@optimizely/optimizely-sdk';
import { CompressionTypes, Kafka, Partitioners, logLevel } from 'kafkajs';

import { readRuleTypes, ruleTypeOf } from './rule-types.js';
import { singleObjectEncoder } from './single-object.js';

const MAX_QUEUED = 100_000;
const BATCH = 500;
const DISCONNECT_MS = 1_000;

export class DecisionPublisher {
  #options;
  #encode;
  #producer;
  #ruleTypes = new Map();
  #queue = [];
  #sending;
  #connected = false;
  #closed = false;
  delivered = 0;
  failed = 0;

  /**
   * @param {object} options
   * @param {string[]} options.brokers
   * @param {string} options.topic
   * @param {string} options.schema DecisionEvent.avsc, as text
   * @param {string} options.service this service's name
   * @param {string[]} [options.attributes] user attributes to carry; none by default, they may be personal
   * @param {() => number} [options.now] epoch ms
   * @param {(message: string) => void} [options.onError]
   */
  constructor(options) {
    this.#options = { attributes: [], now: Date.now, onError: console.error, ...options };
    this.#encode = singleObjectEncoder(options.schema);
    const kafka = new Kafka({
      clientId: options.service,
      brokers: options.brokers,
      // Left out, an idempotent producer of kafkajs would give up after five tries.
      retry: { retries: Number.MAX_SAFE_INTEGER, maxRetryTime: 5_000 },
      logLevel: logLevel.ERROR,
      logCreator: () => (entry) => this.#report(`${entry.log.message} ${entry.log.error ?? ''}`),
    });
    this.#producer = kafka.producer({
      // Java's murmur2, which kafkajs 2 calls its default: a visitor has one partition, whoever publishes.
      createPartitioner: Partitioners.DefaultPartitioner,
      idempotent: true,
      maxInFlightRequests: 1, // kafkajs keeps the order only so
      allowAutoTopicCreation: false,
    });
  }

  /** Call it before the first decide(). */
  attach(client) {
    const read = () => this.#readRules(client);
    client.notificationCenter.addNotificationListener(NOTIFICATION_TYPES.OPTIMIZELY_CONFIG_UPDATE, read);
    read();
    client.notificationCenter.addNotificationListener(NOTIFICATION_TYPES.DECISION, (notification) =>
      this.#onDecision(notification),
    );
  }

  /** Wait until Kafka has everything, `timeoutMs` at most; gives how many events failed since the start. */
  async close(timeoutMs = 10_000) {
    await within(timeoutMs, this.#sending);
    this.#closed = true;
    const left = this.#queue.length;
    if (left > 0) this.#fail(left, `Kafka at ${this.#options.brokers} did not take them in ${timeoutMs} ms`);
    await within(DISCONNECT_MS, this.#producer.disconnect()).catch((error) => this.#report(error.message));
    return this.failed;
  }

  /** The datafile has come, or changed. */
  #readRules(client) {
    try {
      const config = client.getOptimizelyConfig(); // null: there is no datafile yet
      this.#ruleTypes = config ? readRuleTypes(config) : new Map();
    } catch (error) {
      this.#ruleTypes = new Map();
      this.#report(`the datafile's rules could not be read, events carry no rule_type: ${error.message}`);
    }
  }

  #onDecision({ type, userId, attributes, decisionInfo }) {
    if (type !== 'flag') return;
    try {
      this.#enqueue({
        key: userId,
        value: this.#encode(this.#event(userId, attributes ?? {}, decisionInfo)),
      });
    } catch (error) {
      this.#fail(1, error.message);
    }
  }

  #event(visitorId, attributes, decision) {
    return {
      event_id: randomUUID(),
      occurred_at: this.#options.now(),
      source: {
        'io.flagpost.v1.Source': { service: text(this.#options.service), sdk: text('javascript-sdk') },
      },
      visitor_id: visitorId,
      flag_key: decision.flagKey,
      enabled: decision.enabled,
      variation_key: text(decision.variationKey),
      rule_key: text(decision.ruleKey),
      decision_event_dispatched: decision.decisionEventDispatched,
      rule_type: text(ruleTypeOf(decision, this.#ruleTypes)),
      experiment_id: text(decision.experimentId),
      variation_id: text(decision.variationId),
      attributes: this.#carried(attributes),
    };
  }

  #carried(attributes) {
    const scalars = this.#options.attributes.map((name) => [name, scalar(attributes[name])]);
    return Object.fromEntries(scalars.filter(([, value]) => value !== undefined));
  }

  #enqueue(message) {
    if (this.#closed) return this.#fail(1, 'the publisher is closed');
    if (this.#queue.length >= MAX_QUEUED) return this.#fail(1, `${MAX_QUEUED} others wait for Kafka already`);
    this.#queue.push(message);
    this.#sending ??= this.#send();
  }

  /** One batch after the other, so that a visitor's decisions stay in order. */
  async #send() {
    await turn(); // out of decide(), and with what else is decided in this turn
    while (this.#queue.length > 0) {
      const messages = this.#queue.slice(0, BATCH);
      const error = await this.#trySend(messages);
      if (this.#closed) return; // close() has counted what was left
      this.#queue.splice(0, messages.length);
      if (error) this.#fail(messages.length, error.message);
      else this.delivered += messages.length;
    }
    this.#sending = undefined;
  }

  /** The producer itself tries again for as long as that can help: an error here is final. */
  async #trySend(messages) {
    try {
      if (!this.#connected) await this.#producer.connect();
      this.#connected = true;
      await this.#producer.send({ topic: this.#options.topic, messages, compression: CompressionTypes.GZIP });
    } catch (error) {
      return error;
    }
  }

  #fail(count, why) {
    this.failed += count;
    this.#report(`${count} decisions not published: ${why}`);
  }

  #report(message) {
    try {
      this.#options.onError(`flagpost: ${message}`);
    } catch {
      // What the application does with errors must not become one of decide().
    }
  }
}

/** Wait for a promise, `ms` at most. */
async function within(ms, promise) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A value of ["null", "string"]. */
function text(value) {
  return value == null ? null : { string: value };
}

/** A value of Scalar, undefined for what is none. JavaScript does not tell 4.0 from 4: both go as a long. */
function scalar(value) {
  if (value === null) return null;
  if (Number.isSafeInteger(value)) return { long: value };
  const branch = { boolean: 'boolean', number: 'double', string: 'string' }[typeof value];
  return branch && { [branch]: value };
}
