package com.example.shop;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.optimizely.ab.optimizelyconfig.OptimizelyConfig;
import com.optimizely.ab.optimizelyconfig.OptimizelyExperiment;
import com.optimizely.ab.optimizelyconfig.OptimizelyFeature;
import java.io.IOException;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/** What kind of rule made a decision, as one datafile tells it: {@code rule_type} by the rule's id. */
final class RuleTypes {
  /**
   * Rules that OptimizelyConfig lists as experiments, and that measure nothing: targeted deliveries,
   * rollouts.
   */
  private static final Set<String> DELIVERIES_AMONG_EXPERIMENTS = Set.of("td", "fr");

  private static final ObjectMapper JSON = new ObjectMapper();

  private final Map<String, String> byId;

  private RuleTypes(Map<String, String> byId) {
    this.byId = byId;
  }

  /** Before there is a datafile no rule is known. */
  static RuleTypes unknown() {
    return new RuleTypes(Map.of());
  }

  static RuleTypes of(OptimizelyConfig config) throws IOException {
    JsonNode datafile = JSON.readTree(config.getDatafile());
    Set<String> deliveries = deliveriesAmongExperiments(datafile);
    Map<String, String> byId = new HashMap<>();
    for (OptimizelyFeature flag : config.getFeaturesMap().values()) {
      for (OptimizelyExperiment rule : flag.getDeliveryRules()) {
        byId.put(rule.getId(), "delivery");
      }
      for (OptimizelyExperiment rule : flag.getExperimentRules()) {
        byId.put(rule.getId(), deliveries.contains(rule.getId()) ? "delivery" : "experiment");
      }
    }
    for (String section : new String[] {"holdouts", "localHoldouts"}) {
      datafile.path(section).forEach(each -> byId.put(each.path("id").asText(), "holdout"));
    }
    return new RuleTypes(byId);
  }

  /** Null: a rule that the datafile does not have. */
  String typeOf(String ruleKey, String experimentId) {
    return ruleKey == null ? "none" : byId.get(experimentId);
  }

  private static Set<String> deliveriesAmongExperiments(JsonNode datafile) {
    Set<String> found = new HashSet<>();
    collect(datafile.path("experiments"), found);
    datafile.path("groups").forEach(group -> collect(group.path("experiments"), found));
    return found;
  }

  private static void collect(JsonNode rules, Set<String> found) {
    for (JsonNode rule : rules) {
      if (DELIVERIES_AMONG_EXPERIMENTS.contains(rule.path("type").asText())) {
        found.add(rule.path("id").asText());
      }
    }
  }
}
