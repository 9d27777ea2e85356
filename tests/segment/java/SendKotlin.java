import com.segment.analytics.kotlin.core.RequestFactory;
import com.segment.analytics.kotlin.core.compat.ConfigurationBuilder;
import com.segment.analytics.kotlin.core.compat.JavaAnalytics;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.HttpURLConnection;
import java.net.URI;
import java.util.Map;

/**
 * Sends events through Segment's Kotlin library as it is: only the host is another one, and the connection is Java's own
 * without TLS, where the library's is okhttp's with it. What is sent on it, headers and body, is the library's.
 * In: SendKotlin HOST:PORT WRITE_KEY USER EVENTS. Out: ends when nothing is left to upload, with 0; after a minute, with 1.
 */
public final class SendKotlin {
    private static final class To extends RequestFactory {
        private final String host;

        To(String host) {
            this.host = host;
        }

        @Override
        public HttpURLConnection openConnection(String url) {
            try {
                var address = URI.create(url.replaceFirst("^https://[^/]+", "http://" + host)).toURL();
                return (HttpURLConnection) address.openConnection();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        var analytics = new JavaAnalytics(new ConfigurationBuilder(arguments[1])
                .setApplication("tests")
                .setRequestFactory(new To(arguments[0]))
                .setFlushAt(20)
                .setFlushInterval(1)
                .build());
        analytics.identify(arguments[2], Map.of("plan", "gold"));
        int events = Integer.parseInt(arguments[3]);
        for (int number = 0; number < events; number++) {
            analytics.track("Plan Chosen", Map.of("number", number));
        }
        analytics.screen("Settings", Map.of("where", "here"), "");
        analytics.group("acme", Map.of("seats", 5));
        for (int second = 0; second < 60; second++) {
            Thread.sleep(1000);
            analytics.flush();
            if (second > 2 && analytics.pendingUploads().isEmpty()) {
                System.exit(0);
            }
        }
        System.exit(1);
    }
}
