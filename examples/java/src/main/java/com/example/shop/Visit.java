package com.example.shop;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.Map;

/** A user who comes by. */
record Visit(@JsonProperty("visitor_id") String visitorId, Map<String, Object> attributes) {
  Visit {
    attributes = attributes == null ? Map.of() : attributes;
  }
}
