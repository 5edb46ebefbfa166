# The world around stsrelay: a test CA, signed DNS, mail hosts, policy host, report endpoint and a hostile wire.
#
# Sourced by integration/run, which calls world_start once, world_mend after each story and world_stop at the end.
# Every process is started here by `spawn` and ended by its pid. Stories change the world through lib/story.sh.
#
#   127.0.0.1    named, on its own port, authoritative for ".", "example." (signed) and "plain." (no DNSSEC)
#   127.0.0.1    unbound, validating, on another; the resolver stsrelay is given
#   127.0.1.N    the receiving Postfix, one listener per kind of certificate (FACES)
#   127.0.2.1    nginx: policy hosts mta-sts.*, and reports.example for https: reports
#   127.0.1.9    one more, for all of MANY_NAMES below signed.example: each shows a certificate of its own (SNI)
#   127.0.1.10   requiretls_mx.py, when a story starts it: requiretls.signed.example
#   127.0.2.2    policy_host.py, when a story starts it: policy hosts that misbehave
#   127.0.3.1    wire.py: a path that may strip STARTTLS or inject behind it, in front of mxwire.example
#   127.0.4.1    origin.example: the submitting Postfix, with stsrelay as relayhost, and MX of its own bounces

# Each receiving name: its address, and what it shows.
FACES=(
  'mx1      127.0.1.1' # a good certificate
  'mx2      127.0.1.2' # a good certificate, but only to clients that send SNI
  'mxold    127.0.1.3' # an expired certificate
  'mxwrong  127.0.1.4' # a good certificate for another name
  'mxself   127.0.1.5' # a self-signed certificate
  'mxclear  127.0.1.6' # no STARTTLS
  'mxrogue  127.0.1.7' # a good certificate; no policy lists it
  'mxwire   127.0.1.8' # a good certificate, reached through wire.py
)
# By what they show: a certificate of the world's CA for their name (good, pin, pinbad, ta, odd, lookup), a
# self-signed one (self, pinself, oddself), or one that is wrong in some way.
MANY_NAMES='good pin pinbad ta odd lookup self pinself oddself old early name unknown weak sha1 part'
export MANY_NAMES MANY_ADDRESS=127.0.1.9 REQUIRETLS_ADDRESS=127.0.1.10 HOSTILE_ADDRESS=127.0.2.2
export WIRE_ADDRESS=127.0.3.1 ORIGIN_ADDRESS=127.0.4.1 POLICY_ADDRESS=127.0.2.1 DNS_ADDRESS=127.0.0.1

# shellcheck source-path=SCRIPTDIR
. "$HERE/lib/process.sh"
. "$HERE/lib/ca.sh"
. "$HERE/lib/dns.sh"
. "$HERE/lib/postfix.sh"

world_start() {
  # Below the range the kernel gives to outgoing connections, so that none takes a port before its server does.
  local ports
  ports=$(python3 "$HERE/lib/ports.py" SMTP_PORT HTTPS_PORT AUTHORITY_PORT DNS_PORT ORIGIN_PORT SINK_PORT \
    RELAY_PORT RELAY_STARTTLS_PORT RELAY_TLS_PORT RELAY_HTTP_PORT RESOLVER_PORT) || return
  eval "$ports"
  mkdir -p "$W"/{mail,www,reports}
  chown nobody "$W/mail"
  # The daemon runs as this user: nothing in the stories may need root.
  export RELAY_USER=nobody

  ca_start &&
    dns_start &&
    postfix_mx_start &&
    postfix_origin_start &&
    nginx_start || return
  spawn sink python3 "$HERE/lib/sink.py" "$SINK_PORT" "$W/reports"
  echo pass >"$W/wire.mode"
  spawn wire python3 "$HERE/lib/wire.py" "$WIRE_ADDRESS:$SMTP_PORT" "127.0.1.8:$SMTP_PORT" "$W/wire.mode" "$W/log/wire.log"
  wait_port 127.0.1.1 "$SMTP_PORT" &&
    wait_port "$MANY_ADDRESS" "$SMTP_PORT" &&
    wait_port 127.0.0.1 "$ORIGIN_PORT" &&
    wait_port "$POLICY_ADDRESS" "$HTTPS_PORT" &&
    wait_port 127.0.0.1 "$SINK_PORT" &&
    wait_port "$WIRE_ADDRESS" "$SMTP_PORT"
}

