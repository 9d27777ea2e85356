#!/bin/sh
# Posts the JSON event on stdin to a Flagpost gateway; ends with 0 once Kafka has it.
# In: GATEWAY_URL (default http://localhost:8081), FLAGPOST_WRITE_KEY; OCCURRED_AT (epoch ms; default now).
set -eu
: "${FLAGPOST_WRITE_KEY:?is a write key, one of those in gateway.write_keys}"

# The id is made here, once: a try that is repeated because its answer was lost repeats the same event.
id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
event=$(jq --compact-output --arg id "$id" \
    '{event_id: $id, occurred_at: (env.OCCURRED_AT // (now * 1000 | floor) | tonumber)} + .')

# Key and event are not among curl's arguments, where everybody on this machine could read them.
printf '%s' "$event" | curl --silent --show-error --fail-with-body --max-time 60 --retry 5 --retry-connrefused \
    --header @/dev/fd/3 --data-binary @- "${GATEWAY_URL:-http://localhost:8081}/v1/events" 3<<HEADERS
authorization: Bearer $FLAGPOST_WRITE_KEY
content-type: application/json
HEADERS
echo
