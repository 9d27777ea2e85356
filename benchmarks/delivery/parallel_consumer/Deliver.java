import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.vertx.VertxParallelEoSStreamProcessor;
import io.vertx.core.Future;
import io.vertx.core.Vertx;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.json.JsonObject;
import io.vertx.core.net.PemTrustOptions;
import io.vertx.ext.web.client.WebClient;
import io.vertx.ext.web.client.WebClientOptions;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Delivers track events with Confluent's parallel-consumer and Vert.x, each visitor's events in order. */
public final class Deliver {
    /** Of Avro's single-object encoding. */
    private static final int FINGERPRINT_BYTES = 10;

    public static void main(String[] arguments) throws Exception {
        int connections = Integer.parseInt(System.getenv("DELIVER_CONNECTIONS"));
        String url = System.getenv("DELIVER_URL");
        Schema schema = new Schema.Parser().parse(Path.of(System.getenv("DELIVER_SCHEMA")).toFile());
        Vertx vertx = Vertx.vertx();
        WebClient client = WebClient.create(vertx, webOptions(connections));

        Map<String, Object> kafka = Map.of(
                "bootstrap.servers", System.getenv("DELIVER_KAFKA"),
                "group.id", System.getenv("DELIVER_GROUP"),
                "auto.offset.reset", "earliest",
                "enable.auto.commit", false);
        var options = ParallelConsumerOptions.<String, byte[]>builder()
                .consumer(new KafkaConsumer<>(kafka, new StringDeserializer(), new ByteArrayDeserializer()))
                .ordering(ProcessingOrder.KEY)
                .maxConcurrency(connections)
                .commitMode(CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS)
                .build();
        var processor = new VertxParallelEoSStreamProcessor<String, byte[]>(vertx, client, options);
        processor.subscribe(List.of(System.getenv("DELIVER_TOPIC")));
        Runtime.getRuntime().addShutdownHook(new Thread(processor::closeDrainFirst));
        processor.vertxFuture(record -> client.postAbs(url)
                .putHeader("content-type", "application/json")
                .putHeader("x-pendo-integration-key", "secret")
                .sendBuffer(body(schema, record.value()))
                .compose(response -> response.statusCode() == 200
                        ? Future.succeededFuture()
                        : Future.failedFuture("answered " + response.statusCode())));
    }

    private static WebClientOptions webOptions(int connections) {
        WebClientOptions options = new WebClientOptions().setMaxPoolSize(connections);
        String authority = System.getenv("DELIVER_CA");
        return authority.isEmpty()
                ? options
                : options.setTrustOptions(new PemTrustOptions().addCertPath(authority));
    }

    private static Buffer body(Schema schema, byte[] value) {
        GenericRecord event;
        try {
            var decoder = DecoderFactory.get()
                    .binaryDecoder(value, FINGERPRINT_BYTES, value.length - FINGERPRINT_BYTES, null);
            event = new GenericDatumReader<GenericRecord>(schema).read(null, decoder);
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
        JsonObject properties = new JsonObject();
        ((Map<?, ?>) event.get("properties")).forEach((name, scalar) ->
                properties.put(name.toString(), scalar instanceof CharSequence ? scalar.toString() : scalar));
        return new JsonObject()
                .put("type", "track")
                .put("event", event.get("event").toString())
                .put("visitorId", event.get("visitor_id").toString())
                .put("timestamp", event.get("occurred_at"))
                .put("properties", properties)
                .put("context", new JsonObject())
                .toBuffer();
    }
}
