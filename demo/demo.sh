#!/usr/bin/env bash
# The main job, end to end, on this machine alone: a broker on one SQLite file,
# a mesh, two members, messages that wait, a broker that is killed, and the
# proof that it holds no word of what was said. With DEMO_DB=postgres://... the
# broker is on that database instead, which should be empty.
set -euo pipefail

dir=$(mktemp -d)
db=${DEMO_DB:-$dir/mesh.db}
broker_pid=
cleanup() {
  [ -n "$broker_pid" ] && kill "$broker_pid" 2>/dev/null && wait "$broker_pid" 2>/dev/null
  rm -rf "$dir"
}
trap cleanup EXIT

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || step() { printf '\n%s\n' "$*"; }
show() { printf '  $ %s\n' "$*"; "$@" 2>&1 | sed 's/^/    /'; }
alice() { claudemesh --config-dir "$dir/alice" "$@"; }
bob() { claudemesh --config-dir "$dir/bob" "$@"; }

start_broker() {
  : >"$dir/out"
  claudemesh-broker --db "$db" --listen "${address:-127.0.0.1:0}" --open >"$dir/out" 2>>"$dir/log" &
  broker_pid=$!
  for _ in $(seq 200); do
    url=$(sed -n 's/^listening on //p' "$dir/out") && [ -n "$url" ] && break
    sleep 0.05
  done
  address=${url#ws://} address=${address%/ws}
}

word="sesame-$RANDOM$RANDOM"

step "1. A broker: one binary, one database"
start_broker
echo "    listening on $url, database ${db%%\?*}"

step "2. Alice founds a mesh; its keys are made on her machine"
show alice new acme --broker "$url" --as alice

step "3. She invites Bob, and he joins with the link"
link=$(alice invite)
echo "    ${link:0:60}..."
printf '%s\n' "$link" | bob join - --as bob --yes 2>&1 | sed 's/^/    /'
show alice members

step "4. Bob is away. Alice's agent sends to him, through MCP as Claude Code does"
printf '%s\n' \
  '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"demo","version":"1"}}}' \
  '{"jsonrpc":"2.0","method":"notifications/initialized"}' \
  "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"send_message\",\"arguments\":{\"to\":\"bob\",\"message\":\"the build key is $word\"}}}" |
  (mkdir -p "$dir/shop" && cd "$dir/shop" && alice mcp 2>/dev/null) | sed -n 's/.*"text":"\([^"]*\)".*/    \1/p' | sed 's/\\n/\n    /g'

step "5. The broker is killed with -9, and started again on its database"
kill -9 "$broker_pid"
wait "$broker_pid" 2>/dev/null || true
show alice send bob "and this one was written while the broker was down"
start_broker
echo "    up again at $url"

step "6. Alice's next command delivers what waited here; Bob reads both"
show alice status
show bob inbox

step "7. What the broker has stored of it"
[ -z "${DEMO_DB:-}" ] || pg_dump "$db" --data-only --inserts >"$dir/mesh.db.dump"
hits=0
hex=$(printf %s "$word" | od -An -tx1 | tr -d ' \n')
for form in "$word" "$hex" "$(printf %s "$word" | base64)" "$(printf %s "x$word" | base64 | cut -c3-20)" "$(printf %s "xx$word" | base64 | cut -c4-20)"; do
  n=$(cat "$dir"/mesh.db* "$dir/log" | grep -acF -- "$form" || true)
  echo "    $(printf '%-38s' "$form") found $n times"
  hits=$((hits + n))
done
[ "$hits" -eq 0 ] || { echo "    the broker knows the word"; exit 1; }

step "Done: sent, killed, restarted, received, and the broker never knew."
