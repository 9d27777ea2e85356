package com.example.shop;

import com.optimizely.ab.Optimizely;
import com.optimizely.ab.notification.DecisionNotification;
import com.optimizely.ab.notification.DecisionNotification.FlagDecisionNotificationBuilder;
import com.optimizely.ab.optimizelyconfig.OptimizelyConfig;
import io.flagpost.v1.DecisionEvent;
import io.flagpost.v1.Source;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteBufferSerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Publishes an Optimizely client's flag decisions to Kafka, in the form that Flagpost reads.
 *
 * <p>Nothing in it throws into {@code decide()} or waits there: {@code KafkaProducer.send} may
 * block, for the topic's metadata or a full buffer, so a thread of our own calls it. Without Kafka,
 * events wait in bounded queues.
 */
public final class DecisionPublisher {
  private static final int MAX_QUEUED = 100_000;

  private final Options options;
  private final KafkaProducer<String, ByteBuffer> producer;
  private final ThreadPoolExecutor sender;
  private volatile RuleTypes rules = RuleTypes.unknown();
  private final AtomicLong accepted = new AtomicLong();
  private final AtomicLong delivered = new AtomicLong();

  /**
   * @param bootstrapServers Kafka, {@code host:port,…}
   * @param service this service's name
   * @param attributes the user attributes to carry; none unless named, they may be personal
   * @param now the time of a decision; {@code Instant::now}, but for tests
   * @param onError is told of each decision that could not be published
   */
  public record Options(
      String bootstrapServers,
      String topic,
      String service,
      Set<String> attributes,
      Supplier<Instant> now,
      Consumer<Exception> onError) {}

  public DecisionPublisher(Options options) {
    this.options = options;
    this.producer =
        new KafkaProducer<>(
            config(options.bootstrapServers()), new StringSerializer(), new ByteBufferSerializer());
    this.sender = oneThread();
  }

  private static Map<String, Object> config(String bootstrapServers) {
    Map<String, Object> config = new HashMap<>();
    config.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrapServers);
    config.put(ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, true);
    config.put(ProducerConfig.ACKS_CONFIG, "all");
    config.put(ProducerConfig.LINGER_MS_CONFIG, 5);
    config.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, "lz4");
    // No partitioner: Kafka's default is murmur2 of the key, so that a visitor has one partition.
    return config;
  }

  /** One thread, so that a visitor's decisions stay in order; a full queue throws. */
  private static ThreadPoolExecutor oneThread() {
    return new ThreadPoolExecutor(
        1,
        1,
        0,
        TimeUnit.SECONDS,
        new ArrayBlockingQueue<>(MAX_QUEUED),
        task -> {
          Thread thread = new Thread(task, "flagpost-publisher");
          thread.setDaemon(true);
          return thread;
        });
  }

  /** Call it before the first {@code decide()}. */
  public void attach(Optimizely optimizely) {
    optimizely.addUpdateConfigNotificationHandler(changed -> readRules(optimizely));
    readRules(optimizely);
    optimizely.addDecisionNotificationHandler(this::onDecision);
  }

  /** How many decisions Kafka has acknowledged. */
  public long delivered() {
    return delivered.get();
  }

  /** Waits until Kafka has everything, for {@code timeout} at most; gives how many it has not. */
  public long close(Duration timeout) throws InterruptedException {
    Instant deadline = Instant.now().plus(timeout);
    sender.shutdown();
    if (!sender.awaitTermination(timeout.toMillis(), TimeUnit.MILLISECONDS)) {
      sender.shutdownNow();
    }
    Duration left = Duration.between(Instant.now(), deadline);
    producer.close(left.isNegative() ? Duration.ZERO : left);
    return accepted.get() - delivered.get();
  }

  /** The datafile has come, or changed. */
  private void readRules(Optimizely optimizely) {
    try {
      OptimizelyConfig config = optimizely.getOptimizelyConfig();
      rules = config == null ? RuleTypes.unknown() : RuleTypes.of(config);
    } catch (IOException | RuntimeException error) {
      rules = RuleTypes.unknown();
      options.onError().accept(error);
    }
  }

  private void onDecision(DecisionNotification decision) {
    if (!"flag".equals(decision.getType())) {
      return;
    }
    accepted.incrementAndGet();
    try {
      DecisionEvent event = event(decision);
      sender.execute(() -> send(event));
    } catch (RuntimeException error) { // a full queue among them
      options.onError().accept(error);
    }
  }

  private void send(DecisionEvent event) {
    try {
      // Avro's single-object encoding, with the fingerprint of the class's schema.
      ByteBuffer value = DecisionEvent.getEncoder().encode(event);
      producer.send(
          new ProducerRecord<>(options.topic(), event.getVisitorId(), value), this::reported);
    } catch (IOException | RuntimeException error) {
      options.onError().accept(error);
    }
  }

  private void reported(RecordMetadata record, Exception error) {
    if (error == null) {
      delivered.incrementAndGet();
    } else {
      options.onError().accept(error);
    }
  }

  private DecisionEvent event(DecisionNotification decision) {
    Map<String, ?> info = decision.getDecisionInfo();
    return DecisionEvent.newBuilder()
        .setEventId(UUID.randomUUID().toString())
        .setOccurredAt(options.now().get())
        .setSource(Source.newBuilder().setService(options.service()).setSdk("java-sdk").build())
        .setVisitorId(decision.getUserId())
        .setFlagKey((String) info.get(FlagDecisionNotificationBuilder.FLAG_KEY))
        .setEnabled((Boolean) info.get(FlagDecisionNotificationBuilder.ENABLED))
        .setVariationKey((String) info.get(FlagDecisionNotificationBuilder.VARIATION_KEY))
        .setRuleKey((String) info.get(FlagDecisionNotificationBuilder.RULE_KEY))
        .setDecisionEventDispatched(
            (Boolean) info.get(FlagDecisionNotificationBuilder.DECISION_EVENT_DISPATCHED))
        .setRuleType(
            rules.typeOf(
                (String) info.get(FlagDecisionNotificationBuilder.RULE_KEY),
                (String) info.get(FlagDecisionNotificationBuilder.EXPERIMENT_ID)))
        .setExperimentId((String) info.get(FlagDecisionNotificationBuilder.EXPERIMENT_ID))
        .setVariationId((String) info.get(FlagDecisionNotificationBuilder.VARIATION_ID))
        .setAttributes(carried(decision.getAttributes()))
        .build();
  }

  private Map<String, Object> carried(Map<String, ?> attributes) {
    Map<String, Object> carried = new HashMap<>();
    for (String name : options.attributes()) {
      Object value = attributes.get(name);
      if (isScalar(value) && attributes.containsKey(name)) {
        carried.put(name, widened(value));
      }
    }
    return carried;
  }

  private static boolean isScalar(Object value) {
    return value == null
        || value instanceof Boolean
        || value instanceof Integer
        || value instanceof Long
        || value instanceof Float
        || value instanceof Double
        || value instanceof String;
  }

  /** The schema's numbers are long and double. */
  private static Object widened(Object value) {
    if (value instanceof Integer number) {
      return number.longValue();
    }
    return value instanceof Float number ? (Object) number.doubleValue() : value;
  }
}
