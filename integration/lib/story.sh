# What a story may say. Sourced by every t-NN-name/run, which integration/run starts with the world's variables set.
#
# A story has a directory $S, its own mail domains, and its own daemon (as user $RELAY_USER) that ends with it.
# A story fails by `fail`, by `check` or by any command that fails.
set -eu -o pipefail

# shellcheck source-path=SCRIPTDIR
. "$HERE/lib/process.sh"
. "$HERE/lib/ca.sh"
. "$HERE/lib/dns.sh"
. "$HERE/lib/postfix.sh"

daemon_pid=
# shellcheck disable=SC2154
trap 'rc=$?; trap - EXIT; daemon_kill || true; [ $rc -eq 0 ] || echo "story failed with status $rc"; exit $rc' EXIT
trap 'echo "failed: $BASH_COMMAND (line $LINENO of ${BASH_SOURCE[0]##*/}, called from line ${BASH_LINENO[0]})"' ERR
set -E

say() { echo "[$(date +%T)] $*"; }
fail() {
  echo "FAILED: $*"
  exit 1
}
# check WHAT COMMAND...: the story goes on only if the command succeeds.
check() {
  local what=$1
  shift
  if "$@"; then say "ok: $what"; else fail "$what ($*)"; fi
}
not() { ! "$@"; }
# equal WHAT GOT EXPECTED
equal() {
  [ "$2" = "$3" ] || fail "$1: got '$2', expected '$3'"
  say "ok: $1 ($2)"
}
# within SECONDS WHAT COMMAND...: asks again and again, until it succeeds or the time is over.
within() {
  local seconds=$1 what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "not within $seconds s: $what ($*)"
    sleep 0.2
  done
  say "ok: $what"
}

# --- the domains of a story

# mail_domain DOMAIN MX...: MX hosts by name, in order of preference.
mail_domain() {
  local domain=$1 preference=10 mx
  shift
  {
    echo "del $domain. MX"
    for mx in "$@"; do
      echo "add $domain. 1 MX $preference $mx."
      preference=$((preference + 10))
    done
  } | dns_update "${domain##*.}"
}

