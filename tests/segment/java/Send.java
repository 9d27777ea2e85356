import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.ToNumberPolicy;
import com.google.gson.GsonBuilder;
import com.segment.analytics.Analytics;
import com.segment.analytics.Callback;
import com.segment.analytics.messages.GroupMessage;
import com.segment.analytics.messages.IdentifyMessage;
import com.segment.analytics.messages.Message;
import com.segment.analytics.messages.MessageBuilder;
import com.segment.analytics.messages.PageMessage;
import com.segment.analytics.messages.ScreenMessage;
import com.segment.analytics.messages.TrackMessage;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.Date;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Sends calls through Segment's Java library as it is: only the endpoint is another one.
 * In: Send HOST WRITE_KEY, one call a line on stdin: {"kind": "track", "arguments": {...}}.
 * Out: exit code 0 when the library says that all of it arrived, else 1 and why on stderr.
 */
public final class Send {
    private static final Gson GSON =
            new GsonBuilder().setObjectToNumberStrategy(ToNumberPolicy.LONG_OR_DOUBLE).create();

    public static void main(String[] arguments) throws Exception {
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).lines().toList();
        var told = new CountDownLatch(lines.size());
        var failed = new AtomicInteger();
        var analytics = Analytics.builder(arguments[1])
                .endpoint(arguments[0])
                .maximumQueueSizeInBytes(16 * 1024) // of a batch: it has the key in its body, which may have 32 KB
                .callback(new Callback() {
                    @Override
                    public void success(Message message) {
                        told.countDown();
                    }

                    @Override
                    public void failure(Message message, Throwable error) {
                        failed.incrementAndGet();
                        error.printStackTrace();
                        told.countDown();
                    }
                })
                .build();
        for (String line : lines) {
            JsonObject call = GSON.fromJson(line, JsonObject.class);
            analytics.enqueue(message(call.get("kind").getAsString(), GSON.fromJson(call.get("arguments"), Map.class)));
        }
        analytics.flush();
        boolean all = told.await(120, TimeUnit.SECONDS);
        analytics.shutdown();
        System.exit(all && failed.get() == 0 ? 0 : 1);
    }

    private static MessageBuilder<?, ?> message(String kind, Map<String, Object> given) {
        MessageBuilder<?, ?> builder = switch (kind) {
            case "track" -> TrackMessage.builder((String) given.get("event")).properties(inner(given, "properties"));
            case "identify" -> IdentifyMessage.builder().traits(inner(given, "traits"));
            case "group" -> GroupMessage.builder((String) given.get("groupId")).traits(inner(given, "traits"));
            case "page" -> PageMessage.builder((String) given.get("name")).properties(inner(given, "properties"));
            case "screen" -> ScreenMessage.builder((String) given.get("name")).properties(inner(given, "properties"));
            default -> throw new IllegalArgumentException(kind);
        };
        builder.userId((String) given.get("userId"));
        builder.timestamp(Date.from(OffsetDateTime.parse((String) given.get("timestamp")).toInstant()));
        if (given.containsKey("context")) {
            builder.context(inner(given, "context"));
        }
        return builder;
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> inner(Map<String, Object> given, String name) {
        return (Map<String, Object>) given.get(name);
    }
}
