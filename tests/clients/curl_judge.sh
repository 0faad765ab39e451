#!/bin/sh
# `curl` against `POST /v1/judge`: URL, KEY, folder with clean.png and sword.png.
set -eu
url=$1 key=$2 folder=$3
judge() { curl --silent --show-error --noproxy '*' --header "Authorization: Bearer $key" "$@" "$url/v1/judge"; }
expect() { # WORDS ANSWER
    case $2 in *"$1"*) ;; *) echo "expected $1, got $2" >&2; exit 1 ;; esac
}
expect '"verdict":"safe"' "$(judge --form "image=@$folder/clean.png")"
expect '"verdict":"unsafe"' "$(judge --form "image=@$folder/sword.png" --form 'prompt=a knight')"
printf '{"image": "%s", "request_id": "curl-1"}' "$(base64 <"$folder/sword.png" | tr -d '\n')" >"$folder/body.json"
answer=$(judge --header 'Content-Type: application/json' --data "@$folder/body.json")
expect '"verdict":"unsafe"' "$answer"
expect '"request_id":"curl-1"' "$answer"
expect '"violated":["sword"]' "$answer"
status() { judge --output "$folder/answer.json" --write-out '%{http_code}' "$@"; }
expect 400 "$(status --form image=nothing)"
expect 415 "$(status --data x)"
key=wrong
expect 401 "$(status --form "image=@$folder/clean.png")"
echo "judge: curl sends forms and JSON and gets verdicts; what is no picture is a 400, a wrong key a 401"
