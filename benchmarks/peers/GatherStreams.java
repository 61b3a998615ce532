// Scatter-gather on Kafka Streams: queries to tasks, tasks to partials, partials joined by key.
//
//     java GatherStreams BOOTSTRAP PREFIX gather|layers DELAYS_MS [--changelog]
//
// at_least_once, commits every 100 ms, an in-memory store for joins that are under way. By default
// Kafka Streams writes such a store to a changelog topic, from which it is restored after a crash;
// here only with --changelog, since it costs as many records again.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

public final class GatherStreams {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final String[] LAYERS = {"a", "b", "c"};
  private static final int ITEMS = 3;

  private static byte[] encode(JsonNode node) {
    try {
      return JSON.writeValueAsBytes(node);
    } catch (Exception error) {
      throw new IllegalStateException(error);
    }
  }

  private static JsonNode decode(byte[] value) {
    try {
      return JSON.readTree(value);
    } catch (Exception error) {
      throw new IllegalStateException(error);
    }
  }

  private abstract static class Step implements Processor<byte[], byte[], byte[], byte[]> {
    ProcessorContext<byte[], byte[]> context;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
    }

    void forward(Record<byte[], byte[]> of, JsonNode value) {
      context.forward(of.withValue(encode(value)));
    }
  }

  /** A query becomes a task for each layer. */
  private static final class Scatter extends Step {
    @Override
    public void process(Record<byte[], byte[]> record) {
      JsonNode query = decode(record.value());
      for (String layer : LAYERS) {
        ObjectNode task = JSON.createObjectNode();
        task.put("id", query.get("id").asText()).put("layer", layer);
        forward(record, task.put("n", query.get("params").get("n").asLong()));
      }
    }
  }

  /** A task becomes a partial, after the layer's time. */
  private static final class Layer extends Step {
    private record Due(long atMs, Record<byte[], byte[]> task) {}

    private final Map<String, Long> delaysMs;
    private final PriorityQueue<Due> waiting =
        new PriorityQueue<>(Comparator.comparingLong(Due::atMs));

    Layer(Map<String, Long> delaysMs) {
      this.delaysMs = delaysMs;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      super.init(context);
      if (!delaysMs.isEmpty()) {
        context.schedule(Duration.ofMillis(1), PunctuationType.WALL_CLOCK_TIME, this::answerDue);
      }
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      JsonNode task = decode(record.value());
      if (delaysMs.isEmpty()) {
        answer(record, task);
        return;
      }
      long delayMs = delaysMs.get(task.get("layer").asText());
      waiting.add(new Due(context.currentSystemTimeMs() + delayMs, record));
    }

    private void answerDue(long nowMs) {
      while (!waiting.isEmpty() && waiting.peek().atMs() <= nowMs) {
        Record<byte[], byte[]> record = waiting.poll().task();
        answer(record, decode(record.value()));
      }
    }

    private void answer(Record<byte[], byte[]> record, JsonNode task) {
      ObjectNode partial = JSON.createObjectNode();
      String layer = task.get("layer").asText();
      partial.put("id", task.get("id").asText()).put("layer", layer);
      ArrayNode items = partial.putArray("items");
      for (int i = 0; i < ITEMS; i++) {
        String id = "urn:" + layer + ":" + task.get("n").asLong() + ":" + i;
        items.addObject().put("id", id).put("score", 1.0 / (i + 1));
      }
      forward(record, partial);
    }
  }

  /** Partials of one query become its answer. */
  private static final class Join extends Step {
    private KeyValueStore<byte[], byte[]> joins;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      super.init(context);
      joins = context.getStateStore("joins");
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      byte[] before = joins.get(record.key());
      ObjectNode parts = before == null ? JSON.createObjectNode() : (ObjectNode) decode(before);
      JsonNode partial = decode(record.value());
      parts.set(partial.get("layer").asText(), partial);
      if (parts.size() < LAYERS.length) {
        joins.put(record.key(), encode(parts));
        return;
      }
      joins.delete(record.key());
      List<JsonNode> items = new ArrayList<>();
      parts.forEach(part -> part.get("items").forEach(items::add));
      items.sort(
          Comparator.comparingDouble((JsonNode item) -> -item.get("score").asDouble())
              .thenComparing(item -> item.get("id").asText()));
      ObjectNode answer = JSON.createObjectNode();
      answer.put("id", partial.get("id").asText()).put("status", "complete");
      answer.putArray("items").addAll(items);
      forward(record, answer);
    }
  }

  private static Topology layers(String prefix, Map<String, Long> delaysMs) {
    Topology made = new Topology();
    made.addSource("tasks", prefix + ".t");
    made.addProcessor("layer", () -> new Layer(delaysMs), "tasks");
    return made.addSink("partials", prefix + ".p", "layer");
  }

  private static Topology gather(String prefix, boolean changelog) {
    Topology made = new Topology();
    made.addSource("queries", prefix + ".q").addProcessor("scatter", Scatter::new, "queries");
    made.addSink("tasks", prefix + ".t", "scatter");
    made.addSource("partials", prefix + ".p").addProcessor("join", Join::new, "partials");
    StoreBuilder<KeyValueStore<byte[], byte[]>> joins =
        Stores.keyValueStoreBuilder(
            Stores.inMemoryKeyValueStore("joins"), Serdes.ByteArray(), Serdes.ByteArray());
    made.addStateStore(
        changelog ? joins.withLoggingEnabled(Map.of()) : joins.withLoggingDisabled(), "join");
    return made.addSink("results", prefix + ".r", "join");
  }

  /** What each layer waits; empty if none does. */
  private static Map<String, Long> delays(String given) {
    String[] numbers = given.split(",");
    Map<String, Long> delaysMs = new HashMap<>();
    for (int i = 0; i < LAYERS.length; i++) {
      delaysMs.put(LAYERS[i], Long.parseLong(numbers[i]));
    }
    return delaysMs.values().stream().allMatch(ms -> ms == 0) ? Map.of() : delaysMs;
  }

  private static Properties settings(String bootstrap, String prefix, String role) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, prefix + "-" + role);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
    settings.put(
        StreamsConfig.STATE_DIR_CONFIG, System.getProperty("java.io.tmpdir") + "/" + prefix);
    settings.put(StreamsConfig.producerPrefix("acks"), "all");
    settings.put(StreamsConfig.producerPrefix("linger.ms"), "0");
    settings.put(StreamsConfig.producerPrefix("batch.size"), "262144");
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    settings.put(StreamsConfig.consumerPrefix("fetch.max.wait.ms"), "50");
    settings.put(StreamsConfig.consumerPrefix("session.timeout.ms"), "6000");
    settings.put(StreamsConfig.consumerPrefix("heartbeat.interval.ms"), "400");
    return settings;
  }

  public static void main(String[] arguments) throws Exception {
    String bootstrap = arguments[0];
    String prefix = arguments[1];
    String role = arguments[2];
    boolean changelog = List.of(arguments).contains("--changelog");
    KafkaStreams streams =
        new KafkaStreams(
            role.equals("gather")
                ? gather(prefix, changelog)
                : layers(prefix, delays(arguments[3])),
            settings(bootstrap, prefix, role));
    CountDownLatch ended = new CountDownLatch(1);
    streams.setStateListener(
        (now, before) -> {
          if (now == KafkaStreams.State.RUNNING) {
            System.out.println("ready");
          }
        });
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  streams.close(Duration.ofSeconds(5));
                  ended.countDown();
                }));
    streams.start();
    ended.await();
  }
}