# txt NAME TEXT: one TXT record instead of what was there; no TEXT, no record.
txt() {
  {
    echo "del $1. TXT"
    [ $# -lt 2 ] || echo "add $1. 1 TXT \"$2\""
  } | dns_update "${1##*.}"
}

# sts DOMAIN ID MODE MX...: publishes an MTA-STS policy, with a certificate and address for the policy host.
sts() {
  local domain=$1 id=$2 mode=$3
  shift 3
  sts_files "$domain" "$mode" "$@"
  {
    echo "del mta-sts.$domain. A"
    echo "add mta-sts.$domain. 1 A $POLICY_ADDRESS"
    echo "del _mta-sts.$domain. TXT"
    echo "add _mta-sts.$domain. 1 TXT \"v=STSv1; id=$id;\""
  } | dns_update "${domain##*.}"
}

# sts_files DOMAIN MODE MX...: the policy and its host's certificate, without the DNS records.
sts_files() {
  local domain=$1 mode=$2 mx
  shift 2
  mkdir -p "$W/www/mta-sts.$domain"
  {
    printf 'version: STSv1\r\nmode: %s\r\n' "$mode"
    for mx in "$@"; do printf 'mx: %s\r\n' "$mx"; done
    printf 'max_age: 86400\r\n'
  } >"$W/www/mta-sts.$domain/mta-sts.txt"
  [ -e "$W/tls/mta-sts.$domain.crt" ] || certificate "mta-sts.$domain"
}

# spawn_here COMMAND...: a process that ends with the story, at the latest by integration/run.
spawn_here() {
  "$@" >>"$S/spawned.log" 2>&1 </dev/null &
}

# --- the daemon

# daemon_config: writes $S/stsrelay.toml. Lines on stdin are added at its end (tables of their own).
# Single values may be set beforehand: RETRY, LIFETIME, EXTRA_SERVER, EXTRA_DELIVERY, EXTRA_TLSRPT.
daemon_config() {
  local more='' retry=${RETRY:-'["1s", "2s"]'}
  [ -t 0 ] || more=$(cat)
  export CONFIG=$S/stsrelay.toml
  mkdir -p "$S/data" "$S/tls" "$S/run"
  if [ ! -e "$S/tls/relay.crt" ]; then
    certificate relay.example
    cp "$W/tls/relay.example.crt" "$S/tls/relay.crt"
    cp "$W/tls/relay.example.key" "$S/tls/relay.key"
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$S/tls/dkim.key" 2>/dev/null
  fi
  cat >"$CONFIG" <<TOML
[server]
hostname = "relay.example"
data_dir = "$S/data"
${EXTRA_SERVER:-}

[[listener]]
name = "smarthost"
listen = ["127.0.0.1:$RELAY_PORT"]
tls = "none"
auth = "none"
trusted_networks = ["127.0.0.0/8"]

[tls]
certificate_file = "$S/tls/relay.crt"
key_file = "$S/tls/relay.key"
extra_roots_file = "$W/tls/ca.crt"
use_system_roots = false

[dns]
nameservers = ["127.0.0.1:$DNS_PORT"]
dnssec = "trust-ad"

[delivery]
smtp_port = $SMTP_PORT
retry = $retry
lifetime = "${LIFETIME:-1h}"
${EXTRA_DELIVERY:-}

[mta_sts]
https_port = $HTTPS_PORT

[tlsrpt]
organization_name = "Example Relay"
contact_info = "postmaster@relay.example"
from = "tlsrpt@relay.example"
dkim_domain = "relay.example"
dkim_selector = "tlsrpt"
dkim_key_file = "$S/tls/dkim.key"
start_delay = "0s"
retry = ["1s", "2s"]
${EXTRA_TLSRPT:-}

[network]
allow_private_destinations = ["127.0.0.0/8"]

[admin]
socket = "$S/run/admin.sock"

$more
TOML
  chown -R "$RELAY_USER" "$S/data" "$S/tls" "$S/run"
}

# daemon_start: returns when the daemon answers on its smarthost port. Its log is appended to $S/daemon.log.
daemon_start() {
  setpriv --reuid="$RELAY_USER" --regid="$(id -g "$RELAY_USER")" --clear-groups \
    "$W/bin/stsrelay" serve --config "$CONFIG" >>"$S/daemon.log" 2>&1 </dev/null &
  daemon_pid=$!
  local i
  for ((i = 0; i < 100; i++)); do
    kill -0 $daemon_pid 2>/dev/null || fail "the daemon ended at once: $(tail -n 3 "$S/daemon.log")"
    if python3 "$HERE/lib/greeting.py" "127.0.0.1:$RELAY_PORT" 2>/dev/null; then
      say "daemon runs ($daemon_pid)"
      return 0
    fi
    sleep 0.1
  done
  fail 'the daemon does not greet within 10 s'
}

# daemon_stop: SIGTERM; it must end by itself, with status 0.
daemon_stop() {
  local i rc=0
  kill -TERM $daemon_pid
  for ((i = 0; i < 300; i++)); do
    kill -0 $daemon_pid 2>/dev/null || break
    sleep 0.1
  done
  [ $i -lt 300 ] || fail 'the daemon does not end within 30 s of SIGTERM'
  wait $daemon_pid || rc=$?
  daemon_pid=
  equal 'exit status after SIGTERM' $rc 0
}

# daemon_kill: SIGKILL, as a power cut for the process.
daemon_kill() {
  [ -n "$daemon_pid" ] || return 0
  kill -KILL $daemon_pid 2>/dev/null || true
  wait $daemon_pid 2>/dev/null || true
  daemon_pid=
}

# relay VERB...: stsrelay's command line against the story's daemon.
relay() {
  local verb=$1
  shift
  "$W/bin/stsrelay" "$verb" "$@" --config "$CONFIG"
}

# queued: how many items the queue holds. A daemon that does not answer fails the story.
queued() {
  local list
  list=$(relay queue list --json) || return
  grep -c . <<<"$list" || true
}
queue_is() { [ "$(queued)" = "$1" ]; }
# deferred: so many items have had an attempt and wait for another one.
deferred_is() { [ "$(relay queue list --json | grep -c '"state":"deferred"' || true)" = "$1" ]; }

# --- mail

# submit FROM TO [FILE]: one message through the submitting Postfix; FILE is its text with CRLF.
submit() {
  local file=${3:-}
  if [ -z "$file" ]; then
    file=$S/message
    message "$1" "$2" >"$file"
  fi
  python3 "$HERE/lib/submit.py" "127.0.0.1:$ORIGIN_PORT" "$1" "$2" "$file"
}

# submit_direct FROM TO: a small message straight to the relay, without the submitting Postfix.
submit_direct() {
  message "$1" "$2" >"$S/message"
  python3 "$HERE/lib/submit.py" "127.0.0.1:$RELAY_PORT" "$1" "$2" "$S/message"
}

# message FROM TO [SUBJECT]: a small message on stdout.
message() {
  printf 'From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%s.%s@origin.example>\r\n\r\nHello from %s.\r\n' \
    "$1" "$2" "${3:-story $STORY}" "$(date -R)" "$RANDOM$RANDOM" "$$" "$STORY"
}

# arrived RECIPIENT: the files of what came for it, one a line.
arrived() {
  [ -d "$W/mail/all/new" ] || return 0
  grep -rlix -m1 "X-Original-To: $1" "$W/mail/all/new" || true
}
arrived_count() { arrived "$1" | grep -c . || true; }
arrived_is() { [ "$(arrived_count "$1")" = "$2" ]; }

# What the receiving names logged since the story began. All of it comes with the final `disconnect` of a session.
mx_log_start=$(wc -l <"$W/log/mx.log")
mx_log() { tail -n "+$((mx_log_start + 1))" "$W/log/mx.log" | grep " $1/smtpd" || true; }
# Connections; transactions with at least one accepted recipient; TLS sessions that went on to a command; sessions
# that ended at TLS: the client broke the handshake off, or (TLS 1.3) closed as soon as it had seen the certificate.
mx_connections() { mx_log "$1" | grep -cE ': connect from' || true; }
mx_mails() { mx_log "$1" | grep -cE ': client=' || true; }
mx_refused() { mx_log "$1" | grep -cE 'lost connection after STARTTLS' || true; }
mx_sessions() {
  mx_log "$1" | awk '
    { split($0, part, /[][]/); process = part[2] }
    / connect from/ { tls[process] = 0 }
    /TLS connection established from/ { tls[process] = 1; sessions++ }
    /lost connection after STARTTLS/ { sessions -= tls[process] }
    END { print sessions + 0 }'
}

# wire_log: what passed the wire in clear since the story began.
wire_log_start=$(wc -l <"$W/log/wire.log")
wire_log() { tail -n "+$((wire_log_start + 1))" "$W/log/wire.log"; }

# requests HOST: policy fetches nginx has seen for it, ever.
requests() { grep -c "^$1 " "$W/log/nginx-access.log" || true; }

# log_has PATTERN: the daemon's log has a line like this.
log_has() { grep -qE -- "$1" "$S/daemon.log"; }
