#!/bin/sh
# track.sh VISITOR EVENT [PROPERTIES], where PROPERTIES is a JSON object.
set -eu
jq --null-input --arg visitor "$1" --arg event "$2" --argjson properties "${3:-"{}"}" \
    '{type: "track", visitor_id: $visitor, event: $event, properties: $properties}' |
    "$(dirname "$0")/send.sh"
