#!/bin/sh
# account.sh ACCOUNT VALUES, where VALUES is a JSON object of metadata fields.
set -eu
jq --null-input --arg account "$1" --argjson values "$2" \
    '{type: "account", account_id: $account, values: $values}' |
    "$(dirname "$0")/send.sh"
