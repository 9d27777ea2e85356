#!/bin/sh
# visitor.sh VISITOR VALUES, where VALUES is a JSON object of metadata fields.
set -eu
jq --null-input --arg visitor "$1" --argjson values "$2" \
    '{type: "visitor", visitor_id: $visitor, values: $values}' |
    "$(dirname "$0")/send.sh"
