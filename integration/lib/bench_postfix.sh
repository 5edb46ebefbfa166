#!/bin/bash
# Postfix with postfix-mta-sts-resolver as its operators run it, for the benchmark: a peer in the sense of
# tests/bench/rounds.rs. Started by the benchmark inside the namespaces that integration/bench makes.
#
#   bench_postfix.sh DIR     DIR/roots.pem holds the world's CA; queue, configuration and logs go below DIR.
#
# Says `PORT PID PID` when both are ready; ends both at SIGTERM. Tuned for throughput: no flow delay, connections
# reused also with TLS, 100 clients served at a time, name lookups of clients off, the resolver's cache in memory.
set -eu -o pipefail
W=$1
PORT=10025
RESOLVER_PORT=8461
# Delivery agents at a time. More of them lose time to each other on a small machine.
DELIVERIES=${POSTFIX_DELIVERIES:-100}
TLS_REUSE=${POSTFIX_TLS_REUSE:-yes}
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$W"/{log,pid}
# The queue belongs to other users.
chmod 755 "$W"
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/process.sh"
. "$(dirname "${BASH_SOURCE[0]}")/postfix.sh"

finish() {
  trap '' TERM INT HUP
  local name
  for name in postfix resolver; do [ ! -e "$W/pid/$name" ] || stop $name; done
}
trap finish EXIT
trap 'exit 0' TERM INT HUP

base=$W/postfix
mkdir -p "$base/etc"
{
  postfix_layout postfix
  cat <<CONF
myhostname = postfix.bench.test
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
disable_dns_lookups = no
virtual_mailbox_maps =
virtual_mailbox_domains =
smtpd_relay_restrictions = permit_mynetworks reject
smtpd_tls_security_level = none
smtpd_tls_received_header = no
smtpd_tls_loglevel = 0
default_process_limit = 150
qmgr_message_active_limit = 40000
qmgr_message_recipient_limit = 40000
initial_destination_concurrency = 20
smtp_destination_concurrency_limit = 20
smtp_tls_security_level = may
smtp_tls_policy_maps = socketmap:inet:127.0.0.1:$RESOLVER_PORT:postfix
smtp_tls_CAfile = $W/roots.pem
smtp_tls_session_cache_database = btree:\${data_directory}/smtp_scache
smtp_tls_connection_reuse = $TLS_REUSE
smtp_connection_cache_on_demand = yes
smtp_tls_loglevel = 0
CONF
} >"$base/etc/main.cf.parts"
# A later line counts, but Postfix warns of it.
awk -F' *= *' '{ if (!($1 in line)) order[++n] = $1; line[$1] = $0 } END { for (i = 1; i <= n; i++) print line[order[i]] }' \
  "$base/etc/main.cf.parts" >"$base/etc/main.cf"
rm "$base/etc/main.cf.parts"
{
  echo "127.0.0.1:$PORT inet n - n - 150 smtpd"
  # A later line for a service counts.
  postfix_services | sed "s/^smtp unix .*/smtp unix - - n - $DELIVERIES smtp/"
  echo 'tlsproxy unix - - n - 0 tlsproxy'
} >"$base/etc/master.cf"

cat >"$W/resolver.yml" <<CONF
host: 127.0.0.1
port: $RESOLVER_PORT
cache:
  type: internal
  options:
    cache_size: 10000
default_zone:
  strict_testing: false
  timeout: 4
CONF

SSL_CERT_FILE=$W/roots.pem spawn resolver mta-sts-daemon -v warn -c "$W/resolver.yml"
spawn postfix "$(postfix_master)" -c "$base/etc" -d
wait_port 127.0.0.1 $RESOLVER_PORT
wait_port 127.0.0.1 $PORT
echo "$PORT $(cat "$W/pid/postfix") $(cat "$W/pid/resolver")"
# Until told to end.
while :; do
  sleep 3600 &
  wait $! || true
done
