# Two Postfix instances of our own: the receiving MX with many faces, and the submitting host. Sourced by world.sh.
#
# `master` is started directly: `postfix start` wants instances to be registered in the system's main.cf.
# Everything that arrives, at either, lands in the Maildir mail/all.

# postfix_layout INSTANCE: directories as `postfix check` would want them; main.cf's common part on stdout.
postfix_layout() {
  local base=$W/$1 folder
  mkdir -p "$base"/{etc,queue,data}
  for folder in active bounce corrupt defer deferred flush hold incoming private saved trace; do
    mkdir -p "$base/queue/$folder"
    chown postfix "$base/queue/$folder"
    chmod 700 "$base/queue/$folder"
  done
  mkdir -p "$base"/queue/{pid,maildrop,public}
  chown postfix:postdrop "$base"/queue/{maildrop,public}
  chmod 730 "$base/queue/maildrop"
  chmod 710 "$base/queue/public"
  chown postfix "$base/data"
  chmod 700 "$base/data"
  cat <<CONF
compatibility_level = 3.6
queue_directory = $base/queue
data_directory = $base/data
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = $W/log
maillog_file = $W/log/$1.log
inet_interfaces = loopback-only
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
local_transport = error:no local mail
biff = no
in_flow_delay = 0
message_size_limit = 52428800
smtpd_client_connection_count_limit = 0
smtpd_tls_loglevel = 1
smtpd_tls_received_header = yes
smtpd_tls_security_level = may
virtual_mailbox_base = $W/mail
virtual_mailbox_maps = static:all/
virtual_mailbox_limit = 0
virtual_uid_maps = static:$(id -u nobody)
virtual_gid_maps = static:$(id -g nobody)
CONF
}

# The services every instance has, in master.cf's columns.
postfix_services() {
  cat <<'CONF'
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
CONF
}

postfix_mx_start() {
  local base=$W/mx face name address extra
  if [ ! -d "$base" ]; then
    mkdir -p "$base/etc"
    {
      postfix_layout mx
      cat <<CONF
myhostname = mx.example
mynetworks = 192.0.2.1/32
virtual_mailbox_domains = regexp:$base/etc/domains
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access regexp:$base/etc/recipients
tls_server_sni_maps = hash:$base/etc/sni
CONF
    } >"$base/etc/main.cf"
    echo '/\.(example|plain)$/ yes' >"$base/etc/domains"
    # Recipients that are refused, by the word they start with.
    cat >"$base/etc/recipients" <<'CONF'
/^nobody[^@]*@/ 550 5.1.1 No such user here
/^later[^@]*@/ 450 4.2.1 Come back later
CONF
    certificate mx1.example && certificate mx2.example && certificate mxrogue.example && certificate mxwire.example &&
      certificate mxold.example mxold.example 20240101000000Z 20240201000000Z &&
      certificate elsewhere.example && self_signed mxself.example mxself.example && many_certificates || return
    # mx2 is only itself to those who ask for it by name, and so are many others.
    echo "mx2.example $W/tls/mx2.example.pem" >"$base/etc/sni"
    for name in $MANY_NAMES; do
      echo "$name.signed.example $W/tls/$name.signed.example.pem" >>"$base/etc/sni"
    done
    MAIL_CONFIG=$base/etc postmap -F "hash:$base/etc/sni" || return
    {
      for face in "${FACES[@]}"; do
        read -r name address <<<"$face"
        case $name in
          mx2 | mxwrong) extra=$W/tls/elsewhere.example.pem ;;
          *) extra=$W/tls/$name.example.pem ;;
        esac
        echo "$address:$SMTP_PORT inet n - n - - smtpd -o syslog_name=$name -o myhostname=$name.example"
        case $name in
          mxclear) echo "  -o smtpd_tls_security_level=none" ;;
          *) echo "  -o smtpd_tls_chain_files=$extra" ;;
        esac
      done
      echo "$MANY_ADDRESS:$SMTP_PORT inet n - n - - smtpd -o syslog_name=mxmany -o myhostname=many.signed.example"
      echo "  -o smtpd_tls_chain_files=$W/tls/elsewhere.example.pem"
      postfix_services
    } >"$base/etc/master.cf"
  fi
  spawn mx "$(postfix_master)" -c "$base/etc" -d
  wait_port 127.0.1.1 "$SMTP_PORT"
}

postfix_origin_start() {
  local base=$W/origin
  mkdir -p "$base/etc"
  {
    postfix_layout origin
    cat <<CONF
myhostname = origin.example
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = origin.example
smtpd_relay_restrictions = permit_mynetworks reject_unauth_destination
smtpd_tls_chain_files = $W/tls/origin.example.pem
relayhost = [127.0.0.1]:$RELAY_PORT
# A relay that is down for a moment in a story is asked again soon.
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
transport_retry_time = 1s
default_destination_concurrency_failed_cohort_limit = 100
CONF
  } >"$base/etc/main.cf"
  certificate origin.example || return
  {
    echo "127.0.0.1:$ORIGIN_PORT inet n - n - - smtpd"
    echo "$ORIGIN_ADDRESS:$SMTP_PORT inet n - n - - smtpd -o mynetworks=192.0.2.1/32 -o smtpd_relay_restrictions=reject_unauth_destination"
    postfix_services
  } >"$base/etc/master.cf"
  spawn origin "$(postfix_master)" -c "$base/etc" -d
}

postfix_master() {
  echo "$(postconf -dh daemon_directory)/master"
}
