#!/usr/bin/env bash
# An agent without any client: bash and curl. Counts the files of its project.
set -euo pipefail

ask() { # METHOD PATH [BODY] [IDEMPOTENCY-KEY]
    local method=$1 path=$2 body=${3-} key=${4-}
    curl --silent --show-error --fail-with-body --max-time 30 --request "$method" "$SIDECAR_URL$path" \
        --header "Authorization: Bearer $JWT_TOKEN" --header "Content-Type: application/json" \
        ${key:+--header "Idempotency-Key: $key"} ${body:+--data "$body"}
}

field() { # NAME: its text in the JSON on standard input; ids and types need no unescaping
    sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p'
}

ask GET "/context/$ISSUE_ID/$AGENT_TYPE" > /dev/null # what an agent with a model would read
files=$(git -C "$PROJECT_ROOT" ls-files | wc -l)
echo "$((files)) files"

result="{\"status\": \"success\", \"metrics\": {\"files\": $((files))}}"
stored=$(ask POST /results "{\"agent_id\": \"$AGENT_ID\", \"agent_type\": \"$AGENT_TYPE\", \"issue_id\": \"$ISSUE_ID\",
    \"project_id\": \"$PROJECT_ID\", \"result\": $result}" "$AGENT_ID:result" | field id)
ask POST /events/files_counted "{\"topic\": \"coordination\",
    \"data\": {\"issue_id\": \"$ISSUE_ID\", \"result_id\": \"$stored\"}}" "$AGENT_ID:files_counted" > /dev/null

by=$(ask GET "/events/wait/go_on?timeout=20000&filter=issue_id:$ISSUE_ID" | field publisher)
if [ -z "$by" ]; then
    echo "nobody said go on" >&2
    exit 1
fi
echo "$by said go on"