world_stop() {
  local file
  for file in "$W"/pid/*; do
    [ -e "$file" ] || continue
    kill -TERM -- "-$(cat "$file")" 2>/dev/null
  done
  for file in "$W"/pid/*; do [ ! -e "$file" ] || stop "${file##*/}"; done
}

# Brings back what a story may have left stopped or broken.
world_mend() {
  runs mx || postfix_mx_start
  echo pass >"$W/wire.mode"
  rm -f "$W/reports/status"
  # What the submitting host still holds belongs to the story that is over.
  [ -z "$(find "$W"/origin/queue/{incoming,active,deferred,maildrop} -type f)" ] ||
    postsuper -c "$W/origin/etc" -d ALL >/dev/null 2>&1
}

nginx_start() {
  local temp
  mkdir -p "$W/nginx"
  {
    echo "daemon off; user root; worker_processes 1; pid $W/nginx/pid; error_log $W/log/nginx-error.log;"
    echo 'events { worker_connections 256; }'
    echo 'http {'
    for temp in client_body proxy fastcgi uwsgi scgi; do echo "${temp}_temp_path $W/nginx/$temp;"; done
    cat <<NGINX
log_format story '\$host "\$request" \$status \$request_length';
access_log $W/log/nginx-access.log story;
default_type text/plain;
# Each name has its own certificate; a name without one fails its handshake.
ssl_certificate $W/tls/\$ssl_server_name.crt;
ssl_certificate_key $W/tls/\$ssl_server_name.key;
server {
  listen $POLICY_ADDRESS:$HTTPS_PORT ssl;
  server_name ~^mta-sts\.;
  location = /.well-known/mta-sts.txt {
    if (-f $W/www/\$host/broken) { return 500; }
    alias $W/www/\$host/mta-sts.txt;
  }
  location / { return 404; }
}
server {
  listen $POLICY_ADDRESS:$HTTPS_PORT ssl;
  server_name reports.example;
  location = /moved { return 308 https://reports.example:$HTTPS_PORT/tlsrpt; }
  location / { proxy_pass http://127.0.0.1:$SINK_PORT; }
}
}
NGINX
  } >"$W/nginx/nginx.conf"
  certificate reports.example
  spawn nginx nginx -p "$W/nginx" -e "$W/log/nginx-error.log" -c "$W/nginx/nginx.conf"
}

world_tails() {
  local log
  for log in "$W"/log/*; do
    [ -s "$log" ] || continue
    echo "--- ${log##*/}"
    tail -n 15 "$log"
  done
}

# Remembers how long the shared logs are, so that story_tails shows only what came after.
story_begins() {
  local log
  mkdir -p "$S/since"
  for log in "$W"/log/*; do wc -l <"$log" >"$S/since/${log##*/}"; done
}

# What one needs to see of the story just failed: its own words, the daemon's, and what the mail hosts said meanwhile.
story_tails() {
  echo '--- story'
  tail -n 30 "$S/out"
  local log
  for log in "$S"/daemon*.log; do
    [ -s "$log" ] || continue
    echo "--- ${log##*/}"
    tail -n 30 "$log" | cut -c1-600
  done
  for log in mx.log origin.log nginx-access.log nginx-error.log wire.log; do
    [ -s "$W/log/$log" ] || continue
    echo "--- $log"
    tail -n "+$(($(cat "$S/since/$log" 2>/dev/null || echo 0) + 1))" "$W/log/$log" | tail -n 25 | cut -c1-300
  done
}
