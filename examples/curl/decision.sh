#!/bin/sh
# decision.sh VISITOR FLAG VARIATION [RULE] [ATTRIBUTES] [TYPE]
# VARIATION is "off" for a flag that is not enabled, ATTRIBUTES a JSON object of user attributes to carry, TYPE what
# decided: experiment, delivery, holdout, or none where no rule did; unknown when it is left out.
set -eu
jq --null-input --arg visitor "$1" --arg flag "$2" --arg variation "$3" --arg rule "${4:-}" \
    --argjson attributes "${5:-"{}"}" --arg type "${6:-}" '{
        type: "decision",
        visitor_id: $visitor,
        flag_key: $flag,
        enabled: ($variation != "off"),
        variation_key: (if $variation == "off" then null else $variation end),
        rule_key: (if $rule == "" then null else $rule end),
        decision_event_dispatched: false,
        rule_type: (if $type == "" then null else $type end),
        attributes: $attributes
    }' | "$(dirname "$0")/send.sh"
