package com.example.shop;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.optimizely.ab.Optimizely;
import com.optimizely.ab.OptimizelyUserContext;
import com.optimizely.ab.event.NoopEventHandler;
import com.optimizely.ab.optimizelydecision.OptimizelyDecision;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.Optional;
import java.util.Set;

/**
 * A service: for each user on stdin, a JSON line {@code {"visitor_id": …, "attributes": {…}}}, it
 * decides all flags. The decisions are printed; the publisher takes them to Kafka.
 */
public final class Shop {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

  private Shop() {}

  public static void main(String[] arguments) throws IOException, InterruptedException {
    DecisionPublisher publisher =
        new DecisionPublisher(
            new DecisionPublisher.Options(
                setting("FLAGPOST_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092"),
                setting("FLAGPOST_KAFKA__TOPIC", "flagpost.events"),
                "example-java",
                Set.of("plan", "seats", "score", "beta"),
                Shop::now,
                error -> System.err.println("flagpost: a decision was not published: " + error)));
    try (Optimizely optimizely = optimizely()) {
      publisher.attach(optimizely);
      serve(optimizely);
    }
    double seconds = Double.parseDouble(setting("FLUSH_SECONDS", "10"));
    long lost = publisher.close(Duration.ofMillis((long) (seconds * 1000)));
    System.err.printf("%d decisions published, %d failed%n", publisher.delivered(), lost);
    System.exit(lost == 0 ? 0 : 1);
  }

  private static Optimizely optimizely() throws IOException {
    return Optimizely.builder()
        .withDatafile(Files.readString(Path.of(setting("DATAFILE", "../datafile.json"))))
        // The datafile is a made-up project's: its impressions go nowhere. A real one has
        // AsyncEventHandler.
        .withEventHandler(new NoopEventHandler())
        .build();
  }

  private static void serve(Optimizely optimizely) throws IOException {
    BufferedReader users =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = users.readLine(); line != null; line = users.readLine()) {
      decideAll(optimizely, JSON.readValue(line, Visit.class));
    }
  }

  private static void decideAll(Optimizely optimizely, Visit visit) {
    OptimizelyUserContext user =
        optimizely.createUserContext(visit.visitorId(), visit.attributes());
    for (OptimizelyDecision decision : user.decideAll().values()) {
      String shown = decision.getEnabled() ? decision.getVariationKey() : "off";
      OUT.println(visit.visitorId() + " " + decision.getFlagKey() + " " + shown);
    }
  }

  private static Instant now() {
    return Optional.ofNullable(System.getenv("OCCURRED_AT"))
        .map(milliseconds -> Instant.ofEpochMilli(Long.parseLong(milliseconds)))
        .orElseGet(Instant::now);
  }

  private static String setting(String name, String otherwise) {
    return System.getenv().getOrDefault(name, otherwise);
  }
}
